// Package store holds models on disk: it finds them by name, opens GGUF files and Hugging Face directories, checks every
// number that a damaged or hostile file could lie about, and hands out tensors as mapped bytes.
package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/winnow-llm/winnow/quant"
)

// Kind is the family of container that a checkpoint came in.
type Kind string

const (
	GGUF Kind = "gguf"        // description, tokenizer and tensors in one file, or in several that are opened as one
	HF   Kind = "safetensors" // a Hugging Face directory
)

// Checkpoint is an opened model: its description and its tensors, mapped, not read.
//
// Reading it is safe from any goroutine. All bytes it hands out end with Close. They are the file's own pages: whoever
// shortens the file in place while it is open takes the process down, so files are replaced by renaming.
type Checkpoint struct {
	Path    string            // as given to Open
	Kind    Kind              // what was found there
	Meta    Meta              // GGUF key-values, of several files the first's; empty for HF
	Keys    []string          // of Meta, in the file's order
	Parts   []Part            // the files of weights, in the order of a split GGUF, those of HF by name
	Files   map[string][]byte // HF: the small files that are there, by name; empty for GGUF
	Tensors map[string]Tensor // those in a format that Winnow reads, by name

	refused map[string]error  // tensors in other formats: the error that asking for one gives
	packed  map[string]packed // tensors that are made of several of the file's
	pieces  map[string]Tensor // those
	size    int64             // bytes of all tensors
	mapped  []mapping         // the files that are mapped
	unmap   []func() error    // gives them back
}

// Part is one file of weights.
type Part struct {
	File  string            // its path
	Names []string          // its tensors in the order that the file describes them in; those of safetensors as they lie
	Notes map[string]string // of safetensors: what the file says under __metadata__; nil where it says nothing
}

// Tensor is one weight as it lies in the file.
type Tensor struct {
	Name   string
	Format *quant.Format // never nil
	Shape  []int         // slowest first: the last dimension is contiguous, a whole number of blocks; empty for a single value
	Data   []byte        // exactly the tensor, valid until Close; read-only; safetensors do not align it. Of one that is packed Checkpoint.Tensor makes it
}

// Bytes is what the tensor takes in its format.
func (t *Tensor) Bytes() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n / int64(t.Format.Block) * int64(t.Format.Bytes)
}

// Open maps a GGUF file or a Hugging Face directory and checks its description, not its weights. Any file of a split GGUF opens the
// whole model, and so does a directory that holds no other one.
func Open(path string) (*Checkpoint, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	if st.IsDir() {
		return openDir(path)
	}
	if strings.EqualFold(filepath.Ext(path), ".safetensors") {
		return nil, &FileError{File: path, Limit: "safetensors are opened by the directory that also holds config.json", Err: ErrUnsupported}
	}
	return openGGUF(path)
}

func openDir(dir string) (*Checkpoint, error) {
	part, err := splitIn(dir)
	if part == "" || isHF(dir) {
		return openHF(dir)
	}
	if err != nil {
		return nil, err
	}
	c, err := openGGUF(part)
	if err == nil {
		c.Path = dir
	}
	return c, err
}

// OpenBytes reads a GGUF that is in memory already; name stands for its path in errors. The bytes must not change.
func OpenBytes(name string, gguf []byte) (*Checkpoint, error) {
	c, s, err := readPart(name, gguf)
	if err != nil {
		return nil, err
	}
	if s.count > 1 {
		limit := fmt.Sprintf("one of %d files of a split GGUF, which are opened by their paths", s.count)
		return nil, &FileError{File: name, Part: `key "split.count"`, Limit: limit, Err: ErrUnsupported}
	}
	return c, nil
}

// Tensor finds a weight by the name the file gives it. ErrNoTensor: it is not there. ErrUnsupported: it is stored in a
// format that Winnow does not read.
func (c *Checkpoint) Tensor(name string) (Tensor, error) {
	if t, ok := c.Tensors[name]; ok {
		if p, ok := c.packed[name]; ok {
			return c.unpacked(t, p), nil
		}
		return t, nil
	}
	if t, ok := c.pieces[name]; ok {
		return t, nil
	}
	if err, ok := c.refused[name]; ok {
		return Tensor{}, err
	}
	return Tensor{}, &FileError{File: c.Path, Part: quoted("tensor", name), Err: ErrNoTensor}
}

// Has says whether the file holds the tensor, in whatever format.
func (c *Checkpoint) Has(name string) bool {
	_, ok := c.Tensors[name]
	_, piece := c.pieces[name]
	_, refused := c.refused[name]
	return ok || piece || refused
}

// Names lists all tensors of the file in alphabetical order, those in unsupported formats included, and those that it has packed in several
// as one.
func (c *Checkpoint) Names() []string {
	names := slices.AppendSeq(make([]string, 0, len(c.Tensors)+len(c.refused)), maps.Keys(c.Tensors))
	names = slices.AppendSeq(names, maps.Keys(c.refused))
	slices.Sort(names)
	return names
}

// With is c with some keys and tensors more, or others of the same names, as if its file had them. It ends with c and need not be closed.
func (c *Checkpoint) With(meta Meta, tensors []Tensor) *Checkpoint {
	out := *c
	out.Meta, out.Tensors, out.unmap = maps.Clone(c.Meta), maps.Clone(c.Tensors), nil
	maps.Copy(out.Meta, meta)
	for _, t := range tensors {
		out.size += int64(len(t.Data) - len(out.Tensors[t.Name].Data))
		out.Tensors[t.Name] = t
	}
	return &out
}

// Size is the bytes of all tensors.
func (c *Checkpoint) Size() int64 { return c.size }

