package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// HasBlob says whether the store has a file. ErrDigest: that is no digest.
func (s Store) HasBlob(digest string) (bool, error) {
	if !digests.MatchString(digest) {
		return false, fmt.Errorf("%w: %.100q is not sha256 and 64 hex digits", ErrDigest, digest)
	}
	path := s.blob(digest)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fileError(path, err)
	}
	return st.Mode().IsRegular(), nil
}

// AddBlob copies a file into the store, where it waits an hour for a model that names it. ErrDigest: its bytes are others. Of one that is there
// nothing is read.
func (s Store) AddBlob(ctx context.Context, digest string, r io.Reader) error {
	if has, err := s.HasBlob(digest); has || err != nil {
		return err
	}
	a, err := s.add(ctx)
	if err != nil {
		return err
	}
	defer a.Close()
	_, err = a.blob(&cancellable{Reader: r, ctx: ctx}, canonical(digest))
	return err
}

// cancellable is a reader that ends with a context.
type cancellable struct {
	io.Reader
	ctx  context.Context
	read int64       // bytes so far
	see  func(int64) // what is told of them; may be nil
}

func (c *cancellable) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.Reader.Read(p)
	if c.read += int64(n); c.see != nil {
		c.see(c.read)
	}
	return n, err
}
