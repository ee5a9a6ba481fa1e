package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	maxBlob  = 1 << 44 // bytes; larger files are refused
	minChunk = 1 << 20 // bytes
	maxChunk = 64 << 20

	suffixMap = suffixPartial + ".map" // beside a partial file: what of it is there
	magicMap  = "winnow:1"
)

// partial is a file on its way to its path, at path-winnow. Its chunks are filled from their beginnings, each by one goroutine at a time.
// Whoever has the file's lock may write to it; the lock ends with the process.
//
// Layout of path-winnow.map: the magic, then as 64-bit little-endian numbers the bytes of the file, the bytes of a chunk, and for
// each chunk how many of its bytes are there. Such a number is written after the bytes that it counts, so that it is true however the
// process ends. After a crash of the machine it may not be; then the digest of the whole file says so.
type partial struct {
	path    string // of the finished file
	file    *os.File
	counts  *os.File // the map
	size    int64
	chunk   int64   // bytes of a chunk; the last may be shorter
	done    []int64 // bytes that are there, by chunk
	have    atomic.Int64
	discard bool // what has come cannot be gone on with
}

// chunkOf gives the size of chunks: some 64 of a file, within limits.
func chunkOf(size int64) int64 {
	return min(maxChunk, max(minChunk, int64(1)<<bits.Len64(uint64(max(0, size-1)/64))))
}

// holdPartial takes the partial file of path, and goes on with what is there of it. While another holds it, wait is told how much that one
// has. The result is nil where the file is there, whole.
func holdPartial(ctx context.Context, path string, size int64, wait func(have int64)) (*partial, error) {
	if size < 0 || size > maxBlob {
		return nil, &FileError{File: path, Limit: fmt.Sprintf("%d bytes, at most %d are pulled", size, int64(maxBlob)), Err: ErrUnsupported}
	}
	for {
		if finished(path, size) {
			if _, err := os.Lstat(path + suffixPartial); errors.Is(err, os.ErrNotExist) {
				os.Remove(path + suffixMap) // left where a process ended between a rename and this
			}
			return nil, nil
		}
		f, err := os.OpenFile(path+suffixPartial, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fileError(path+suffixPartial, err)
		}
		p := &partial{path: path, file: f, size: size, chunk: chunkOf(size)}
		p.done = make([]int64, (size+p.chunk-1)/p.chunk)
		if err := p.lock(ctx, wait); err != nil {
			f.Close()
			return nil, err
		}
		here, err := f.Stat()
		there, err2 := os.Stat(f.Name())
		if err != nil || err2 != nil || !os.SameFile(here, there) {
			f.Close() // whoever had it has finished it, or given it up
			continue
		}
		if finished(path, size) {
			return nil, errors.Join(os.Remove(f.Name()), f.Close())
		}
		if err := p.load(here.Size()); err != nil {
			return nil, errors.Join(err, p.release())
		}
		return p, nil
	}
}

// finished says whether a file is there whole. Its bytes were checked before it got its name.
func finished(path string, size int64) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Size() == size
}

