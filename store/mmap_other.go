//go:build !unix

package store

import (
	"io"
	"os"
)

// mapFile reads the first size bytes of f into memory, where the system has no mmap that we use.
func mapFile(f *os.File, size int) ([]byte, func() error, error) {
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, nil, &os.PathError{Op: "read", Path: f.Name(), Err: err}
	}
	return data, func() error { return nil }, nil
}

// release does nothing, since the bytes are nowhere else.
func release([]byte) {}

// ahead does nothing, since they are there.
func ahead([]byte) {}

// skip does nothing either.
func skip([]byte) {}

// lockFile lets everybody pass, where the system has no locks that we use: there one process at a time may write to a store.
func lockFile(*os.File, bool) (bool, error) { return true, nil }
