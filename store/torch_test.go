package store

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/quant"
)

// pkl is a pickle of protocol 2, written instruction by instruction as Python does.
type pkl struct{ bytes.Buffer }

func newPkl() *pkl { p := &pkl{}; p.WriteString("\x80\x02"); return p }

func (p *pkl) op(s string) *pkl { p.WriteString(s); return p }

func (p *pkl) text(s string) *pkl {
	p.WriteByte('X')
	p.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
	p.WriteString(s)
	return p
}

// number is a number as Python writes it: as short as possible.
func (p *pkl) number(n int) *pkl {
	switch {
	case n >= 0 && n < 256:
		p.Write([]byte{'K', byte(n)})
	case n >= 0 && n < 65536:
		p.Write([]byte{'M', byte(n), byte(n >> 8)})
	case int64(n) == int64(int32(n)):
		p.WriteByte('J')
		p.Write(binary.LittleEndian.AppendUint32(nil, uint32(int32(n))))
	default:
		p.Write([]byte{0x8a, 8})
		p.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	}
	return p
}

func (p *pkl) numbers(n ...int) *pkl {
	p.op("(")
	for _, v := range n {
		p.number(v)
	}
	return p.op("t")
}

// torchValue is a tensor as torch.save would describe it.
type torchValue struct {
	kind           string // FloatStorage
	key            string
	values, first  int
	shape, strides []int
}

func (p *pkl) tensor(v torchValue) *pkl {
	p.op("ctorch._utils\n_rebuild_tensor_v2\n((")
	p.text("storage").op("ctorch\n" + v.kind + "\n").text(v.key).text("cpu").number(v.values).op("tQ")
	return p.number(v.first).numbers(v.shape...).numbers(v.strides...).op("\x89ccollections\nOrderedDict\n)RtR")
}

// torchZip is a file of torch.save around a pickle and storages.
func torchZip(t testing.TB, pickle []byte, storages map[string][]byte) []byte {
	t.Helper()
	files := map[string][]byte{"archive/data.pkl": pickle, "archive/version": []byte("3\n"), "archive/byteorder": []byte("little")}
	for key, raw := range storages {
		files["archive/data/"+key] = raw
	}
	return zipOf(t, files, zip.Store)
}

