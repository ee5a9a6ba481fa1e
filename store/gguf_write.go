package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
)

// NewGGUF is a GGUF file to be written, of version 3.
type NewGGUF struct {
	Meta    Meta     // values of the types that Meta lists
	Keys    []string // the order of Meta; keys that are missing here follow in alphabetical order
	Tensors []NewTensor
	Replace bool // what is in the file's place goes when the new one is whole; else nothing may be there
}

// WriteGGUF makes a GGUF file at path, with tensors in the order given. A file that Winnow has read and that is written
// unchanged has the same keys, tensors and bytes of weights. see is told how it goes on; it may be nil.
//
// ErrExists: path is taken, and is not to be replaced. ErrFormat, ErrUnsupported: no GGUF can hold that. What fails or is cancelled leaves
// nothing, and what was at path as it was.
func WriteGGUF(ctx context.Context, path string, g NewGGUF, see func(Progress)) error {
	e := &ggufEncoder{file: path, seen: map[string]bool{}}
	head := e.head(&g)
	if e.err != nil {
		return e.err
	}
	put := writeNew
	if g.Replace {
		put = writeFile
	}
	return put(path, func(file io.Writer) error {
		w := newWriting(ctx, path, e.total, see)
		b := bufio.NewWriterSize(file, 1<<20)
		w.w = b
		if _, err := b.Write(head); err != nil {
			return err
		}
		for i := range g.Tensors {
			t := &g.Tensors[i]
			size, _ := t.bytes()
			if err := w.tensor(t, size); err != nil {
				return err
			}
			if _, err := b.Write(make([]byte, e.pad(size))); err != nil {
				return err
			}
		}
		return b.Flush()
	})
}

// ggufIDs are the ids of tensor types by name.
var ggufIDs = func() map[string]uint32 {
	ids := map[string]uint32{}
	for id, t := range ggufTypes {
		ids[t.name] = id
	}
	return ids
}()

// HasGGUFType says whether a GGUF file can hold tensors of a format, by its name.
func HasGGUFType(format string) bool { _, ok := ggufIDs[format]; return ok }

// ggufEncoder writes the description of a file. The first failure sticks.
type ggufEncoder struct {
	file  string
	b     bytes.Buffer
	part  string // what is being written, for errors
	align int64
	seen  map[string]bool // tensors that are described
	total int64           // bytes of all tensors
	err   error
}

func (e *ggufEncoder) fail(sentinel error, limit string, args ...any) {
	if e.err == nil {
		e.err = &FileError{File: e.file, Part: e.part, Limit: fmt.Sprintf(limit, args...), Err: sentinel}
	}
}

// number writes numbers, and slices of them, little-endian.
func (e *ggufEncoder) number(values ...any) {
	for _, v := range values {
		if err := binary.Write(&e.b, binary.LittleEndian, v); err != nil {
			e.fail(ErrUnsupported, "%v", err)
		}
	}
}

func (e *ggufEncoder) text(s string) {
	e.number(uint64(len(s)))
	e.b.WriteString(s)
}

// pad is the bytes from n on to the next multiple of the alignment.
func (e *ggufEncoder) pad(n int64) int64 { return -n & (e.align - 1) }

// head is all that stands before the weights.
func (e *ggufEncoder) head(g *NewGGUF) []byte {
	e.part = quoted("key", ggufAlignment)
	align, why := alignmentOf(g.Meta)
	if why != "" {
		e.fail(ErrFormat, "%s", why)
	}
	e.align = int64(align)
	e.b.WriteString("GGUF")
	e.number(uint32(3), uint64(len(g.Tensors)), uint64(len(g.Meta)))
	for _, key := range g.order() {
		e.part = quoted("key", key)
		if key == "" || len(key) > ggufMaxKey {
			e.fail(ErrFormat, "name of %d bytes, 1 to %d are allowed", len(key), ggufMaxKey)
		}
		e.text(key)
		e.value(g.Meta[key])
	}
	at := int64(0)
	for i := range g.Tensors {
		at += e.tensor(&g.Tensors[i], at)
	}
	e.b.Write(make([]byte, e.pad(int64(e.b.Len()))))
	return e.b.Bytes()
}

