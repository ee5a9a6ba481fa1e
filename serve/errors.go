package serve

import (
	"errors"
	"fmt"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/store"
)

// Errors of finding a model.
var (
	ErrNoModel = store.ErrNoModel                   // no source has the name
	ErrLoad    = errors.New("model failed to load") // it has, and opening it failed
	ErrClosed  = errors.New("server is closing")    // the pool or the model is closed, or about to be

	ErrTooLarge = errors.New("model is too large")  // for the memory that models may take, or for what pinned ones leave of it
	ErrBusy     = errors.New("model is not loaded") // nor was it within LoadWait
	ErrPinned   = errors.New("model is pinned")     // and is not unloaded
)

// Errors of a request. Those of the engine are passed on under these names.
var (
	ErrNoTemplate = errors.New("model has no chat template") // it can complete a text, but not chat
	ErrQueueFull  = engine.ErrQueueFull                      // as many requests wait as may
)

// ContextError says that a prompt does not fit the context, with both numbers.
type ContextError = engine.ContextError

// RequestError says which part of a request the model cannot do, and why.
type RequestError struct {
	Param string // field of the request in the words of the wire: "messages", "prompt", "chat_template_kwargs"
	Why   string
	Err   error // what it came from; may be nil
}

func (e *RequestError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Param, e.Why, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Param, e.Why)
}

func (e *RequestError) Unwrap() error { return e.Err }