func (p *partial) lock(ctx context.Context, wait func(int64)) error {
	for {
		got, err := lockFile(p.file, true)
		if got || err != nil {
			return err
		}
		if raw, err := readSmall(p.path+suffixMap, 64<<20); err == nil {
			have, _ := p.parse(raw)
			wait(have)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}

// parse reads a map into done; false where it is not one of this file.
func (p *partial) parse(raw []byte) (have int64, ok bool) {
	if len(raw) != len(magicMap)+8*(2+len(p.done)) || string(raw[:len(magicMap)]) != magicMap {
		return 0, false
	}
	at := func(i int) int64 { return int64(binary.LittleEndian.Uint64(raw[len(magicMap)+8*i:])) }
	if at(0) != p.size || at(1) != p.chunk {
		return 0, false
	}
	for i := range p.done {
		if p.done[i] = at(2 + i); p.done[i] < 0 || p.done[i] > p.length(i) {
			return 0, false
		}
		have += p.done[i]
	}
	return have, true
}

// load opens the map of a partial file that has size bytes.
func (p *partial) load(size int64) error {
	path := p.path + suffixMap
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fileError(path, err)
	}
	p.counts = f
	raw, err := readSmall(path, 64<<20)
	if err != nil {
		return err
	}
	if have, ok := p.parse(raw); ok && size == p.size {
		p.have.Store(have)
		return nil
	}
	return p.reset()
}

// reset begins from zero. First the map says so, then the file is given its size: a file of another size is never believed.
func (p *partial) reset() error {
	clear(p.done)
	p.have.Store(0)
	raw := binary.LittleEndian.AppendUint64([]byte(magicMap), uint64(p.size))
	raw = binary.LittleEndian.AppendUint64(raw, uint64(p.chunk))
	raw = append(raw, make([]byte, 8*len(p.done))...)
	err := p.counts.Truncate(0)
	if err == nil {
		_, err = p.counts.WriteAt(raw, 0)
	}
	if err == nil {
		err = p.file.Truncate(0)
	}
	if err == nil {
		err = p.file.Truncate(p.size)
	}
	if err != nil {
		return fileError(p.file.Name(), err)
	}
	return nil
}

// length is the bytes of chunk i.
func (p *partial) length(i int) int64 { return min(p.chunk, p.size-int64(i)*p.chunk) }

// rest is what chunk i lacks.
func (p *partial) rest(i int) (off, n int64) {
	return int64(i)*p.chunk + p.done[i], p.length(i) - p.done[i]
}

// write adds bytes at off, which is where their chunk has got to; they may go on into the chunks behind.
func (p *partial) write(off int64, b []byte) error {
	for len(b) > 0 {
		i := off / p.chunk
		n, err := p.file.WriteAt(b[:min(int64(len(b)), (i+1)*p.chunk-off)], off)
		if err != nil {
			return fileError(p.file.Name(), err)
		}
		p.done[i] += int64(n)
		count := binary.LittleEndian.AppendUint64(nil, uint64(p.done[i]))
		if _, err := p.counts.WriteAt(count, int64(len(magicMap))+8*(2+i)); err != nil {
			return fileError(p.counts.Name(), err)
		}
		p.have.Add(int64(n))
		off, b = off+int64(n), b[n:]
	}
	return nil
}

// finish gives a complete file its name when its bytes have the digest, "sha256:..."; ErrDigest: they have not, and nothing remains.
func (p *partial) finish(ctx context.Context, digest string) error {
	sum := sha256.New()
	if _, err := io.Copy(sum, &interrupted{ctx, io.NewSectionReader(p.file, 0, p.size)}); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fileError(p.file.Name(), err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != digest {
		p.discard = true
		return fmt.Errorf("%w: %s, should be %s", ErrDigest, got, digest)
	}
	err := p.file.Sync()
	if err == nil {
		err = os.Rename(p.file.Name(), p.path)
	}
	if err != nil {
		return fileError(p.path, err)
	}
	os.Remove(p.counts.Name())
	if dir, err := os.Open(filepath.Dir(p.path)); err == nil {
		_ = dir.Sync() // not all file systems can; a crash may only undo the rename
		dir.Close()
	}
	return nil
}

// interrupted ends reading when ctx does.
type interrupted struct {
	ctx context.Context
	io.Reader
}

func (r *interrupted) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(b)
}

// release lets others have the file. What nobody can go on with is removed, the map first: the next holder makes its own.
func (p *partial) release() error {
	if p.discard || p.have.Load() == 0 {
		os.Remove(p.path + suffixMap)
		os.Remove(p.file.Name()) // by finish renamed, or of no use to anybody
	}
	var err error
	if p.counts != nil {
		err = p.counts.Close()
	}
	return errors.Join(err, p.file.Close())
}