// Resident is how many bytes of the tensors are in memory whatever Release says: all of a checkpoint that was read from memory, none of
// mapped files.
func (c *Checkpoint) Resident() int64 {
	if len(c.mapped) > 0 {
		return 0
	}
	return c.size
}

// Mapped are the files of weights as they are mapped, in the order in which they were; tensors lie in them. None where they were read from memory.
func (c *Checkpoint) Mapped() (files [][]byte) {
	for _, m := range c.mapped {
		files = append(files, m.data)
	}
	return files
}

// Release says that a tensor, or a part of one, will hardly be read again, so that its pages of the file need not stay in memory. Its
// bytes remain valid, and reading them brings them back.
func (c *Checkpoint) Release(part []byte) {
	if c.mappingOf(part) != nil {
		release(part)
	}
}

// Read copies a tensor, or a part of one, from its file to dst, which is as long. A disk that fails and a file that became shorter are errors
// here, where reading mapped bytes would end the process.
func (c *Checkpoint) Read(dst, part []byte) error {
	m := c.mappingOf(part)
	if m == nil {
		copy(dst, part)
		return nil
	}
	if _, err := m.file.ReadAt(dst[:len(part)], m.offset(part)); err != nil {
		return fileError(m.file.Name(), err)
	}
	return nil
}

// Ahead says that a tensor, or a part of one, will soon be read. It does not wait.
func (c *Checkpoint) Ahead(part []byte) {
	if c.mappingOf(part) != nil {
		ahead(part)
	}
}

// mapping is a file and the memory that shows it from its first byte on.
type mapping struct {
	data []byte
	file *os.File
}

// offset is where a part of the mapping stands in its file.
func (m *mapping) offset(part []byte) int64 {
	return int64(uintptr(unsafe.Pointer(&part[0])) - uintptr(unsafe.Pointer(&m.data[0])))
}

// mappingOf is the one that a tensor's bytes lie in; nil = they were never mapped.
func (c *Checkpoint) mappingOf(part []byte) *mapping {
	for i := range c.mapped {
		if within(c.mapped[i].data, part) {
			return &c.mapped[i]
		}
	}
	return nil
}

// Skip says that nobody will read part of a mapping, such as an expert that is dropped: then none of it comes into memory along with what is read
// beside it. Reading there all the same is slower.
func (c *Checkpoint) Skip(part []byte) {
	if c.mappingOf(part) != nil {
		skip(part)
	}
}

// within says whether part is some of the bytes at whole.
func within(whole, part []byte) bool {
	if len(part) == 0 {
		return false
	}
	at := uintptr(unsafe.Pointer(&part[0])) - uintptr(unsafe.Pointer(&whole[0])) // wraps to a large number before the start
	return at < uintptr(len(whole)) && uintptr(len(part)) <= uintptr(len(whole))-at
}

// Close gives the mapped bytes back. A second Close does nothing.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, unmap := range c.unmap {
		errs = append(errs, unmap())
	}
	c.mapped, c.unmap, c.Tensors, c.refused = nil, nil, nil, nil
	return errors.Join(errs...)
}

// maps takes over a mapped file.
func (c *Checkpoint) maps(m mapping, unmap func() error) {
	c.mapped, c.unmap = append(c.mapped, m), append(c.unmap, unmap)
}

// add enters a checked tensor, or the reason why it cannot be read.
func (c *Checkpoint) add(name string, t Tensor, size uint64, refused error) {
	if c.size += int64(size); refused != nil {
		c.refused[name] = refused
		return
	}
	c.Tensors[name] = t
}

func newCheckpoint(path string, kind Kind) *Checkpoint {
	return &Checkpoint{Path: path, Kind: kind, Meta: Meta{}, Files: map[string][]byte{},
		Tensors: map[string]Tensor{}, refused: map[string]error{}}
}

// openRegular opens a file for reading and refuses all else that a path can lead to: a FIFO would block forever.
func openRegular(path string) (*os.File, int64, error) {
	st, err := os.Stat(path)
	if err == nil && !st.Mode().IsRegular() {
		err = &FileError{File: path, Limit: fmt.Sprintf("not a regular file but %s", st.Mode().Type()), Err: ErrUnsupported}
	}
	if err != nil {
		return nil, 0, fileError(path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fileError(path, err)
	}
	if st, err = f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, 0, &FileError{File: path, Limit: "replaced while it was opened", Err: ErrUnsupported}
	}
	return f, st.Size(), nil
}

// openMapped maps a whole regular file. Until it is unmapped the file stays open and its lock is shared, by which whoever removes files
// from a store sees that it is in use; where the file system has no locks, nobody sees it and the mapping goes on all the same.
func openMapped(path string) (m mapping, unmap func() error, err error) {
	f, size, err := openRegular(path)
	if err != nil {
		return m, nil, err
	}
	var forget func() error
	_, _ = lockFile(f, false)
	switch {
	case size == 0:
		err = &FileError{File: path, Limit: "the file is empty", Err: ErrFormat}
	case int64(int(size)) != size:
		err = &FileError{File: path, Limit: fmt.Sprintf("%d bytes exceed the address space", size), Err: ErrUnsupported}
	default:
		m.file = f
		m.data, forget, err = mapFile(f, int(size))
	}
	if err != nil {
		f.Close()
		return m, nil, fileError(path, err)
	}
	return m, func() error { return errors.Join(forget(), f.Close()) }, nil
}

// fileError names the file once: the operating system's errors carry the path themselves.
func fileError(path string, err error) error {
	var own *FileError
	var sys *os.PathError
	switch {
	case errors.As(err, &own):
		return err
	case errors.As(err, &sys):
		return &FileError{File: path, Part: sys.Op, Err: sys.Err}
	}
	return &FileError{File: path, Err: err}
}
