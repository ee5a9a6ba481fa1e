package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/quant"
)

// pieces hands out b in pieces of n bytes.
func pieces(b []byte, n int) iter.Seq[[]byte] { return slices.Chunk(b, n) }

// again is a checkpoint's file i to be written unchanged.
func again(c *Checkpoint, i int) (out []NewTensor) {
	for _, name := range c.Parts[i].Names {
		t := c.Tensors[name]
		out = append(out, NewTensor{name, t.Format, t.Shape, pieces(t.Data, 7)})
	}
	return out
}

// same compares keys and tensors, order included.
func same(t *testing.T, got, want *Checkpoint) {
	t.Helper()
	if !reflect.DeepEqual(got.Meta, want.Meta) || !slices.Equal(got.Keys, want.Keys) {
		t.Errorf("keys %v %v, want %v %v", got.Keys, got.Meta, want.Keys, want.Meta)
	}
	for i, p := range want.Parts {
		if !slices.Equal(got.Parts[i].Names, p.Names) || !reflect.DeepEqual(got.Parts[i].Notes, p.Notes) {
			t.Errorf("tensors %v %v, want %v %v", got.Parts[i].Names, got.Parts[i].Notes, p.Names, p.Notes)
		}
	}
	for name, w := range want.Tensors {
		g := got.Tensors[name]
		if g.Format != w.Format || !slices.Equal(g.Shape, w.Shape) || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("%s is %s %v, want %s %v, or has other bytes", name, g.Format, g.Shape, w.Format, w.Shape)
		}
	}
}

// wholeFiles are files: one with a value of every type, the embedded model, and those beside the repository.
func wholeFiles(t *testing.T) map[string][]byte {
	out := map[string][]byte{"good": good().bytes()}
	paths := []string{"../model/demo/demo.gguf"}
	for _, pattern := range []string{"../../shared/models/tiny-gguf/*/*.gguf", "../../shared/models/demo-moe/*.gguf"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(more) == 0 {
			t.Logf("%s: not there, skipped", pattern)
		}
		paths = append(paths, more...)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		out[p] = b
	}
	return out
}

// TestWriteGGUF writes files as they were read: keys, tensors and their order stay, and so does every byte, but for the version, and the
// padding of a last tensor, which some writers leave away.
func TestWriteGGUF(t *testing.T) {
	for name, raw := range wholeFiles(t) {
		c, err := OpenBytes(name, raw)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.refused) > 0 {
			t.Logf("%s: skipped, it has formats that are not read", name)
			continue
		}
		path := filepath.Join(t.TempDir(), "again.gguf")
		told := Progress{}
		err = WriteGGUF(t.Context(), path, NewGGUF{Meta: c.Meta, Keys: c.Keys, Tensors: again(c, 0)}, func(p Progress) { told = p })
		if err != nil {
			t.Fatal(err)
		}
		if told.Completed != c.Size() || told.Total != c.Size() || told.Status != "writing again.gguf" {
			t.Errorf("%s: told %+v", name, told)
		}
		got, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, c)
		if err := got.Close(); err != nil {
			t.Error(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := append(slices.Clone(raw), make([]byte, -len(raw)&31)...); name != "good" && !bytes.Equal(b, want) {
			t.Errorf("%s: the whole files differ: %d bytes, were %d", name, len(b), len(raw))
		}
	}
}

