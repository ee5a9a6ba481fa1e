package store

import (
	"errors"
	"fmt"
)

// What can be wrong with a model on disk, to be told apart with errors.Is.
var (
	ErrFormat      = errors.New("damaged model file")          // it breaks the rules of its own format
	ErrUnsupported = errors.New("not supported")               // valid, but not something Winnow reads
	ErrNoTensor    = errors.New("no such tensor in the model") // asked for by name, not there
	ErrNoModel     = errors.New("no such model")               // the name leads to no file
	ErrName        = errors.New("not a valid model name")      // the name can lead to no file
	ErrDigest      = errors.New("wrong digest")                // bytes are not those that were promised
	ErrExists      = errors.New("name is taken")               // by a file that the user placed in the store
	ErrInUse       = errors.New("in use")                      // by whoever has the file open, or changes the store
)

// FileError says which file is at fault, where in it, and which limit it breaks.
type FileError struct {
	File   string // path as it was opened
	Part   string // `key "general.alignment"`, `tensor "output.weight"`, "header"; "" when the whole file is meant
	Offset int64  // byte of the file where reading stopped; 0 where no single place is at fault
	Limit  string // what is broken, with the numbers that break it
	Err    error  // one of the sentinels above, or the operating system's error
}

func (e *FileError) Error() string {
	s := e.File
	if e.Part != "" {
		s += ": " + e.Part
	}
	if e.Offset > 0 {
		s += fmt.Sprintf(" at byte %d", e.Offset)
	}
	if e.Limit != "" {
		s += ": " + e.Limit
	}
	return s + ": " + e.Err.Error()
}

func (e *FileError) Unwrap() error { return e.Err }

// quoted names a key, tensor or file in an error: escaped, and cut to what fits a line.
func quoted(what, name string) string { return fmt.Sprintf("%s %.100q", what, name) }
