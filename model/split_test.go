package model_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// A model split into files gives the very logits of the one file, from whichever part and from the folder.
func TestSplitGivesTheSameLogits(t *testing.T) {
	whole, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	ids := []int32{1, 20, 300, 7}
	want := logitsOf(t, whole, ids)
	dir := t.TempDir()
	parts := splitGGUF(t, whole, dir, 3)
	for _, path := range append(parts, dir) {
		c, err := store.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := logitsOf(t, c, ids); !slices.Equal(got, want) {
			t.Errorf("%s: the logits differ", filepath.Base(path))
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func logitsOf(t *testing.T, c *store.Checkpoint, ids []int32) []float32 {
	t.Helper()
	m, err := model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	return run(m, ids, 0)
}

// splitGGUF writes a checkpoint as count GGUF files with about as many tensors each, and gives their paths.
func splitGGUF(t *testing.T, c *store.Checkpoint, dir string, count int) (paths []string) {
	t.Helper()
	names := c.Names()
	for i := range count {
		meta := store.Meta{"split.no": uint16(i), "split.count": uint16(count), "split.tensors.count": int32(len(names))}
		if i == 0 {
			maps.Copy(meta, c.Meta)
		}
		var some []store.Tensor
		for _, name := range names[i*len(names)/count : (i+1)*len(names)/count] {
			w, err := c.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			some = append(some, w)
		}
		paths = append(paths, filepath.Join(dir, fmt.Sprintf("m-%05d-of-%05d.gguf", i+1, count)))
		if err := os.WriteFile(paths[i], ggufBytes(meta, some), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// ggufBytes is a GGUF file.
func ggufBytes(meta store.Meta, tensors []store.Tensor) []byte {
	b := append([]byte("GGUF"), 3, 0, 0, 0)
	put := func(v any) {
		if s, ok := v.(string); ok {
			b = append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
			return
		}
		var err error
		if b, err = binary.Append(b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	put([]uint64{uint64(len(tensors)), uint64(len(meta))})
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		put(key)
		switch v := meta[key].(type) {
		case []string:
			put([]uint32{9, 8})
			put(uint64(len(v)))
			for _, s := range v {
				put(s)
			}
		case []int32, []float32:
			put([]uint32{9, valueTypes[fmt.Sprintf("%T", v)[2:]]})
			put(uint64(binary.Size(v) / 4))
			put(v)
		default:
			put(valueTypes[fmt.Sprintf("%T", v)])
			put(v)
		}
	}
	kinds := map[string]uint32{"F32": 0, "F16": 1, "Q8_0": 8, "I32": 26, "BF16": 30}
	var data []byte
	for _, w := range tensors {
		shape := slices.Clone(w.Shape)
		slices.Reverse(shape)
		put(w.Name)
		put(uint32(len(shape)))
		for _, n := range shape {
			put(uint64(n))
		}
		put(kinds[w.Format.Name])
		put(uint64(len(data)))
		data = append(data, w.Data...)
		data = append(data, make([]byte, -len(data)&31)...)
	}
	return slices.Concat(b, make([]byte, -len(b)&31), data)
}

// valueTypes are GGUF's numbers for the types of values.
var valueTypes = map[string]uint32{
	"uint8": 0, "int8": 1, "uint16": 2, "int16": 3, "uint32": 4, "int32": 5, "float32": 6, "bool": 7, "string": 8, "uint64": 10, "int64": 11, "float64": 12,
}
