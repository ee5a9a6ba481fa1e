package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/quant"
)

// testGGUF is a file to be written, in which everything can be wrong.
type testGGUF struct {
	magic   string
	version uint32
	keys    []testKey
	tensors []testTensor
	counts  [2]uint64 // added to the true counts of tensors and keys
	weights int       // bytes of the data section
}

type testKey struct {
	name string
	kind uint32
	raw  []byte
}

type testTensor struct {
	name   string
	dims   []uint64 // fastest first
	kind   uint32
	offset uint64
}

// raw writes numbers little-endian, and strings behind their length.
func raw(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		if s, ok := v.(string); ok {
			binary.Write(&b, binary.LittleEndian, uint64(len(s)))
			b.WriteString(s)
			continue
		}
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func (g *testGGUF) bytes() []byte {
	var b bytes.Buffer
	b.WriteString(g.magic)
	b.Write(raw(g.version, uint64(len(g.tensors))+g.counts[0], uint64(len(g.keys))+g.counts[1]))
	for _, k := range g.keys {
		b.Write(raw(k.name, k.kind))
		b.Write(k.raw)
	}
	for _, t := range g.tensors {
		b.Write(raw(t.name, uint32(len(t.dims)), t.dims, t.kind, t.offset))
	}
	if g.weights > 0 {
		b.Write(make([]byte, -b.Len()&31))
		for i := range g.weights {
			b.WriteByte(byte(i))
		}
	}
	return b.Bytes()
}

// good is a small valid file with a value of every type.
func good() *testGGUF {
	return &testGGUF{magic: "GGUF", version: 3, weights: 96 + 24,
		keys: []testKey{
			{"general.architecture", ggufString, raw("llama")},
			{"general.alignment", 4, raw(uint32(32))},
			{"u8", 0, raw(uint8(8))}, {"i8", 1, raw(int8(-8))}, {"u16", 2, raw(uint16(16))}, {"i16", 3, raw(int16(-16))},
			{"u32", 4, raw(uint32(32))}, {"i32", 5, raw(int32(-32))}, {"f32", 6, raw(float32(0.5))}, {"yes", 7, raw(true)},
			{"u64", 10, raw(uint64(64))}, {"i64", 11, raw(int64(-64))}, {"f64", 12, raw(0.25)},
			{"tokens", ggufArray, raw(uint32(ggufString), uint64(3), "a", "", "bc")},
			{"scores", ggufArray, raw(uint32(6), uint64(2), float32(1), float32(-2))},
			{"types", ggufArray, raw(uint32(5), uint64(2), int32(1), int32(-3))},
			{"empty", ggufArray, raw(uint32(4), uint64(0))},
		},
		tensors: []testTensor{{"b", []uint64{32, 2}, 8, 0}, {"a", []uint64{3, 2}, 0, 96}},
	}
}

func TestGGUF(t *testing.T) {
	for _, version := range []uint32{2, 3} {
		g := good()
		g.version = version
		c, err := OpenBytes("mem", g.bytes())
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Names(); !slices.Equal(got, []string{"a", "b"}) || c.Size() != 68+24 || c.Kind != GGUF {
			t.Errorf("names %v, %d bytes, kind %s", got, c.Size(), c.Kind)
		}
		a, err := c.Tensor("a")
		if err != nil || a.Format != quant.F32 || !slices.Equal(a.Shape, []int{2, 3}) || len(a.Data) != 24 || a.Data[0] != 96 {
			t.Errorf("a: %+v, %v", a, err)
		}
		b, err := c.Tensor("b")
		if err != nil || b.Format != quant.Q8_0 || !slices.Equal(b.Shape, []int{2, 32}) || len(b.Data) != 68 || b.Data[0] != 0 {
			t.Errorf("b: %+v, %v", b, err)
		}
		if _, err := c.Tensor("c"); !errors.Is(err, ErrNoTensor) || !strings.Contains(err.Error(), `mem: tensor "c"`) {
			t.Errorf("c: %v", err)
		}
		if err := c.Close(); err != nil || c.Has("a") {
			t.Errorf("close: %v", err)
		}
	}
}

func TestMeta(t *testing.T) {
	c, err := OpenBytes("mem", good().bytes())
	if err != nil {
		t.Fatal(err)
	}
	m := c.Meta
	check := func(got any, err error, want any) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%#v, %v; want %#v", got, err, want)
		}
	}
	for key, want := range map[string]int64{"u8": 8, "i8": -8, "u16": 16, "i16": -16, "u32": 32, "i32": -32, "u64": 64, "i64": -64, "none": 5} {
		got, err := m.Int(key, 5)
		check(got, err, want)
	}
	f, err := m.Float("f32", 1)
	check(f, err, 0.5)
	f, err = m.Float("f64", 1)
	check(f, err, 0.25)
	f, err = m.Float("none", 1)
	check(f, err, 1.0)
	b, err := m.Bool("yes")
	check(b, err, true)
	s, err := m.String("general.architecture", "")
	check(s, err, "llama")
	s, err = m.String("none", "x")
	check(s, err, "x")
	ss, err := m.Strings("tokens")
	check(ss, err, []string{"a", "", "bc"})
	fs, err := m.Floats("scores")
	check(fs, err, []float32{1, -2})
	is, err := m.Ints("types")
	check(is, err, []int64{1, -3})
	is, err = m.Ints("u32")
	check(is, err, []int64{32})
	is, err = m.Ints("empty")
	check(is, err, []int64{})
	is, err = m.Ints("none")
	check(is, err, []int64(nil))
}

