package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"github.com/winnow-llm/winnow/quant"
)

// NewTensor is a tensor to be written. Its bytes are asked for once, when their turn comes, so that a model larger than the memory can be
// copied from a mapped file.
type NewTensor struct {
	Name   string
	Format *quant.Format
	Shape  []int            // slowest first
	Pieces iter.Seq[[]byte] // its bytes in turn; a piece is valid until the next one is asked for
}

// bytes is how much room a tensor takes; limit says what is wrong with its shape.
func (t *NewTensor) bytes() (size int64, limit string) {
	values, last := uint64(1), 1
	for _, d := range t.Shape {
		if d < 0 || d > 0 && values > maxInt/64/uint64(d) {
			return 0, fmt.Sprintf("shape %d is too large", t.Shape)
		}
		values *= uint64(d)
		last = d
	}
	if !t.Format.Fits(last) {
		return 0, fmt.Sprintf("rows of %d values are no whole number of %s blocks of %d", last, t.Format, t.Format.Block)
	}
	return int64(values) / int64(t.Format.Block) * int64(t.Format.Bytes), ""
}

// writing copies tensors to a file that is not there yet.
type writing struct {
	ctx  context.Context
	path string
	w    io.Writer
	see  func(Progress)
	done Progress
	told int64
}

// writeNew makes a file at path, where none may be: on the disk and whole, or not at all. ErrExists: something is there.
func writeNew(path string, write func(io.Writer) error) error {
	if _, err := os.Lstat(path); err == nil {
		return &FileError{File: path, Err: ErrExists}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fileError(path, err)
	}
	return writeFile(path, write)
}

// writeFile makes a file at path, whole and on the disk, in place of what is there, or not at all.
func writeFile(path string, write func(io.Writer) error) error {
	temp, err := writeTemp(filepath.Dir(path), write)
	if err != nil {
		return err
	}
	return rename(temp, path)
}

const tellEvery = 64 << 20 // bytes of a file between two reports of its progress

// tensor copies one tensor, whose size is known.
func (w *writing) tensor(t *NewTensor, size int64) error {
	left := size
	for piece := range t.Pieces {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if left -= int64(len(piece)); left < 0 {
			break
		}
		if _, err := w.w.Write(piece); err != nil {
			return err
		}
		w.tell(int64(len(piece)))
	}
	if left != 0 {
		return &FileError{File: w.path, Part: quoted("tensor", t.Name), Limit: fmt.Sprintf("%d bytes, should be %d", size-left, size), Err: ErrFormat}
	}
	return nil
}

func (w *writing) tell(n int64) {
	if w.done.Completed += n; w.see != nil && (w.done.Completed-w.told >= tellEvery || w.done.Completed == w.done.Total) {
		w.told = w.done.Completed
		w.see(w.done)
	}
}

// newWriting writes to w what will be the file at path, with total bytes of tensors.
func newWriting(ctx context.Context, path string, total int64, see func(Progress)) *writing {
	return &writing{ctx: ctx, path: path, see: see, done: Progress{Status: "writing " + filepath.Base(path), Digest: path, Total: total}}
}
