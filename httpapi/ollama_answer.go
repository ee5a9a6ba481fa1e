package httpapi

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/winnow-llm/winnow/serve"
)

// ollamaRoutes adds ollama's own API.
func (s *Server) ollamaRoutes(r *gin.Engine) {
	answer := func(operation string, parse func(body []byte) (*ollamaRequest, error)) gin.HandlerFunc {
		return s.exchange(operation, func(ctx context.Context, x *exchange) error { return x.ollama(ctx, parse) })
	}
	r.POST("/api/chat", answer("chat", parseOllamaChat))
	r.POST("/api/generate", answer("text_completion", parseOllamaGenerate))
	r.POST("/api/embed", s.exchange("embeddings", func(ctx context.Context, x *exchange) error { return x.ollamaEmbed(ctx, parseOllamaEmbed) }))
	r.POST("/api/embeddings", s.exchange("embeddings", func(ctx context.Context, x *exchange) error { return x.ollamaEmbed(ctx, parseOllamaEmbedding) }))
	for name, change := range changes {
		r.POST("/api/"+name, s.exchange(name, func(ctx context.Context, x *exchange) error { return x.change(ctx, change) }))
	}
	r.DELETE("/api/delete", s.exchange("delete", func(ctx context.Context, x *exchange) error {
		return x.change(ctx, change{read: s.readDelete, quiet: true})
	}))
	r.HEAD("/api/blobs/:digest", s.hasBlob)
	r.POST("/api/blobs/:digest", s.exchange("blob", func(ctx context.Context, x *exchange) error { return x.addBlob(ctx) }))
	r.POST("/api/show", s.show)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r.Handle(method, "/api/tags", s.tags)
		r.Handle(method, "/api/version", s.version)
		r.Handle(method, "/", func(c *gin.Context) { c.String(http.StatusOK, "Ollama is running") }) // whose clients look for these words
	}
	r.GET("/api/ps", s.running)
}

// native says whether a request is to ollama's own API.
func native(c *gin.Context) bool { return strings.HasPrefix(c.Request.URL.Path, "/api/") }

// errorOn is a fault as the clients of a route read it.
func errorOn(c *gin.Context, f *fault) any {
	if native(c) {
		return gin.H{"error": f.Error()}
	}
	return f.body()
}

// ollamaFault is how an error of a request about a model is told in ollama's words, which its clients look for.
func ollamaFault(model string, err error) error {
	if errors.Is(err, serve.ErrNoModel) {
		return &fault{Status: http.StatusNotFound, Type: typeRequest, Code: "model_not_found", Message: fmt.Sprintf("model '%.200s' not found", model)}
	}
	which, ofField := errors.AsType[*serve.RequestError](err)
	if errors.Is(err, serve.ErrName) && !ofField {
		return &fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeValue, Message: fmt.Sprintf("invalid model name '%.200s'", model)}
	}
	if long, ok := errors.AsType[*serve.ContextError](err); ok {
		f := &fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeContext,
			Message: fmt.Sprintf("%d tokens exceed the context of %d tokens, in which an answer needs room too", long.Prompt, long.Context)}
		if ofField {
			f.Param = which.Param
		}
		return f
	}
	if ofField && strings.HasPrefix(which.Param, "moe") {
		return badValue("options."+which.Param, "%s", which.Why)
	}
	if errors.Is(err, serve.ErrNoTemplate) {
		return &fault{Status: http.StatusBadRequest, Type: typeRequest, Code: "no_chat_template",
			Message: "this model has no chat template that can be used; /api/generate with a prompt alone works"}
	}
	return err
}

// ollama takes a request for generated text from its body to the last line of its answer.
func (x *exchange) ollama(ctx context.Context, parse func(body []byte) (*ollamaRequest, error)) error {
	x.out.lines = true
	started := time.Now()
	body, err := x.s.body(x.c)
	if err != nil {
		return err
	}
	r, err := parse(body)
	if err != nil {
		return err
	}
	x.record.asked(&r.plan)
	if r.idle && r.keep != nil && *r.keep == 0 {
		if err := x.s.pool.Unload(r.Model); err != nil {
			return ollamaFault(r.Model, err)
		}
		return x.s.reply(x.c, http.StatusOK, r.last(serve.Delta{Finish: "unload"}, ollamaTimes{}))
	}
	if err := x.s.thinks(r); err != nil {
		return err
	}
	m, err := x.lease(ctx, r.Model, r.keep)
	if err != nil {
		return ollamaFault(r.Model, err)
	}
	defer m.Release()
	a := &ollamaAnswer{exchange: x, ollamaRequest: r, started: started, loading: time.Since(started)}
	if r.idle {
		return x.s.reply(x.c, http.StatusOK, r.last(serve.Delta{Finish: "load"}, newOllamaTimes(started, a.loading, nil)))
	}
	if r.Context > m.Context() {
		r.warn(fmt.Sprintf("options.num_ctx of %d is more than the %d tokens that this model has here: these are the context", r.Context, m.Context()))
		r.Context = 0
	}
	return ollamaFault(r.Model, a.run(ctx, m.Model))
}

