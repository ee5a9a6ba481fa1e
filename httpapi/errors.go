package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

// Errors of the server itself, by when they happen.
var (
	errDraining = errors.New("server is shutting down")         // a new request, or one that the end of the drain cuts off
	errBusy     = errors.New("too many requests in progress")   // a new request
	errGone     = errors.New("client is gone")                  // writing an answer
	errPanic    = errors.New("winnow: bug: request has failed") // anywhere
)

// fault is an error as clients see it.
type fault struct {
	Status  int
	Type    string
	Code    string        // "" = null
	Param   string        // field at fault, as a path; "" = null
	Message string        //
	Retry   time.Duration // when it is worth another try; 0 = never
}

func (f *fault) Error() string {
	if f.Param == "" {
		return f.Message
	}
	return f.Param + ": " + f.Message
}

// Types of faults, in OpenAI's words.
const (
	typeRequest = "invalid_request_error"
	typeAuth    = "authentication_error"
	typeRate    = "rate_limit_error"
	typeServer  = "server_error"
)

// Codes of faults that are found here.
const (
	codeJSON        = "invalid_json"
	codeValue       = "invalid_value"
	codeUnsupported = "unsupported_parameter"
	codeContext     = "context_length_exceeded"
	codeHost        = "host_not_allowed"
	codeOrigin      = "origin_not_allowed"
	codeMedia       = "unsupported_media_type"
	codeRoute       = "not_found"
	codeMethod      = "method_not_allowed"
	codeInternal    = "internal_error"
)

// statusGone stands in logs and metrics for a client that did not wait. It is never sent.
const statusGone = 499

// rules is the one table from errors to answers: the first that matches counts.
var rules = []struct {
	when  error
	fault fault // its Message is the error's own where it is empty
}{
	{errGone, fault{Status: statusGone, Type: typeRequest, Code: "client_gone"}},
	{errDraining, fault{Status: http.StatusServiceUnavailable, Type: typeServer, Code: "shutting_down", Retry: 5 * time.Second}},
	{errBusy, fault{Status: http.StatusTooManyRequests, Type: typeRate, Code: "rate_limit_exceeded", Retry: time.Second}},
	{serve.ErrQueueFull, fault{Status: http.StatusTooManyRequests, Type: typeRate, Code: "rate_limit_exceeded", Retry: time.Second,
		Message: "too many requests wait for this model"}},
	{serve.ErrNoModel, fault{Status: http.StatusNotFound, Type: typeRequest, Code: "model_not_found", Param: "model"}},
	{serve.ErrLoad, fault{Status: http.StatusInternalServerError, Type: typeServer, Code: "model_load_failed",
		Message: "the model failed to load; the server's log says why"}},
	{serve.ErrTooLarge, fault{Status: http.StatusBadRequest, Type: typeRequest, Code: "model_too_large", Param: "model"}},
	{serve.ErrBusy, fault{Status: http.StatusServiceUnavailable, Type: typeServer, Code: "model_not_loaded", Retry: 5 * time.Second}},
	{serve.ErrPinned, fault{Status: http.StatusBadRequest, Type: typeRequest, Code: "model_pinned", Param: "model"}},
	{serve.ErrClosed, fault{Status: http.StatusServiceUnavailable, Type: typeServer, Code: "shutting_down", Retry: 5 * time.Second,
		Message: "server is shutting down"}},
	{serve.ErrNoTemplate, fault{Status: http.StatusBadRequest, Type: typeRequest, Code: "no_chat_template", Param: "messages",
		Message: "this model has no chat template that can be used; /v1/completions works"}},
	{os.ErrDeadlineExceeded, fault{Status: http.StatusRequestTimeout, Type: typeRequest, Code: "request_timeout",
		Message: "the request's body did not arrive in time"}},
	{context.Canceled, fault{Status: statusGone, Type: typeRequest, Code: "client_gone"}},
}

// faultOf finds how an error is answered. What no rule knows is the server's own failure, whose words stay in its log.
func faultOf(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	for _, r := range rules {
		if errors.Is(err, r.when) {
			f := r.fault
			if f.Message == "" {
				f.Message = err.Error()
			}
			return &f
		}
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &fault{Status: http.StatusRequestEntityTooLarge, Type: typeRequest, Code: "request_too_large",
			Message: fmt.Sprintf("the request's body has more than %d bytes", e.Limit)}
	}
	if e, ok := errors.AsType[*serve.RequestError](err); ok {
		f := badValue(e.Param, "%s", strings.TrimPrefix(e.Error(), e.Param+": "))
		if _, long := errors.AsType[*serve.ContextError](e.Err); long {
			f.Code, f.Message = codeContext, e.Why // which has the numbers
		}
		return f
	}
	if e, ok := errors.AsType[*serve.ContextError](err); ok {
		return &fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeContext, Message: fmt.Sprintf(
			"the prompt has %d tokens; this model's context is %d tokens, the answer's included", e.Prompt, e.Context)}
	}
	if e, ok := errors.AsType[*serve.RemoteError](err); ok {
		return &fault{Status: http.StatusBadGateway, Type: typeServer, Code: "registry_failed", Message: e.Error()}
	}
	return &fault{Status: http.StatusInternalServerError, Type: typeServer, Code: codeInternal,
		Message: "the server failed to answer; its log says why"}
}

// badValue is a field that holds something else than it may.
func badValue(param, format string, args ...any) *fault {
	return &fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeValue, Param: param, Message: fmt.Sprintf(format, args...)}
}

// unsupportedField is a field that asks for what Winnow does not do.
func unsupportedField(param string) *fault {
	return &fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeUnsupported, Param: param,
		Message: "this server does not support " + param + " with this value"}
}

// errorBody is a fault on the wire.
type errorBody struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

func (f *fault) body() errorBody {
	var b errorBody
	b.Error.Message, b.Error.Type = f.Error(), f.Type
	if f.Param != "" {
		b.Error.Param = &f.Param
	}
	if f.Code != "" {
		b.Error.Code = &f.Code
	}
	return b
}