// TestWriteSafetensors writes files as they were read.
func TestWriteSafetensors(t *testing.T) {
	dirs, err := filepath.Glob("../model/testdata/*/config.json")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, d := range dirs {
		c, err := Open(filepath.Dir(d))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		root := dir(t, map[string]string{"config.json": "{}"})
		path := filepath.Join(root, hfWeights)
		if err := WriteSafetensors(t.Context(), path, NewSafetensors{c.Parts[0].Notes, again(c, 0)}, nil); err != nil {
			t.Fatal(err)
		}
		got, err := Open(root)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, c)
		old, err := os.ReadFile(c.Parts[0].File)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, old) {
			t.Errorf("%s: the whole files differ, %d bytes and %d: %v", d, len(b), len(old), err)
		}
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestWriteRefusals gives writers what no file can hold; nothing is left.
func TestWriteRefusals(t *testing.T) {
	one := func(name string, shape ...int) NewTensor {
		return NewTensor{name, quant.Q8_0, shape, pieces(make([]byte, 34), 34)}
	}
	for name, c := range map[string]struct {
		meta Meta
		all  []NewTensor
		want error
		says string
	}{
		"alignment":    {Meta{"general.alignment": uint32(9)}, nil, ErrFormat, "9 is not a power of two"},
		"value":        {Meta{"k": 3}, nil, ErrUnsupported, `key "k": a value of type int`},
		"array":        {Meta{"k": [][]int32{}}, nil, ErrUnsupported, "[][]int32"},
		"key":          {Meta{"": uint8(3)}, nil, ErrFormat, "name of 0 bytes"},
		"long key":     {Meta{strings.Repeat("k", ggufMaxKey+1): uint8(3)}, nil, ErrFormat, "name of 65536 bytes"},
		"twice":        {nil, []NewTensor{one("a", 32), one("a", 32)}, ErrFormat, "appears twice"},
		"name":         {nil, []NewTensor{one("", 32)}, ErrFormat, "name of 0 bytes"},
		"block":        {nil, []NewTensor{one("a", 33)}, ErrFormat, "no whole number of Q8_0 blocks"},
		"dimensions":   {nil, []NewTensor{one("a", 1, 1, 1, 1, 32)}, ErrFormat, "1 to 4 dimensions"},
		"empty":        {nil, []NewTensor{one("a", 0, 32)}, ErrFormat, "from 1 on"},
		"negative":     {nil, []NewTensor{one("a", -1, 32)}, ErrFormat, "from 1 on"},
		"huge":         {nil, []NewTensor{one("a", 1<<40, 1<<40)}, ErrFormat, "too large"},
		"few bytes":    {nil, []NewTensor{one("a", 64)}, ErrFormat, "34 bytes, should be 68"},
		"many bytes":   {nil, []NewTensor{{"a", quant.F32, []int{2}, pieces(make([]byte, 12), 4)}}, ErrFormat, "should be 8"},
		"unknown type": {nil, []NewTensor{{"a", &quant.Format{Name: "X9", Block: 1, Bytes: 1}, []int{2}, nil}}, ErrUnsupported, "GGUF has no type X9"},
	} {
		root := t.TempDir()
		err := WriteGGUF(t.Context(), filepath.Join(root, "x.gguf"), NewGGUF{Meta: c.meta, Tensors: c.all}, nil)
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) || !strings.Contains(fmt.Sprint(err), "x.gguf") {
			t.Errorf("%s: %v", name, err)
		}
		if left := names(t, root); len(left) > 0 {
			t.Errorf("%s: %v is left", name, left)
		}
	}
	root := t.TempDir()
	for _, c := range []struct {
		t    NewTensor
		want error
		says string
	}{
		{one("a", 32), ErrUnsupported, "no dtype Q8_0"},
		{NewTensor{"__metadata__", quant.F32, []int{1}, nil}, ErrFormat, "taken"},
		{NewTensor{"a", quant.F32, []int{1 << 40, 1 << 40}, nil}, ErrFormat, "too large"},
	} {
		err := WriteSafetensors(t.Context(), filepath.Join(root, "x.safetensors"), NewSafetensors{Tensors: []NewTensor{c.t}}, nil)
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) || len(names(t, root)) > 0 {
			t.Errorf("%s: %v, left %v", c.t.Name, err, names(t, root))
		}
	}
}

// TestWriteStops cancels a file under way, and finds one in the way.
func TestWriteStops(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "x.gguf")
	ctx, cancel := context.WithCancel(t.Context())
	long := NewTensor{"a", quant.F32, []int{100}, func(yield func([]byte) bool) {
		for i := range 100 {
			if i == 50 {
				cancel()
			}
			if !yield(make([]byte, 4)) {
				return
			}
		}
	}}
	if err := WriteGGUF(ctx, path, NewGGUF{Tensors: []NewTensor{long}}, nil); !errors.Is(err, context.Canceled) || len(names(t, root)) > 0 {
		t.Errorf("%v, left %v", err, names(t, root))
	}
	put(t, path, "mine")
	if err := WriteGGUF(t.Context(), path, NewGGUF{}, nil); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
	if err := WriteGGUF(t.Context(), path, NewGGUF{Replace: true}, nil); err != nil {
		t.Error(err)
	}
	if c, err := Open(path); err != nil || c.Close() != nil || len(names(t, root)) != 1 {
		t.Errorf("not replaced: %v, %v", err, names(t, root))
	}
}

// TestWriteOnAFullDisk runs out of space at every page in turn; nothing is left behind.
func TestWriteOnAFullDisk(t *testing.T) {
	const page, pages = 4096, 16
	root := smallDisk(t, pages*page)
	filler, path, failed := filepath.Join(root, "filler"), filepath.Join(root, "x.gguf"), 0
	for free := range pages {
		put(t, filler, strings.Repeat("x", (pages-free)*page))
		w := NewTensor{"a", quant.I32, []int{6 * page / 4}, slices.Chunk(make([]byte, 6*page), 1000)}
		err := WriteGGUF(t.Context(), path, NewGGUF{Tensors: []NewTensor{w}}, nil)
		if err == nil {
			break
		}
		failed++
		if left := names(t, root); !strings.Contains(err.Error(), "no space left on device") || len(left) != 1 {
			t.Errorf("%d pages free: %v, left %v", free, err, left)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	if failed < 6 || failed == pages {
		t.Errorf("failed %d times of %d", failed, pages)
	}
}

// FuzzWriteGGUF writes whatever can be read, and reads it again as it was.
func FuzzWriteGGUF(f *testing.F) {
	f.Add(good().bytes())
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := OpenBytes("mem", raw)
		if err != nil || len(c.refused) > 0 {
			return
		}
		path := filepath.Join(root, "x.gguf")
		if err := WriteGGUF(t.Context(), path, NewGGUF{Meta: c.Meta, Keys: c.Keys, Tensors: again(c, 0)}, nil); err != nil {
			t.Fatal(err)
		}
		got, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Keys, c.Keys) || !slices.Equal(got.Parts[0].Names, c.Parts[0].Names) {
			t.Errorf("keys %v, tensors %v, want %v, %v", got.Keys, got.Parts[0].Names, c.Keys, c.Parts[0].Names)
		}
		for name, w := range c.Tensors {
			if g := got.Tensors[name]; g.Format != w.Format || !slices.Equal(g.Shape, w.Shape) || !bytes.Equal(g.Data, w.Data) {
				t.Errorf("%q differs", name)
			}
		}
		if err := errors.Join(got.Close(), os.Remove(path)); err != nil {
			t.Error(err)
		}
	})
}
