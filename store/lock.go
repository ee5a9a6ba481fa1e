package store

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// lockPoll is how often a lock that somebody else holds is tried again.
const lockPoll = 50 * time.Millisecond

// lockName is the file whose lock says who changes the store: whoever adds blobs or relies on one to stay shares it, whoever removes blobs
// holds it alone. It is empty and stays.
const lockName = ".winnow-lock"

// acquire takes the store's lock and waits for it until ctx ends. Closing the file gives it back.
func (s Store) acquire(ctx context.Context, exclusive bool) (*os.File, error) {
	if err := os.MkdirAll(s.Root, 0o755); err != nil {
		return nil, fileError(s.Root, err)
	}
	path := filepath.Join(s.Root, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fileError(path, err)
	}
	if err := waitLock(ctx, f, exclusive); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// waitLock takes the lock of an open file and waits for it until ctx ends.
func waitLock(ctx context.Context, f *os.File, exclusive bool) error {
	for {
		got, err := lockFile(f, exclusive)
		if err != nil {
			return fileError(f.Name(), err)
		}
		if got {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}
