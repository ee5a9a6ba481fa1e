//go:build unix

package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapFile shows the first size bytes of f as memory, read-only, until the returned func is called.
func mapFile(f *os.File, size int) ([]byte, func() error, error) {
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	return data, func() error { return unix.Munmap(data) }, nil
}