func TestMetaWrongType(t *testing.T) {
	m := Meta{"s": "x", "f": float32(1), "big": uint64(math.MaxUint64), "bigs": []uint64{1, math.MaxUint64}}
	_, e1 := m.Int("s", 1)
	_, e2 := m.Int("f", 1)
	_, e3 := m.Int("big", 1)
	_, e4 := m.Float("s", 1)
	_, e5 := m.Float("big", 1)
	_, e6 := m.String("f", "")
	_, e7 := m.Bool("s")
	_, e8 := m.Strings("s")
	_, e9 := m.Floats("s")
	_, e10 := m.Ints("bigs")
	_, e11 := m.Ints("s")
	for i, err := range []error{e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, e11} {
		var ke *KeyError
		if !errors.Is(err, ErrFormat) || !errors.As(err, &ke) || !strings.Contains(err.Error(), ke.Key) {
			t.Errorf("e%d: %v", i+1, err)
		}
	}
	if got := e1.Error(); got != `key "s": should hold an integer, has string: damaged model file` {
		t.Error(got)
	}
}

// TestGGUFCut opens every beginning of a valid file: none is valid.
func TestGGUFCut(t *testing.T) {
	whole := good().bytes()
	for n := range whole {
		if _, err := OpenBytes("mem", whole[:n:n]); !errors.Is(err, ErrFormat) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(whole), err)
		}
	}
}

// TestGGUFFlip opens a valid file with each byte replaced in turn: an error or a sound checkpoint, never a panic.
func TestGGUFFlip(t *testing.T) {
	whole := good().bytes()
	for i := range whole {
		for _, v := range []byte{0, 1, 9, 0x7f, 0x80, 0xff, whole[i] + 1, whole[i] ^ 0x40} {
			b := bytes.Clone(whole)
			b[i] = v
			if c, err := OpenBytes("mem", b); err == nil {
				look(t, c)
			}
		}
	}
}

