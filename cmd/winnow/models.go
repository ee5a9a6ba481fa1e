package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
)

// openCheckpoint opens MODEL of a command line: the embedded demo, a GGUF file, a directory or a name in the store.
func openCheckpoint(models, name string) (*store.Checkpoint, error) {
	path, err := modelPath(models, name)
	if err != nil {
		return nil, err
	}
	return openPath(path)
}

// modelPath is where MODEL is; that of the demo is its name.
func modelPath(models, name string) (string, error) {
	if name == demo.Name {
		return name, nil
	}
	return store.Store{Root: models}.Resolve(name)
}

// openPath opens what modelPath found.
func openPath(path string) (*store.Checkpoint, error) {
	if path == demo.Name {
		return store.OpenBytes(demo.Name, demo.GGUF)
	}
	return store.Open(path)
}

// servedName is what requests call MODEL: a name of the store as it is, a path by its last part.
func servedName(models, name string) (string, error) {
	if name == demo.Name {
		return name, nil
	}
	path, err := store.Store{Root: models}.Resolve(name)
	if err != nil || path != name {
		return name, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	return store.ModelName(path), nil
}

// modified is when a model's files last changed; for the demo, when this binary was made.
func modified(c *store.Checkpoint) time.Time {
	path := c.Path
	if path == demo.Name {
		exe, err := os.Executable()
		if err != nil {
			return time.Time{}
		}
		path = exe
	}
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}