// thinks refuses to let a model think that does not know how, as far as that shows without loading it.
func (s *Server) thinks(r *ollamaRequest) error {
	if r.ask.Think == nil || !r.ask.Think.On || s.opt.Library == nil {
		return nil
	}
	d, err := s.opt.Library.Describe(r.Model, serve.Brief)
	if err != nil || slices.Contains(d.Capabilities, "thinking") {
		return nil // what is wrong with it shows when it is loaded
	}
	return badValue("think", "%.200q does not support thinking", r.Model)
}

// lease waits for a model and says how long it stays.
func (x *exchange) lease(ctx context.Context, model string, keep *time.Duration) (*serve.Lease, error) {
	m, err := x.s.pool.Acquire(ctx, model)
	if err != nil {
		return nil, err
	}
	if keep != nil {
		m.Keep(*keep)
	}
	x.record.answering(head{Model: m.Name()}, m.Loading)
	return m, nil
}

// ollamaAnswer is an answer in the making.
type ollamaAnswer struct {
	*exchange
	*ollamaRequest
	started time.Time
	loading time.Duration // waiting for the model
	all     serve.Delta   // what is not streamed
}

// run answers. A chat that is too long is tried again without its oldest turns; a prompt alone for a model without a template is
// continued as it is.
func (a *ollamaAnswer) run(ctx context.Context, m *serve.Model) error {
	ask := func() iter.Seq2[serve.Delta, error] {
		a.ask.Generation = a.Generation
		if a.raw {
			return m.Complete(ctx, serve.CompletionRequest{Prompt: a.prompt, Generation: a.Generation})
		}
		return m.Chat(ctx, a.ask)
	}
	err := a.send(ctx, ask())
	if a.out.begun || err == nil {
		return err
	}
	long, isLong := errors.AsType[*serve.ContextError](err)
	plain := !a.chat && len(a.ask.Messages) == 1 && a.ask.Template == "" && a.ask.Suffix == "" && len(a.ask.Before) == 0
	switch {
	case isLong && a.chat && a.truncate:
		count := func(r serve.ChatRequest) (int, error) {
			if err := context.Cause(ctx); err != nil {
				return 0, err
			}
			return m.Count(ctx, r)
		}
		if err := a.shorten(count, long.Context); err != nil {
			return err
		}
	case errors.Is(err, serve.ErrNoTemplate) && plain:
		a.raw = true
		if which, ok := errors.AsType[*serve.RequestError](err); ok && which.Err != serve.ErrNoTemplate { // it has one
			a.warn(which.Err.Error() + ": the prompt goes on as it is")
		}
	default:
		return err
	}
	return a.send(ctx, ask())
}

// send passes an answer on, in lines or at once.
func (a *ollamaAnswer) send(ctx context.Context, deltas iter.Seq2[serve.Delta, error]) error {
	for d, err := range deltas {
		if err != nil {
			return err
		}
		a.record.piece(part{delta: d})
		if a.none {
			d.Text, d.Reasoning, d.Tokens = "", "", nil
		}
		if d.Finish != "" {
			return a.end(d)
		}
		switch {
		case !a.Stream:
			a.add(d)
		case d.Text != "" || d.Reasoning != "" || len(d.Tokens) > 0:
			if err := a.out.event(a.line(d)); err != nil {
				return err
			}
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return errors.New("the answer ended without a reason")
}

// add keeps a piece of an answer that is sent at once.
func (a *ollamaAnswer) add(d serve.Delta) {
	a.all.Text += d.Text
	a.all.Reasoning += d.Reasoning
	a.all.Tokens = append(a.all.Tokens, d.Tokens...)
}

// end sends the last piece, and with it what the answer took.
func (a *ollamaAnswer) end(d serve.Delta) error {
	u := *d.Usage
	if a.none {
		u.Completion, d.Finish = 0, serve.FinishLength
	}
	a.record.counted(tally([]serve.Usage{u}, 1))
	times := newOllamaTimes(a.started, a.loading, &u)
	if !a.Stream {
		a.add(d)
		d.Text, d.Reasoning, d.Tokens = a.all.Text, a.all.Reasoning, a.all.Tokens
		return a.s.reply(a.c, http.StatusOK, a.last(d, times))
	}
	if d.Text != "" || d.Reasoning != "" || len(d.Tokens) > 0 {
		if err := a.out.event(a.line(d)); err != nil {
			return err
		}
	}
	d.Text, d.Reasoning, d.Tokens = "", "", nil
	return a.out.event(a.last(d, times))
}
