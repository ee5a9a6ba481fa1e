package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/winnow-llm/winnow/store"
)

// Create makes a model of another's weights, or of a blob that AddBlob brought, which files names: from file name to digest. It takes the place
// of the model that has the name. Unlike on a command line, f.From is no path. see is called in turn as it goes on; it may be nil. ErrNoModel:
// there is none to make it of. A *RequestError: it cannot be made.
func (l *Library) Create(ctx context.Context, name string, f store.Modelfile, files map[string]string, see func(store.Progress)) error {
	if err := l.changeable("model", name); err != nil {
		return err
	}
	if filepath.IsAbs(f.From) {
		return &RequestError{Param: "from", Why: fmt.Sprintf("%.200q is no name of a model; files are sent as blobs", f.From)}
	}
	return refusal("model", l.opt.Store.Create(ctx, name, f, files, see))
}

// Copy gives a model of the store a second name, in place of the model that has it. ErrNoModel: there is none. A *RequestError: it cannot be
// done.
func (l *Library) Copy(ctx context.Context, from, to string) error {
	if err := l.changeable("source", from); err != nil {
		return err
	}
	if err := l.changeable("destination", to); err != nil {
		return err
	}
	return refusal("destination", l.opt.Store.Copy(ctx, from, to))
}

// Remove takes a model from the store. One that is loaded goes on answering until it is unloaded; its files, and those that others may need
// just then, go with a later removal. ErrNoModel: there is none. A *RequestError: it is a file that the user placed, or named at the start.
func (l *Library) Remove(ctx context.Context, name string) error {
	if err := l.changeable("model", name); err != nil {
		return err
	}
	_, err := l.opt.Store.Remove(ctx, name)
	return refusal("model", err)
}

// HasBlob says whether the store has a file. A *RequestError: that is no digest.
func (l *Library) HasBlob(digest string) (bool, error) {
	has, err := l.opt.Store.HasBlob(digest)
	return has, refusal("digest", err)
}

// AddBlob copies a file into the store, where it waits an hour for the model that is made of it. A *RequestError: its bytes have another digest.
func (l *Library) AddBlob(ctx context.Context, digest string, r io.Reader) error {
	return refusal("digest", l.opt.Store.AddBlob(ctx, digest, r))
}

// Pull brings a model into the store: from the registry of its name, or from the hub by hf.co/ORG/REPO[:QUANT]. A pull that was stopped goes on
// where it was, and two of one model share the work. see is called in turn as it goes on. A *RequestError: the name, or what is there, is no
// model that can be pulled. A *RemoteError: another machine does not give it, or gives something else.
func (l *Library) Pull(ctx context.Context, name string, how Transport, see func(store.Progress)) error {
	if err := l.changeable("model", name); err != nil {
		return err
	}
	return refusal("model", l.opt.Store.Pull(ctx, name, l.remote(how), see))
}

// Push sends a model of the store to the registry of its name. see is called in turn as it goes on. Errors are those of Pull, and ErrNoModel.
func (l *Library) Push(ctx context.Context, name string, how Transport, see func(store.Progress)) error {
	if err := l.changeable("model", name); err != nil {
		return err
	}
	return refusal("model", l.opt.Store.Push(ctx, name, l.remote(how), see))
}

// Transport says how a registry is reached.
type Transport int

// Ways to reach a registry.
const (
	Secure   Transport = iota
	Insecure           // plain HTTP, and certificates of anybody
)

func (l *Library) remote(how Transport) store.Remote {
	r := l.opt.Remote
	r.Insecure = r.Insecure || how == Insecure
	return r
}

// changeable refuses to change what is not the store's.
func (l *Library) changeable(param, name string) error {
	if s, named := l.named(name); named {
		return &RequestError{Param: param, Why: fmt.Sprintf("%q is what the server was started with, and not of its store", s.Name)}
	}
	return nil
}

// refusal puts the store's errors into the words of this package: what a request is to blame for, and what is not there. A registry that
// sends other bytes than it promises is to blame itself.
func refusal(param string, err error) error {
	if errors.Is(err, ErrNoModel) {
		return err
	}
	if _, remote := errors.AsType[*RemoteError](err); remote && (errors.Is(err, store.ErrDigest) || errors.Is(err, store.ErrFormat)) {
		return err
	}
	for _, fault := range []error{store.ErrName, store.ErrExists, store.ErrDigest, store.ErrFormat, store.ErrUnsupported, store.ErrInUse} {
		if errors.Is(err, fault) {
			return &RequestError{Param: param, Why: "cannot be done", Err: err}
		}
	}
	return err
}
