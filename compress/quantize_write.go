package compress

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/winnow-llm/winnow/quant"
)

// ggufKinds are the types of tensors that files are written with, by name of format.
var ggufKinds = map[string]uint32{
	"F32": 0, "F16": 1, "BF16": 30, "I32": 26, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8,
	"Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20, "IQ4_XS": 23, "MXFP4": 39,
}

// outKey is a key of a file, with a value as store.Meta has it.
type outKey struct {
	name  string
	value any
}

// outTensor is a tensor of a file that is being written.
type outTensor struct {
	name   string
	format *quant.Format
	shape  []int                   // slowest first
	write  func(w io.Writer) error // exactly size bytes
}

func (t *outTensor) size() int64 {
	blocks := 1
	for _, d := range t.shape {
		blocks *= d
	}
	return int64(blocks) / int64(t.format.Block) * int64(t.format.Bytes)
}

// ggufAlign is what the tensors of written files are aligned to, which files that say nothing are.
const ggufAlign = 32

// writeGGUF writes a GGUF of version 3, which store/gguf.go describes.
func writeGGUF(w io.Writer, keys []outKey, tensors []outTensor) error {
	g := &ggufWriter{w: bufio.NewWriterSize(w, 1<<20)}
	g.put([]byte("GGUF"), uint32(3), uint64(len(tensors)), uint64(len(keys)))
	for _, k := range keys {
		g.text(k.name)
		g.value(k.name, k.value)
	}
	at := int64(0)
	for i := range tensors {
		t := &tensors[i]
		g.text(t.name)
		g.put(uint32(len(t.shape)))
		for d := len(t.shape) - 1; d >= 0; d-- {
			g.put(uint64(t.shape[d]))
		}
		g.put(ggufKinds[t.format.Name], uint64(at))
		at += (t.size() + ggufAlign - 1) / ggufAlign * ggufAlign
	}
	for i := range tensors {
		g.pad()
		if g.err != nil {
			return g.err
		}
		from := g.n
		if err := tensors[i].write(g); err != nil {
			return err
		}
		if g.err == nil && g.n-from != tensors[i].size() {
			panic(fmt.Sprintf("winnow: bug: compress: %s has %d bytes, %d are written", tensors[i].name, tensors[i].size(), g.n-from))
		}
	}
	g.pad()
	if g.err != nil {
		return g.err
	}
	return g.w.Flush()
}

// ggufWriter counts what it writes; the first failure sticks.
type ggufWriter struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (g *ggufWriter) Write(p []byte) (int, error) {
	if g.err == nil {
		var n int
		n, g.err = g.w.Write(p)
		g.n += int64(n)
	}
	return len(p), g.err
}

// put writes numbers of fixed size and slices of them.
func (g *ggufWriter) put(values ...any) {
	for _, v := range values {
		if err := binary.Write(g, binary.LittleEndian, v); err != nil && g.err == nil {
			g.err = err
		}
	}
}

func (g *ggufWriter) text(s string) {
	g.put(uint64(len(s)))
	_, _ = io.WriteString(g, s) // a failure sticks
}

func (g *ggufWriter) pad() {
	for g.n%ggufAlign != 0 {
		g.put(uint8(0))
	}
}

func (g *ggufWriter) value(key string, v any) {
	switch v := v.(type) {
	case string:
		g.put(uint32(8))
		g.text(v)
	case []string:
		g.put(uint32(9), uint32(8), uint64(len(v)))
		for _, s := range v {
			g.text(s)
		}
	default:
		kind, n := ggufValue(v)
		switch {
		case kind < 0:
			g.err = fmt.Errorf("write key %q: no type for %T", key, v)
		case n >= 0:
			g.put(uint32(9), uint32(kind), uint64(n), v)
		default:
			g.put(uint32(kind), v)
		}
	}
}

// ggufValue is the type of a number, or of the n numbers of a slice; n is -1 for one number, kind -1 for what is neither.
func ggufValue(v any) (kind, n int) {
	kinds := []func(any) int{
		length[uint8], length[int8], length[uint16], length[int16], length[uint32], length[int32], length[float32], length[bool],
		8: nil, 9: nil, 10: length[uint64], 11: length[int64], 12: length[float64],
	}
	for kind, of := range kinds {
		if of != nil && of(v) >= -1 {
			return kind, of(v)
		}
	}
	return -1, 0
}

// length is how many T a slice has, -1 for a T, and -2 for anything else.
func length[T any](v any) int {
	switch v := v.(type) {
	case T:
		return -1
	case []T:
		return len(v)
	}
	return -2
}