func zipOf(t testing.TB, files map[string][]byte, method uint16) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for n := range files {
			if !yield(n) {
				return
			}
		}
	}) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err == nil {
			_, err = w.Write(files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func floats(v ...float32) []byte {
	var out []byte
	for _, x := range v {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	return out
}

// goodTorch holds a whole tensor, two views of one storage, an empty and a single value, in three formats.
func goodTorch(t testing.TB) []byte {
	p := newPkl().op("}q\x00(")
	p.text("a.weight").tensor(torchValue{"FloatStorage", "0", 6, 0, []int{2, 3}, []int{3, 1}})
	p.text("half").tensor(torchValue{"HalfStorage", "1", 4, 1, []int{1, 2}, []int{77, 1}})
	p.text("half2").tensor(torchValue{"HalfStorage", "1", 4, 3, nil, nil})
	p.text("none").tensor(torchValue{"BFloat16Storage", "2", 0, 0, []int{0, 5}, []int{5, 1}})
	p.op("u.")
	return torchZip(t, p.Bytes(), map[string][]byte{"0": floats(1, 2, 3, 4, 5, 6), "1": {0, 1, 2, 3, 4, 5, 6, 7}, "2": {}})
}

func TestTorch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.pth")
	if err := os.WriteFile(path, goodTorch(t), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := OpenTorch(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.Names(); !slices.Equal(got, []string{"a.weight", "half", "half2", "none"}) || c.Kind != Torch {
		t.Errorf("%s with %v", c.Kind, got)
	}
	for name, want := range map[string]Tensor{
		"a.weight": {"", quant.F32, []int{2, 3}, floats(1, 2, 3, 4, 5, 6)},
		"half":     {"", quant.F16, []int{1, 2}, []byte{2, 3, 4, 5}},
		"half2":    {"", quant.F16, []int{}, []byte{6, 7}},
		"none":     {"", quant.BF16, []int{0, 5}, []byte{}},
	} {
		got, err := c.Tensor(name)
		if err != nil || got.Format != want.Format || !slices.Equal(got.Shape, want.Shape) || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	look(t, c)
}

// An OrderedDict is a dict, and items may come one by one.
func TestTorchOrderedDict(t *testing.T) {
	p := newPkl().op("ccollections\nOrderedDict\n)Rq\x01").text("w").tensor(torchValue{"BFloat16Storage", "0", 2, 0, []int{2}, []int{1}}).op("s.")
	c, err := readTorch("mem", torchZip(t, p.Bytes(), map[string][]byte{"0": {1, 2, 3, 4}}))
	if err != nil || !bytes.Equal(c.Tensors["w"].Data, []byte{1, 2, 3, 4}) {
		t.Error(c, err)
	}
}

func TestTorchCut(t *testing.T) {
	whole := goodTorch(t)
	for n := range whole {
		if c, err := readTorch("mem", whole[:n:n]); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
			t.Fatalf("the first %d of %d bytes: %v, %v", n, len(whole), c, err)
		}
	}
}

func TestTorchHostile(t *testing.T) {
	storages := map[string][]byte{"0": floats(1, 2, 3, 4, 5, 6)}
	one := func(v torchValue) []byte { return newPkl().op("}").text("w").tensor(v).op("s.").Bytes() }
	good := torchValue{"FloatStorage", "0", 6, 0, []int{2, 3}, []int{3, 1}}
	with := func(change func(v *torchValue)) []byte { v := good; change(&v); return one(v) }
	for _, c := range []struct {
		name   string
		pickle []byte
		text   string
		want   error
	}{
		{"os.system", newPkl().op("cos\nsystem\n").text("true").op("\x85R.").Bytes(), `a call of "os system"`, ErrUnsupported},
		{"a class", newPkl().op("cos\nsystem\n)\x81.").Bytes(), "instruction NEWOBJ", ErrUnsupported},
		{"build", newPkl().op("}}b.").Bytes(), "instruction BUILD", ErrUnsupported},
		{"protocol 4", []byte("\x80\x04}."), "protocol 4", ErrUnsupported},
		{"no instruction", newPkl().op("\xff").Bytes(), "0xff is no instruction", ErrFormat},
		{"a list", newPkl().op("].").Bytes(), "instruction EMPTY_LIST", ErrUnsupported},
		{"a number", newPkl().number(70000).op(".").Bytes(), "no dict of tensors", ErrUnsupported},
		{"nested", newPkl().op("}").text("model").op("}s.").Bytes(), `tensor "model": is no tensor`, ErrUnsupported},
		{"key of a number", newPkl().op("}").number(1).op("Ns.").Bytes(), "no strings", ErrUnsupported},
		{"nothing to stop with", newPkl().op(".").Bytes(), "needs 1 values", ErrFormat},
		{"below a mark", newPkl().op("N(0\x85.").Bytes(), "instruction POP", ErrUnsupported},
		{"tuple from below a mark", newPkl().op("N(\x85.").Bytes(), "needs 1 values where 0", ErrFormat},
		{"no mark", newPkl().op("Nt.").Bytes(), "needs a mark", ErrFormat},
		{"values left", newPkl().op("NN.").Bytes(), "1 values and 0 bytes are left", ErrFormat},
		{"bytes left", newPkl().op("N.N").Bytes(), "0 values and 1 bytes are left", ErrFormat},
		{"memo", newPkl().op("h\x05.").Bytes(), "value 5 was never put aside", ErrFormat},
		{"items of nothing", newPkl().op("NN\x86NNs.").Bytes(), "items of what is no dict", ErrFormat},
		{"half an item", newPkl().op("}(Nu.").Bytes(), "1 keys and values", ErrFormat},
		{"long string", newPkl().op("X\xff\xff\xff\xff").Bytes(), "a string of 4294967295 bytes where 0", ErrFormat},
		{"long number", newPkl().op("\x8a\x09").Bytes(), "a number of 9 bytes", ErrUnsupported},
		{"not UTF-8", newPkl().text("\xff").op(".").Bytes(), "no UTF-8", ErrFormat},
		{"deep", newPkl().op(strings.Repeat("N", 70000)).Bytes(), "more than 65536 values", ErrUnsupported},
		{"marks", newPkl().op(strings.Repeat("(", 70000)).Bytes(), "more than 65536 marks", ErrUnsupported},
		{"call of a value", newPkl().op("N)R.").Bytes(), "no function", ErrFormat},
		{"persistent", newPkl().op("NQ.").Bytes(), "no storage", ErrUnsupported},
		{"dict of arguments", newPkl().op("ccollections\nOrderedDict\nN\x85R.").Bytes(), "OrderedDict of 1", ErrUnsupported},
		{"doubles", with(func(v *torchValue) { v.kind = "DoubleStorage" }), `a storage of "torch DoubleStorage"`, ErrUnsupported},
		{"no storage", with(func(v *torchValue) { v.key = "7" }), `entry "archive/data/7": is not there`, ErrFormat},
		{"parent", with(func(v *torchValue) { v.key = "../version" }), "is not there", ErrFormat},
		{"storage too large", with(func(v *torchValue) { v.values = 7 }), "24 bytes, 7 values of F32", ErrFormat},
		{"storage negative", with(func(v *torchValue) { v.values = -1 }), "of another type", ErrFormat},
		{"shape too large", with(func(v *torchValue) { v.shape, v.strides = []int{7}, []int{1} }), "shape (7) in a storage of 6", ErrFormat},
		{"shape overflows", with(func(v *torchValue) { v.shape, v.strides = []int{1 << 62, 4}, []int{4, 1} }), "in a storage of 6", ErrFormat},
		{"shape negative", with(func(v *torchValue) { v.shape = []int{-2, 3} }), "shape (-2, 3)", ErrFormat},
		{"nothing, many times", with(func(v *torchValue) { v.shape, v.strides = []int{1 << 62, 0}, []int{1, 1} }), "in a storage of 6", ErrFormat},
		{"first", with(func(v *torchValue) { v.first = 1 }), "6 values from value 1 on", ErrFormat},
		{"first negative", with(func(v *torchValue) { v.first = -1 }), "6 values from value -1 on", ErrFormat},
		{"turned", with(func(v *torchValue) { v.strides = []int{1, 2} }), "strides (1, 2)", ErrUnsupported},
		{"strides of another shape", with(func(v *torchValue) { v.strides = []int{1} }), "without storage", ErrFormat},
		{"name", newPkl().op("}").text("a\n").tensor(good).op("s.").Bytes(), "not a printable name", ErrFormat},
		{"twice", newPkl().op("}(").text("a").tensor(good).text("a").tensor(good).op("u.").Bytes(), "appears twice", ErrFormat},
		{"storage twice", newPkl().op("}(").text("a").tensor(good).text("b").tensor(torchValue{"HalfStorage", "0", 12, 0, []int{12}, []int{1}}).op("u.").Bytes(), "in two ways", ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := readTorch("mem", torchZip(t, c.pickle, storages))
			var fe *FileError
			if !errors.Is(err, c.want) || !errors.As(err, &fe) || fe.File != "mem" || fe.Part == "" || !strings.Contains(err.Error(), c.text) {
				t.Error(err)
			}
		})
	}
}

func TestTorchHostileZip(t *testing.T) {
	pickle := newPkl().op("}.").Bytes()
	for _, c := range []struct {
		name   string
		files  map[string][]byte
		method uint16
		text   string
	}{
		{"no pickle", map[string][]byte{"a/version": nil}, zip.Store, "without data.pkl"},
		{"pickle in no folder", map[string][]byte{"data.pkl": pickle}, zip.Store, "without data.pkl"},
		{"two pickles", map[string][]byte{"a/data.pkl": pickle, "b/data.pkl": pickle}, zip.Store, "a second pickle"},
		{"compressed", map[string][]byte{"a/data.pkl": pickle}, zip.Deflate, "is compressed"},
		{"big-endian", map[string][]byte{"a/data.pkl": pickle, "a/byteorder": []byte("big")}, zip.Store, `byte order "big"`},
		{"long pickle", map[string][]byte{"a/data.pkl": make([]byte, torchMaxPickle+1)}, zip.Store, "4194305 bytes, at most 4194304"},
	} {
		_, err := readTorch("mem", zipOf(t, c.files, c.method))
		var fe *FileError
		if !errors.As(err, &fe) || !strings.Contains(fmt.Sprint(err), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A small file makes nothing large.
func TestTorchAllocation(t *testing.T) {
	v := torchValue{"FloatStorage", "0", 1 << 60, 0, []int{1 << 60}, []int{1}}
	b := torchZip(t, newPkl().op("}").text("w").tensor(v).op("s.").Bytes(), map[string][]byte{"0": floats(1)})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readTorch("mem", b)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; err == nil || n > 1<<20 {
		t.Errorf("%d bytes allocated for a file of %d: %v", n, len(b), err)
	}
}

func FuzzTorch(f *testing.F) {
	f.Add(goodTorch(f))
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 18)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := readTorch("fuzz", raw)
		if err == nil {
			look(t, c)
		} else if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
	})
}

// The zip's checksums keep a fuzzer from the pickle, which this one writes itself.
func FuzzPickle(f *testing.F) {
	f.Add(newPkl().op("}q\x00(").text("w").tensor(torchValue{"FloatStorage", "0", 2, 0, []int{2}, []int{1}}).op("u.").Bytes(), []byte("01234567"))
	f.Add(newPkl().op("ccollections\nOrderedDict\n)R.").Bytes(), []byte{})
	f.Fuzz(func(t *testing.T, pickle, storage []byte) {
		c, err := readTorch("fuzz", torchZip(t, pickle, map[string][]byte{"0": storage}))
		if err == nil {
			look(t, c)
		} else if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
	})
}
