//go:build unix

package store

import (
	"os"
	"unsafe"

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

// release takes the memory from a part of a mapping, and from the pages that it shares. Whoever reads there again gets the file's bytes.
func release(part []byte) { advise(part, unix.MADV_DONTNEED) }

// ahead has the system read a part of a mapping into its cache.
func ahead(part []byte) { advise(part, unix.MADV_WILLNEED) }

// advise is a hint: refused, it costs time or memory only.
func advise(part []byte, how int) {
	if len(part) == 0 {
		return
	}
	p, page := unsafe.Pointer(&part[0]), uintptr(os.Getpagesize())
	into := int(uintptr(p) & (page - 1))
	_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Add(p, -into)), into+len(part)), how)
}

// skip keeps the whole pages of a part of a mapping out of memory that nobody reads. The system maps pages around one that is read, but no further
// than to pages that it is advised differently of.
func skip(part []byte) {
	page := os.Getpagesize()
	if len(part) < page {
		return
	}
	p := unsafe.Pointer(&part[0])
	from := -int(uintptr(p)) & (page - 1)
	if whole := (len(part) - from) &^ (page - 1); whole > 0 {
		_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Add(p, from)), whole), unix.MADV_RANDOM) // a hint: refused, it costs memory only
	}
}

// lockFile takes an advisory lock of the whole file, which ends with f and with the process. Others may share one that is not exclusive.
// It does not wait: false means that somebody else holds it.
func lockFile(f *os.File, exclusive bool) (bool, error) {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return true, nil
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
		default:
			return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}
