package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/winnow-llm/winnow/serve"
)

// change is a kind of request to change the library.
type change struct {
	read  func(l *serve.Library, o *object) (do work, warnings []string) // takes a body and does nothing yet
	quiet bool                                                           // the answer is empty
}

// work changes a library and tells how far it is.
type work func(ctx context.Context, see func(serve.Progress)) error

// changes are those that have a POST route of their name.
var changes = map[string]change{
	"pull": {read: readPull}, "push": {read: readPush}, "create": {read: readCreate}, "copy": {read: readCopy, quiet: true},
}

// progressLine is how far a change is.
type progressLine struct {
	Status    string   `json:"status"`
	Digest    string   `json:"digest,omitempty"`
	Total     int64    `json:"total,omitempty"`
	Completed int64    `json:"completed,omitempty"`
	Warnings  []string `json:"warnings,omitempty"` // with the last line
}

// statusDone is the status of the last line.
const statusDone = "success"

// errNoLibrary is of a server that was started with models and no store.
var errNoLibrary = &fault{Status: http.StatusNotImplemented, Type: typeServer, Code: "no_library",
	Message: "this server has no store of models that requests may change"}

// change answers a request to change the library, in lines or with the last of them.
func (x *exchange) change(ctx context.Context, c change) error {
	x.out.lines = true
	if x.s.opt.Library == nil {
		return errNoLibrary
	}
	body, err := x.s.body(x.c)
	if err != nil {
		return err
	}
	o, err := parseObject(body)
	if err != nil {
		return err
	}
	stream := !c.quiet && o.flagOr("stream", true)
	do, warnings := c.read(x.s.opt.Library, o)
	if warnings = append(warnings, o.strangers()...); o.err() != nil {
		return o.err()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var last progressLine
	err = do(ctx, func(p serve.Progress) {
		if last = (progressLine{Status: p.Status, Digest: p.Digest, Total: p.Total, Completed: p.Completed}); !stream || p.Status == statusDone {
			return
		}
		if err := x.out.event(last); err != nil {
			cancel(err)
		}
	})
	switch gone := context.Cause(ctx); {
	case gone != nil:
		return gone
	case err != nil:
		return told(err)
	case c.quiet:
		x.c.Status(http.StatusOK)
		return nil
	}
	last = progressLine{Status: statusDone, Warnings: warnings}
	if !stream {
		return x.s.reply(x.c, http.StatusOK, last)
	}
	return x.out.event(last)
}

// told is an error of the library with its own words, which the client needs to do better: what a registry said, or what of a file is
// damaged.
func told(err error) error {
	if f := faultOf(err); f.Code != codeInternal {
		return f
	}
	status := http.StatusInternalServerError
	if errors.Is(err, serve.ErrDigest) {
		status = http.StatusBadRequest
	}
	return &fault{Status: status, Type: typeServer, Code: "library_failed", Message: err.Error()}
}

// onModel names the model of an error.
func onModel(model string, do work) work {
	return func(ctx context.Context, see func(serve.Progress)) error { return ollamaFault(model, do(ctx, see)) }
}

// transport reads how a registry is reached.
func transport(o *object) serve.Transport {
	if o.flag("insecure") {
		return serve.Insecure
	}
	return serve.Secure
}

func readPull(l *serve.Library, o *object) (work, []string) {
	name, how := o.modelName(), transport(o)
	return onModel(name, func(ctx context.Context, see func(serve.Progress)) error { return l.Pull(ctx, name, how, see) }), credentials(o)
}

func readPush(l *serve.Library, o *object) (work, []string) {
	name, how := o.modelName(), transport(o)
	return onModel(name, func(ctx context.Context, see func(serve.Progress)) error { return l.Push(ctx, name, how, see) }), credentials(o)
}

// credentials notes those that ollama's clients may send, and that nobody uses.
func credentials(o *object) (warnings []string) {
	for _, name := range []string{"username", "password"} {
		if v := o.text(name); v != nil && *v != "" {
			warnings = append(warnings, name+" is ignored: registries know the server by its key")
		}
	}
	return warnings
}

func readCopy(l *serve.Library, o *object) (work, []string) {
	from, to := first(o.text("source"), ""), first(o.text("destination"), "")
	for name, v := range map[string]string{"source": from, "destination": to} {
		if v == "" {
			o.bad(name, "is required")
		}
	}
	return func(ctx context.Context, _ func(serve.Progress)) error {
		return ollamaFault(from, l.Copy(ctx, from, to))
	}, nil
}

// readDelete also unloads the model, unless it is pinned.
func (s *Server) readDelete(l *serve.Library, o *object) (work, []string) {
	name := o.modelName()
	return onModel(name, func(ctx context.Context, _ func(serve.Progress)) error {
		loaded := name
		if source, err := l.Find(name); err == nil {
			loaded = source.Name // a folder that was pulled has another name here than at the hub
		}
		if err := l.Remove(ctx, name); err != nil {
			return err
		}
		if err := s.pool.Unload(loaded); err != nil && !errors.Is(err, serve.ErrNoModel) && !errors.Is(err, serve.ErrPinned) {
			return err
		}
		return nil
	}), nil
}

func readCreate(l *serve.Library, o *object) (work, []string) {
	name := o.modelName()
	f := serve.Modelfile{
		From: first(o.text("from"), ""), Template: first(o.text("template"), ""), System: first(o.text("system"), ""), License: readLicense(o),
		Messages: readOwnMessages(o),
	}
	files := first(decoded[map[string]string](o, "files", "an object of digests by file name"), nil)
	refuse := func(why string, names ...string) {
		for _, field := range names {
			if v := o.raw(field); v != nil && string(v) != `""` && string(v) != "{}" {
				o.fail(&fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeUnsupported, Param: field, Message: why})
			}
		}
	}
	refuse("models are not quantized here yet: bring weights that are", "quantize", "quantization", "draft_quantize")
	refuse("adapters are not read yet", "adapters")
	refuse("a draft model is not used", "draft_files")
	refuse("models of other servers are not served", "remote_host")
	refuse("is not read here: send from, template, system, parameters and the like", "modelfile", "path")
	if f.From == "" && len(files) == 0 {
		o.bad("from", "or files are required: a model needs weights")
	}
	var warnings []string
	if parameters := o.inner("parameters"); parameters != nil {
		_, warnings = readOptions(parameters, &serve.Generation{})
		for key, raw := range parameters.fields {
			var v any
			if err := json.Unmarshal(raw, &v); err != nil {
				parameters.bad(key, "is out of range")
			} else if v != nil {
				if f.Parameters == nil {
					f.Parameters = map[string]any{}
				}
				f.Parameters[key] = v
			}
		}
	}
	do := func(ctx context.Context, see func(serve.Progress)) error { return l.Create(ctx, name, f, files, see) }
	if len(files) > 0 {
		return fromBlob(do), warnings
	}
	return onModel(f.From, do), warnings
}