// order lists each key once.
func (g *NewGGUF) order() []string {
	var out []string
	seen := map[string]bool{}
	for _, key := range slices.Concat(g.Keys, slices.Sorted(maps.Keys(g.Meta))) {
		if g.Meta.Has(key) && !seen[key] {
			seen[key] = true
			out = append(out, key)
		}
	}
	return out
}

// tensor describes a tensor whose weights begin at byte at of the data section, and gives the bytes that they take there.
func (e *ggufEncoder) tensor(t *NewTensor, at int64) int64 {
	e.part = quoted("tensor", t.Name)
	if t.Name == "" || len(t.Name) > ggufMaxName {
		e.fail(ErrFormat, "name of %d bytes, 1 to %d are allowed", len(t.Name), ggufMaxName)
	}
	if e.seen[t.Name] {
		e.fail(ErrFormat, "appears twice")
	}
	shape := t.Shape
	if len(shape) == 0 {
		shape = []int{1}
	}
	id, ok := ggufIDs[t.Format.Name]
	size, limit := t.bytes()
	switch {
	case !ok:
		e.fail(ErrUnsupported, "GGUF has no type %s", t.Format)
	case len(shape) > ggufMaxDims || slices.Min(shape) < 1:
		e.fail(ErrFormat, "shape %d: 1 to %d dimensions from 1 on are allowed", shape, ggufMaxDims)
	case limit != "":
		e.fail(ErrFormat, "%s", limit)
	}
	e.text(t.Name)
	e.number(uint32(len(shape)))
	for _, d := range slices.Backward(shape) {
		e.number(uint64(d))
	}
	e.number(id, uint64(at))
	e.seen[t.Name] = true
	e.total += size
	return size + e.pad(size)
}

// value writes the type and the value of a key.
func (e *ggufEncoder) value(v any) {
	switch v := v.(type) {
	case string:
		e.number(uint32(ggufString))
		e.text(v)
	case []string:
		e.number(uint32(ggufArray), uint32(ggufString), uint64(len(v)))
		for _, s := range v {
			e.text(s)
		}
	default:
		kind, many, ok := ggufKind(v)
		if !ok {
			e.fail(ErrUnsupported, "a value of type %T", v)
			return
		}
		if many >= 0 {
			e.number(uint32(ggufArray), kind, uint64(many), v)
			return
		}
		e.number(kind, v)
	}
}

// ggufKind is the value type of a number, or of a slice of them, of which many says how many there are.
func ggufKind(v any) (kind uint32, many int, ok bool) {
	switch v := v.(type) {
	case uint8:
		return 0, -1, true
	case []uint8:
		return 0, len(v), true
	case int8:
		return 1, -1, true
	case []int8:
		return 1, len(v), true
	case uint16:
		return 2, -1, true
	case []uint16:
		return 2, len(v), true
	case int16:
		return 3, -1, true
	case []int16:
		return 3, len(v), true
	case uint32:
		return 4, -1, true
	case []uint32:
		return 4, len(v), true
	case int32:
		return 5, -1, true
	case []int32:
		return 5, len(v), true
	case float32:
		return 6, -1, true
	case []float32:
		return 6, len(v), true
	case bool:
		return ggufBool, -1, true
	case []bool:
		return ggufBool, len(v), true
	case uint64:
		return 10, -1, true
	case []uint64:
		return 10, len(v), true
	case int64:
		return 11, -1, true
	case []int64:
		return 11, len(v), true
	case float64:
		return 12, -1, true
	case []float64:
		return 12, len(v), true
	}
	return 0, 0, false
}
