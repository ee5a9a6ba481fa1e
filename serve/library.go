package serve

import (
	"context"
	"errors"
	"io"

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
}

// Library is the models of a server: those it was started with, and those of its store, which clients may change. It is a Catalogue.
type Library struct{ opt LibraryOptions }

// NewLibrary makes a library.
func NewLibrary(opt LibraryOptions) *Library { return &Library{opt: opt} }

// Description is what can be said of a model without loading it.
type Description struct {
	Source
	Family       string // "llama", as the weights say
	Parameters   int64  // of the weights
	Quantization string // the format of most weights: "Q4_K_M"
	Format       string // "gguf" or "safetensors"
	Context      int    // tokens that the model was made for
	Embedding    int    // width of the network
	Capabilities []string
	Meta         map[string]any // GGUF's keys; long lists only where they are asked for
	Tensors      []TensorDescription
}

// TensorDescription is one weight of a model.
type TensorDescription struct {
	Name   string
	Format string
	Shape  []int
}

// Find implements Catalogue.
func (l *Library) Find(name string) (Source, error) { return l.opt.Named.Find(name) }

// List implements Catalogue.
func (l *Library) List() ([]Source, error) { return l.opt.Named.List() }

// Describe says what a model is; verbose adds long lists and all tensors.
func (l *Library) Describe(name string, verbose Verbosity) (Description, error) {
	return Description{}, errUnbuilt
}

// Verbosity is how much of a model is described.
type Verbosity int

// How much is described.
const (
	Brief   Verbosity = iota
	Verbose           // long lists and all tensors too
)

// Pull brings a model from a registry or an address; see is called in turn as it goes on. Two pulls of one model share the work.
func (l *Library) Pull(ctx context.Context, name string, insecure Transport, see func(store.Progress)) error {
	return errUnbuilt
}

// Transport says how a registry is reached.
type Transport int

// Ways to reach a registry.
const (
	Secure   Transport = iota
	Insecure           // plain HTTP, and certificates of anybody
)

// Push sends a model to the registry of its name.
func (l *Library) Push(ctx context.Context, name string, insecure Transport, see func(store.Progress)) error {
	return errUnbuilt
}

// Create makes a model of others' weights, or of blobs that AddBlob brought, which files names: from file name to digest.
func (l *Library) Create(ctx context.Context, name string, f store.Modelfile, files map[string]string, see func(store.Progress)) error {
	return errUnbuilt
}

// Copy gives a model a second name.
func (l *Library) Copy(ctx context.Context, from, to string) error { return errUnbuilt }

// Remove takes a model from the store. One that is loaded goes on answering until it is unloaded.
func (l *Library) Remove(ctx context.Context, name string) error { return errUnbuilt }

// HasBlob says whether the store has a file.
func (l *Library) HasBlob(digest string) (bool, error) { return false, errUnbuilt }

// AddBlob copies a file into the store, whose bytes must have the digest.
func (l *Library) AddBlob(ctx context.Context, digest string, r io.Reader) error { return errUnbuilt }

var errUnbuilt = errors.New("not built yet")