// fromBlob says of a file that is not there how it comes.
func fromBlob(do work) work {
	return func(ctx context.Context, see func(serve.Progress)) error {
		err := do(ctx, see)
		if errors.Is(err, serve.ErrNoModel) {
			return badValue("files", "the store does not have this file; POST /api/blobs/DIGEST brings it")
		}
		return err
	}
}

// readLicense reads a text or several.
func readLicense(o *object) []string {
	raw := o.raw("license")
	if raw == nil {
		return nil
	}
	if raw[0] == '"' {
		if s := first(o.text("license"), ""); s != "" {
			return []string{s}
		}
		return nil
	}
	return first(decoded[[]string](o, "license", "a string or an array of strings"), nil)
}

// readOwnMessages reads the turns that a model's conversations begin with.
func readOwnMessages(o *object) (out []serve.Message) {
	for i, raw := range o.list("messages") {
		m := o.child(fmt.Sprintf("messages[%d]", i), raw)
		if m == nil || i == mostMessages {
			o.bad("messages", "must be at most %d objects", mostMessages)
			return nil
		}
		t := readOllamaMessage(m)
		if t.Role == "tool" {
			m.bad("role", "must be one of system, user, assistant")
		}
		out = append(out, serve.Message{Role: t.Role, Content: t.Content})
	}
	return out
}