func TestGGUFHostile(t *testing.T) {
	key := func(name string, kind uint32, values ...any) func(*testGGUF) {
		return func(g *testGGUF) { g.keys = append(g.keys, testKey{name, kind, raw(values...)}) }
	}
	align := func(kind uint32, v any) func(*testGGUF) {
		return func(g *testGGUF) { g.keys[1] = testKey{"general.alignment", kind, raw(v)} }
	}
	tensor := func(name string, kind uint32, offset uint64, dims ...uint64) func(*testGGUF) {
		return func(g *testGGUF) { g.tensors = append(g.tensors, testTensor{name, dims, kind, offset}) }
	}
	header := func(magic string, version uint32) func(*testGGUF) {
		return func(g *testGGUF) { g.magic, g.version = magic, version }
	}
	counts := func(tensors, keys uint64) func(*testGGUF) {
		return func(g *testGGUF) { g.counts = [2]uint64{tensors, keys} }
	}
	deep := []any{}
	for range 10000 {
		deep = append(deep, uint32(ggufArray), uint64(1))
	}
	for _, c := range []struct {
		name   string
		change func(*testGGUF)
		want   error
		text   string
	}{
		{"magic", header("GGML", 3), ErrFormat, `"GGML"`},
		{"swapped magic", header("FUGG", 3), ErrUnsupported, "big-endian"},
		{"swapped version", header("GGUF", 3<<24), ErrUnsupported, "big-endian"},
		{"version 0", header("GGUF", 0), ErrFormat, "version 0"},
		{"version 1", header("GGUF", 1), ErrUnsupported, "version 1"},
		{"version 4", header("GGUF", 4), ErrUnsupported, "version 4"},
		{"2^63 keys", counts(0, 1<<63), ErrFormat, "do not fit"},
		{"2^63 tensors", counts(1<<63, 0), ErrFormat, "do not fit"},
		{"-1 keys", counts(0, math.MaxUint64), ErrFormat, ""},
		{"a key too many", counts(0, 1), ErrFormat, ""},
		{"a tensor too many", counts(1, 0), ErrFormat, ""},
		{"unknown value type", key("x", 13), ErrFormat, `key "x"`},
		{"string past the end", key("x", ggufString, uint64(1<<40)), ErrFormat, `key "x"`},
		{"string of -1", key("x", ggufString, uint64(math.MaxUint64)), ErrFormat, `key "x"`},
		{"empty key", key("", 0, uint8(1)), ErrFormat, "0 bytes"},
		{"long key", key(strings.Repeat("k", 1<<16), 0, uint8(1)), ErrFormat, "65536 bytes"},
		{"key is not UTF-8", key("a\xff", 0, uint8(1)), ErrFormat, `"a\xff"`},
		{"key with NUL", key("a\x00b", 0, uint8(1)), ErrFormat, `"a\x00b"`},
		{"key twice", key("u8", 0, uint8(1)), ErrFormat, `key "u8" at byte`},
		{"bool of 2", key("x", 7, uint8(2)), ErrFormat, "bool"},
		{"array of bools of 2", key("x", ggufArray, uint32(7), uint64(2), uint8(1), uint8(2)), ErrFormat, "bool"},
		{"array too long", key("x", ggufArray, uint32(4), uint64(1<<62)), ErrFormat, "4611686018427387904 values"},
		{"array of strings too long", key("x", ggufArray, uint32(ggufString), uint64(1<<61)), ErrFormat, "strings"},
		{"array of unknown type", key("x", ggufArray, uint32(99), uint64(0)), ErrFormat, "type 99"},
		{"array of a long string", key("x", ggufArray, uint32(ggufString), uint64(1), uint64(1<<50)), ErrFormat, `key "x"`},
		{"array of arrays", key("x", ggufArray, deep...), ErrUnsupported, "array of arrays"},
		{"alignment 0", align(4, uint32(0)), ErrFormat, "power of two"},
		{"alignment 3", align(4, uint32(3)), ErrFormat, "power of two"},
		{"alignment 2^31", align(4, uint32(1<<31)), ErrFormat, "offset"},
		{"alignment as int32", align(5, int32(32)), ErrFormat, "int32"},
		{"alignment as string", align(ggufString, "32"), ErrFormat, "string"},
		{"split without a number", key("split.count", 2, uint16(3)), ErrFormat, `key "split.no": missing, the file is one of 3`},
		{"split of a string", key("split.count", ggufString, "3"), ErrFormat, "split.count"},
		{"tensor twice", tensor("a", 0, 128, 1), ErrFormat, `tensor "a" at byte`},
		{"tensor without a name", tensor("", 0, 128, 1), ErrFormat, "0 bytes"},
		{"tensor with a long name", tensor(strings.Repeat("n", 300), 0, 128, 1), ErrFormat, "300 bytes"},
		{"no dims", tensor("x", 0, 128), ErrFormat, "0 dimensions"},
		{"9 dims", tensor("x", 0, 128, 1, 1, 1, 1, 1, 1, 1, 1, 1), ErrFormat, "9 dimensions"},
		{"dim 0", tensor("x", 0, 128, 4, 0), ErrFormat, "dimension 1 of 0"},
		{"dim -1", tensor("x", 0, 128, math.MaxUint64), ErrFormat, "dimension 0"},
		{"dims overflow", tensor("x", 0, 128, 1<<32, 1<<32), ErrFormat, "values"},
		{"bytes overflow", tensor("x", 0, 128, 1<<62), ErrFormat, `tensor "x"`},
		{"half a block", tensor("x", 12, 128, 255), ErrFormat, "rows of 255 values"},
		{"misaligned", tensor("x", 0, 100, 1), ErrFormat, "offset 100"},
		{"past the end", tensor("x", 0, 128, 1), ErrFormat, "reach past the 120 bytes"},
		{"negative offset", tensor("x", 0, math.MaxUint64-31, 32), ErrFormat, "reach past"},
		{"overlap", tensor("x", 0, 64, 1), ErrFormat, `inside tensor "b"`},
		{"the same place", tensor("x", 0, 96, 1), ErrFormat, `inside tensor`},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := good()
			c.change(g)
			got, err := OpenBytes("mem", g.bytes())
			var fe *FileError
			if !errors.Is(err, c.want) || !errors.As(err, &fe) || !strings.Contains(err.Error(), c.text) || got != nil {
				t.Errorf("%v", err)
			}
			if len(fmt.Sprint(err)) > 400 {
				t.Errorf("%d bytes of error text", len(err.Error()))
			}
		})
	}
}

