package serve

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"github.com/winnow-llm/winnow/store"
)

// LibraryOptions are what a server decides about its library.
type LibraryOptions struct {
	Store  store.Store
	Remote store.Remote
	Named  Sources // models beside the store's, found first; the first is the default
	// Open loads a model's weights under a name; path is what store.Open takes.
	Open func(name, path string) (*Model, error)
	// Memory says about how many bytes Open will take; nil = as many as the files have.
	Memory func(path string) (int64, error)
	// Sharing says with whom the model of a path shares; nil = with nobody.
	Sharing func(path string) Sharing
	// Checkpoint opens what a source's weights are known by, to describe it; nil = store.Open.
	Checkpoint func(weights string) (*store.Checkpoint, error)
}

// Library is the models of a server: those it was started with, and those of its store, which clients may change. It is a Catalogue.
type Library struct {
	opt LibraryOptions

	mu      sync.Mutex
	glances map[string]glance // by what the weights are known by
}

// NewLibrary makes a library.
func NewLibrary(opt LibraryOptions) *Library {
	if opt.Checkpoint == nil {
		opt.Checkpoint = store.Open
	}
	return &Library{opt: opt, glances: map[string]glance{}}
}

// Find implements Catalogue. Of the store it reads what concerns the one model only, unless it is asked for the default and Named is empty.
func (l *Library) Find(name string) (Source, error) {
	s, _, err := l.find(name)
	return s, err
}

// find gives a model's source, and what the store says of it where it is the store's.
func (l *Library) find(name string) (Source, *store.Card, error) {
	if s, err := l.opt.Named.Find(name); err == nil {
		return s, nil, nil
	}
	if name == "" {
		all, err := l.List()
		if err != nil {
			return Source{}, nil, err
		}
		if len(all) == 0 {
			return Source{}, nil, fmt.Errorf("%w: there are none", ErrNoModel)
		}
		name = all[0].Name
	}
	card, err := l.opt.Store.Lookup(name)
	switch {
	case errors.Is(err, store.ErrName), errors.Is(err, ErrNoModel): // without the store's folder, which is no business of clients
		return Source{}, nil, fmt.Errorf("%w: %.200q", ErrNoModel, name)
	case err != nil:
		return Source{}, nil, fmt.Errorf("%w: %w", ErrLoad, err)
	}
	return l.source(&card), &card, nil
}

// source is a model of the store.
func (l *Library) source(c *store.Card) Source {
	name, path := c.Name, c.Path
	s := Source{
		Name: name, Created: c.Modified, Size: c.Size, Digest: c.Digest, Weights: path, Modelfile: c.Modelfile,
		Open: func() (*Model, error) { return l.opt.Open(name, path) },
	}
	if l.opt.Memory != nil {
		s.Memory = func() (int64, error) { return l.opt.Memory(path) }
	}
	if l.opt.Sharing != nil {
		s.Sharing = l.opt.Sharing(path)
	}
	return s
}

// List implements Catalogue. Models of the store that are damaged, or of a kind that Winnow does not know, are not in it.
func (l *Library) List() ([]Source, error) {
	out := append([]Source{}, l.opt.Named...)
	entries, err := l.opt.Store.List()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, s := range out {
		seen[cmp.Or(s.Weights, s.Name)] = true
	}
	for _, e := range entries {
		if _, named := l.named(e.Name); named || e.Err != nil {
			continue
		}
		card, err := l.opt.Store.Lookup(e.Name)
		if err != nil {
			continue
		}
		s := l.source(&card)
		seen[cmp.Or(s.Weights, s.Name)] = true
		if g := l.glance(&s); g.err == nil {
			out = append(out, s)
		}
	}
	l.forget(seen)
	return out, nil
}

// named finds one of the models that the server was started with.
func (l *Library) named(name string) (Source, bool) {
	s, err := l.opt.Named.Find(name)
	return s, err == nil && name != ""
}
