package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// splitFiles is the file of good in three parts, as gguf-split writes them: metadata in the first, a tensor in each of the others.
func splitFiles() []*testGGUF {
	parts := []*testGGUF{good(), good(), good()}
	for i, p := range parts {
		if i > 0 {
			p.keys = nil
		}
		p.keys = append(p.keys,
			testKey{"split.no", 2, raw(uint16(i))}, testKey{"split.count", 2, raw(uint16(3))}, testKey{"split.tensors.count", 5, raw(int32(2))})
	}
	parts[0].tensors, parts[0].weights = nil, 0
	parts[1].tensors = parts[1].tensors[:1]
	parts[2].tensors, parts[2].weights = []testTensor{{"a", []uint64{3, 2}, 0, 0}}, 24
	return parts
}

// part is the name of file i, from 0, of three.
func part(i int) string { return "m" + suffix(int64(i+1), 3) + ".gguf" }

// splitDir writes parts under their names, those that are nil left out.
func splitDir(t *testing.T, parts []*testGGUF) string {
	t.Helper()
	files := map[string]string{}
	for i, p := range parts {
		if p != nil {
			files[part(i)] = string(p.bytes())
		}
	}
	return dir(t, files)
}

// TestSplit opens a model in three files by each of them and by their directory: it is the one that a single file holds.
func TestSplit(t *testing.T) {
	one, err := OpenBytes("mem", good().bytes())
	if err != nil {
		t.Fatal(err)
	}
	root := splitDir(t, splitFiles())
	for _, path := range []string{part(0), part(1), part(2), "."} {
		path = filepath.Join(root, path)
		c, err := Open(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if c.Path != path || c.Size() != one.Size() || !slices.Equal(c.Names(), one.Names()) || c.Meta["u8"] != uint8(8) {
			t.Errorf("%s: path %s, %d bytes, tensors %v, keys %v", path, c.Path, c.Size(), c.Names(), c.Meta)
		}
		for name, want := range map[string]int{"b": 68, "a": 24} {
			if w, err := c.Tensor(name); err != nil || len(w.Data) != want || w.Data[5] != 5 {
				t.Errorf("%s: tensor %s: %+v, %v", path, name, w, err)
			}
		}
		if err := c.Close(); err != nil || c.Has("a") {
			t.Error(err)
		}
	}
}

// TestSplitLinks opens a set as the caches of Hugging Face hold it: links to files with other names.
func TestSplitLinks(t *testing.T) {
	blobs := splitDir(t, splitFiles())
	root := t.TempDir()
	for i := range 3 {
		blob := filepath.Join(blobs, fmt.Sprint("blob", i))
		if err := os.Rename(filepath.Join(blobs, part(i)), blob); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(blob, filepath.Join(root, part(i))); err != nil {
			t.Skip("no symbolic links here: ", err)
		}
	}
	c, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestSplitHostile opens sets with a fault by their second file: the error names the file that is at fault, and the key.
func TestSplitHostile(t *testing.T) {
	set := func(file int, key string, kind uint32, value any) func([]*testGGUF) {
		return func(p []*testGGUF) {
			for i, k := range p[file].keys {
				if k.name == key {
					p[file].keys[i] = testKey{key, kind, raw(value)}
				}
			}
		}
	}
	without := func(file int, key string) func([]*testGGUF) {
		return func(p []*testGGUF) {
			p[file].keys = slices.DeleteFunc(p[file].keys, func(k testKey) bool { return k.name == key })
		}
	}
	swap := func(a, b int) func([]*testGGUF) { return func(p []*testGGUF) { p[a], p[b] = p[b], p[a] } }
	for _, c := range []struct {
		name   string
		change func([]*testGGUF)
		file   int    // at fault
		text   string // of the error, after the file's path
	}{
		{"a file is missing", func(p []*testGGUF) { p[2] = nil }, 2, ": one of 3 by split.count of " + part(1) + ", not there"},
		{"the first is missing", func(p []*testGGUF) { p[0] = nil }, 0, ": one of 3"},
		{"a copy under another name", func(p []*testGGUF) { p[2] = p[1] }, 2, `: key "split.no": 1, should be 2`},
		{"exchanged", swap(0, 2), 0, `: key "split.no": 2, should be 0`},
		{"misnamed", swap(1, 2), 1, `: key "split.no": 2 of 3 files, so its name should end in -00003-of-00003`},
		{"no number", without(1, "split.no"), 1, `: key "split.no": missing`},
		{"no number of another", without(0, "split.no"), 0, `: key "split.no": missing`},
		{"no count of tensors", without(1, "split.tensors.count"), 1, `: key "split.tensors.count": missing`},
		{"a whole file among them", without(2, "split.count"), 2, `: key "split.count": 0, in ` + part(1) + " it is 3"},
		{"of four", set(2, "split.count", 2, uint16(4)), 2, `: key "split.count": 4`},
		{"of two", set(1, "split.count", 2, uint16(2)), 1, `: key "split.no": 1 of 2 files, so its name should end in -00002-of-00002`},
		{"of millions", set(1, "split.count", 4, uint32(1<<31)), 1, `: key "split.count": 2147483648 files`},
		{"of -1", set(1, "split.count", 5, int32(-1)), 1, `: key "split.count": -1`},
		{"number past the end", set(1, "split.no", 2, uint16(3)), 1, `: key "split.no": 3, the 3 files`},
		{"number -1", set(2, "split.no", 5, int32(-1)), 2, `: key "split.no": -1`},
		{"a string for a number", set(1, "split.no", ggufString, "1"), 1, `: key "split.no": has type string`},
		{"of another model", set(2, "split.tensors.count", 5, int32(7)), 2, `: key "split.tensors.count": 7, in ` + part(1) + " it is 2"},
		{"of another architecture", func(p []*testGGUF) {
			p[2].keys = append(p[2].keys, testKey{"general.architecture", ggufString, raw("qwen3")})
		}, 2, `: key "general.architecture": "qwen3", in the first file it is "llama"`},
		{"a tensor in two", func(p []*testGGUF) { p[2].tensors[0].name = "b" }, 2, `: tensor "b": is in an earlier file`},
		{"too few tensors", func(p []*testGGUF) { p[2].tensors = nil }, 1, `: key "split.tensors.count": 2, the 3 files hold 1`},
		{"damaged", func(p []*testGGUF) { p[2].magic = "GGML" }, 2, ": header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parts := splitFiles()
			c.change(parts)
			root := splitDir(t, parts)
			ck, err := Open(filepath.Join(root, part(1)))
			var fe *FileError
			if want := filepath.Join(root, part(c.file)) + c.text; ck != nil || !errors.Is(err, ErrFormat) || !errors.As(err, &fe) || !strings.HasPrefix(fmt.Sprint(err), want) {
				t.Errorf("%v\nwant %s", err, want)
			}
		})
	}
}

// TestSplitElsewhere opens single files of a set where the others cannot be found.
func TestSplitElsewhere(t *testing.T) {
	second := splitFiles()[1].bytes()
	root := dir(t, map[string]string{"second.gguf": string(second), "two/m-00001-of-00002.gguf": "x", "two/n-00001-of-00002.gguf": "x", "three/" + part(0): "x", "three/m-00001-of-00004.gguf": "x"})
	for path, want := range map[string]string{
		"second.gguf": "should end in -00002-of-00003", "two": `two split models, "m-00001-of-00002.gguf" and "n-00001-of-00002.gguf"`, "three": "two split models",
	} {
		if c, err := Open(filepath.Join(root, path)); c != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := OpenBytes("mem", second); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), `mem: key "split.count"`) {
		t.Error(err)
	}
	only := good()
	only.keys = append(only.keys, testKey{"split.count", 2, raw(uint16(1))})
	if _, err := OpenBytes("mem", only.bytes()); err != nil {
		t.Errorf("a set of one: %v", err)
	}
}