// TestGGUFTypes asks for tensors in formats that are not read: the file opens, the tensor names its type.
func TestGGUFTypes(t *testing.T) {
	for kind, text := range map[uint32]string{
		17: "quantization IQ2_XS", 202: "tensor type 202 of ik_llama.cpp", 137: "tensor type 137 of ik_llama.cpp",
		4: "tensor type 4, which GGUF has withdrawn", 43: "unknown tensor type 43", math.MaxUint32: "unknown tensor type 4294967295",
	} {
		g := good()
		g.weights = 500
		g.tensors = append(g.tensors, testTensor{"x", []uint64{256}, kind, 128})
		c, err := OpenBytes("mem", g.bytes())
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Tensor("x")
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), `mem: tensor "x": `+text) || !c.Has("x") {
			t.Errorf("type %d: %v", kind, err)
		}
		if !slices.Equal(c.Names(), []string{"a", "b", "x"}) {
			t.Errorf("names %v", c.Names())
		}
	}
}

// TestGGUFTypeSizes holds the table of types against the formats that read them.
func TestGGUFTypeSizes(t *testing.T) {
	for id, g := range ggufTypes {
		if f := quant.ByName(g.name); f != nil && (uint64(f.Block) != g.block || uint64(f.Bytes) != g.bytes) {
			t.Errorf("type %d %s: blocks of %d values and %d bytes, the format has %d and %d", id, g.name, g.block, g.bytes, f.Block, f.Bytes)
		}
	}
}

// TestGGUFNoWeights opens a file that ends before its data section would start, as vocabulary files do.
func TestGGUFNoWeights(t *testing.T) {
	g := good()
	g.tensors, g.weights = nil, 0
	if c, err := OpenBytes("mem", g.bytes()); err != nil || len(c.Names()) != 0 {
		t.Error(err)
	}
}

// TestGGUFAllocation opens files that claim much more than they hold.
func TestGGUFAllocation(t *testing.T) {
	g := good()
	g.keys = append(g.keys, testKey{"x", ggufArray, raw(uint32(ggufString), uint64(1<<40))})
	b := g.bytes()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := OpenBytes("mem", b)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; err == nil || n > 1<<20 {
		t.Errorf("%d bytes allocated for a file of %d: %v", n, len(b), err)
	}
}

func FuzzGGUF(f *testing.F) {
	f.Add([]byte("GGUF"))
	f.Add(good().bytes())
	old := good()
	old.version = 2
	old.tensors = append(old.tensors, testTensor{"x", []uint64{256}, 300, 128})
	f.Add(old.bytes())
	f.Add(splitFiles()[1].bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := OpenBytes("fuzz", raw)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		look(t, c)
	})
}

// look touches all that an opened file gives.
func look(t *testing.T, c *Checkpoint) {
	for _, name := range c.Names() {
		w, err := c.Tensor(name)
		if err != nil {
			if !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			continue
		}
		values := 1
		for _, d := range w.Shape {
			values *= d
		}
		if w.Format == nil || w.Name != name || values/w.Format.Block*w.Format.Bytes != len(w.Data) {
			t.Fatalf("%s: %s %v in %d bytes", name, w.Format, w.Shape, len(w.Data))
		}
		if n := len(w.Data); n > 0 {
			_ = w.Data[n-1]
		}
	}
	for key := range c.Meta {
		_, err := c.Meta.Int(key, 0)
		if _, err2 := c.Meta.Ints(key); err == nil && err2 != nil {
			t.Fatal(err2)
		}
	}
}
