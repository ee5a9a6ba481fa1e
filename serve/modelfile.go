package serve

import "github.com/winnow-llm/winnow/store"

// What clients say of models of a library, and are told.
type (
	Modelfile = store.Modelfile // what a model says beside its weights
	Message   = store.Message   // a turn of a model's own conversation
	Progress  = store.Progress  // how far a pull, a push or a creation is

	// RemoteError says which other machine did not give or not take a model, and why.
	RemoteError = store.RemoteError
)

// Errors of a library.
var (
	ErrName   = store.ErrName   // a model cannot have the name
	ErrDigest = store.ErrDigest // bytes are not those that were promised, or a digest is none
)