// TestSplitNames finds sets in a store: by the model's name, listed once, with the bytes of all files.
func TestSplitNames(t *testing.T) {
	files := map[string]string{"odd-00001-of-2.gguf": "GGUF", "gap-00002-of-00002.gguf": "GGUF"}
	size := int64(0)
	for i, p := range splitFiles() {
		files[part(i)], files["folder/"+part(i)] = string(p.bytes()), string(p.bytes())
		size += int64(len(p.bytes()))
	}
	s := Store{dir(t, files)}
	for name, want := range map[string]string{"m": part(0), "folder": "folder", "m-00002-of-00003": part(1), "gap": "gap-00002-of-00002.gguf"} {
		if got, err := s.Find(name); err != nil || got != filepath.Join(s.Root, want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
		if (e.Name == "m" || e.Name == "folder") && e.Size != size {
			t.Errorf("%s: %d bytes, want %d", e.Name, e.Size, size)
		}
	}
	if !slices.Equal(names, []string{"folder", "gap", "m", "odd-00001-of-2"}) {
		t.Errorf("listed %v", names)
	}
	for path, want := range map[string]string{"a/b.gguf": "b", "a/B.GGUF": "B", "a/" + part(1): "m", "a/dir": "dir", "x-00001-of-00002": "x-00001-of-00002"} {
		if got := ModelName(path); got != want {
			t.Errorf("%s is called %s, want %s", path, got, want)
		}
	}
}

// FuzzSplit joins two files of a set, of which either can say anything.
func FuzzSplit(f *testing.F) {
	parts := splitFiles()
	f.Add(parts[0].bytes(), parts[1].bytes())
	f.Add(parts[1].bytes(), bytes.Replace(parts[2].bytes(), []byte("split.no"), []byte("split.on"), 1))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		whole := newCheckpoint("fuzz", GGUF)
		for i, b := range [][]byte{first, second} {
			c, s, err := readPart("fuzz", b)
			if err == nil {
				err = c.belongs(s, split{int64(i), 2, s.tensors}, "first")
			}
			if err == nil {
				err = whole.join(c)
			}
			if err != nil {
				if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
					t.Fatal(err)
				}
				return
			}
		}
		look(t, whole)
	})
}
