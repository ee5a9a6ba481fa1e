package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/quant"
)

// stFile is a safetensors file with the given header and number of weight bytes.
func stFile(header string, weights int) []byte {
	return append(append(raw(uint64(len(header))), header...), make([]byte, weights)...)
}

const stGood = `{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},` +
	`"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"one":{"dtype":"F16","shape":[],"data_offsets":[20,22]},` +
	`"none":{"dtype":"F32","shape":[0,4],"data_offsets":[20,20]},"u":{"dtype":"U8","shape":[2],"data_offsets":[22,24]}}  `

func openST(data []byte) (*Checkpoint, error) {
	c := newCheckpoint("mem", HF)
	return c, addSafetensors(c, "mem", data)
}

func TestSafetensors(t *testing.T) {
	c, err := openST(stFile(stGood, 24))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Names(); !slices.Equal(got, []string{"a", "b", "none", "one", "u"}) || c.Size() != 24 {
		t.Errorf("names %v, %d bytes", got, c.Size())
	}
	for name, want := range map[string]struct {
		format *quant.Format
		shape  []int
		bytes  int
	}{"a": {quant.F32, []int{2}, 8}, "b": {quant.BF16, []int{2, 3}, 12}, "one": {quant.F16, []int{}, 2}, "none": {quant.F32, []int{0, 4}, 0}} {
		got, err := c.Tensor(name)
		if err != nil || got.Format != want.format || !slices.Equal(got.Shape, want.shape) || len(got.Data) != want.bytes {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := c.Tensor("u"); !errors.Is(err, ErrUnsupported) || err.Error() != `mem: tensor "u": dtype "U8": not supported` {
		t.Errorf("u: %v", err)
	}
}

func TestSafetensorsCut(t *testing.T) {
	whole := stFile(stGood, 24)
	for n := range whole {
		if _, err := openST(whole[:n:n]); !errors.Is(err, ErrFormat) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(whole), err)
		}
	}
}

func TestSafetensorsHostile(t *testing.T) {
	a := `"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`
	for _, c := range []struct{ name, header, text string }{
		{"not JSON", `hello`, "not a JSON object"},
		{"array", `[]`, "not a JSON object"},
		{"not UTF-8", "{\"a\xff\":1}", "UTF-8"},
		{"text behind", `{` + a + `} x`, "follows"},
		{"unclosed", `{` + a, ""},
		{"deep", `{"a":` + strings.Repeat("[", 20000) + `}`, ""},
		{"entry is a number", `{"a":1}`, `tensor "a"`},
		{"entry is null", `{"a":null}`, "lacks"},
		{"no dtype", `{"a":{"shape":[2],"data_offsets":[0,8]}}`, "lacks"},
		{"shape null", `{"a":{"dtype":"F32","shape":null,"data_offsets":[0,8]}}`, "lacks"},
		{"three offsets", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}`, "lacks"},
		{"negative dim", `{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}`, `tensor "a"`},
		{"fractional dim", `{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}}`, `tensor "a"`},
		{"negative offset", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}`, `tensor "a"`},
		{"reversed", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}`, "lies at [8 0]"},
		{"past the end", `{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}`, "lies at [0 16] of the 8"},
		{"overlap", `{` + a + `,"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, "lies at [4 8]"},
		{"the same place", `{` + a + `,"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, `tensor "b"`},
		{"hole", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, "should start at 0"},
		{"hole at the end", `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, "tensors fill 4"},
		{"too small", `{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, "8 bytes for 3 values of F32"},
		{"product overflow", `{"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}}`, "too large"},
		{"overflow to the right size", `{"a":{"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]}}`, "too large"},
		{"dim over uint64", `{"a":{"dtype":"F32","shape":[18446744073709551618],"data_offsets":[0,8]}}`, `tensor "a"`},
		{"many dims", `{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}}`, "9 dimensions"},
		{"name twice", `{` + a + `,` + a + `}`, "twice"},
		{"metadata of numbers", `{"__metadata__":{"x":1},` + a + `}`, ""},
		{"empty name", `{"":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, "not a printable name"},
		{"name with NUL", `{"a\u0000":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, "not a printable name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := openST(stFile(c.header, 8))
			var fe *FileError
			if !errors.Is(err, ErrFormat) || !errors.As(err, &fe) || !strings.Contains(err.Error(), c.text) {
				t.Error(err)
			}
		})
	}
	for _, size := range []uint64{1 << 63, 100_000_001, 9} {
		if _, err := openST(append(raw(size), "{}      "...)); !errors.Is(err, ErrFormat) {
			t.Errorf("header size %d: %v", size, err)
		}
	}
	if c, err := openST(stFile(`{"a":{"dtype":"NEW","shape":[3],"data_offsets":[0,8]}}`, 8)); err != nil || !c.Has("a") {
		t.Error("an unknown dtype is an error only for who asks for the tensor: ", err)
	}
}

// dir writes files by name into a new directory.
func dir(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func stOne(name string) string {
	return string(stFile(`{"`+name+`":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4))
}

func TestHF(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"one file": {"model.safetensors": string(stFile(stGood, 24))},
		"shards": {
			"model.safetensors.index.json": `{"metadata":{"total_size":8},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}`,
			"m-1.safetensors":              stOne("a"), "m-2.safetensors": stOne("b")},
	} {
		files["config.json"], files["tokenizer.json"], files["other.json"] = `{"x":1}`, "{}", "{}"
		c, err := Open(dir(t, files))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Kind != HF || !c.Has("a") || !c.Has("b") || string(c.Files["config.json"]) != `{"x":1}` || len(c.Files) != 2 {
			t.Errorf("%s: %+v", name, c)
		}
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHFHostile(t *testing.T) {
	index := func(text string) map[string]string {
		return map[string]string{"config.json": "{}", "model.safetensors.index.json": text, "m-1.safetensors": stOne("a"), "m-2.safetensors": stOne("b"),
			"m-3.safetensors": stOne("a")}
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		text  string
	}{
		{"no config", map[string]string{"model.safetensors": stOne("a")}, "config.json"},
		{"no weights", map[string]string{"config.json": "{}"}, "neither"},
		{"empty weights", map[string]string{"config.json": "{}", "model.safetensors": ""}, "empty"},
		{"a directory for weights", map[string]string{"config.json": "{}", "model.safetensors/x": ""}, "not a regular file"},
		{"a directory for config", map[string]string{"config.json/x": ""}, "not a regular file"},
		{"parent", index(`{"weight_map":{"a":"../m-1.safetensors"}}`), "plain name"},
		{"folder", index(`{"weight_map":{"a":"x/m-1.safetensors"}}`), "plain name"},
		{"absolute", index(`{"weight_map":{"a":"/m-1.safetensors"}}`), "plain name"},
		{"backslash", index(`{"weight_map":{"a":"..\\m-1.safetensors"}}`), "plain name"},
		{"drive", index(`{"weight_map":{"a":"c:m-1.safetensors"}}`), "plain name"},
		{"another file", index(`{"weight_map":{"a":"config.json"}}`), "plain name"},
		{"number", index(`{"weight_map":{"a":1}}`), "cannot unmarshal"},
		{"no map", index(`{}`), "no weight_map"},
		{"not an object", index(`7`), "not a JSON object"},
		{"named twice", index(`{"weight_map":{"a":"m-1.safetensors","a":"m-2.safetensors"}}`), "twice"},
		{"two maps", index(`{"weight_map":{"a":"m-1.safetensors"},"weight_map":{"b":"m-2.safetensors"}}`), "twice"},
		{"missing shard", index(`{"weight_map":{"a":"m-9.safetensors"}}`), "m-9.safetensors"},
		{"missing tensor", index(`{"weight_map":{"a":"m-1.safetensors","c":"m-2.safetensors"}}`), `tensor "c": is not in m-2.safetensors`},
		{"swapped tensor", index(`{"weight_map":{"a":"m-1.safetensors","b":"m-1.safetensors"}}`), `tensor "b": is not in m-1.safetensors`},
		{"in two shards", index(`{"weight_map":{"a":"m-1.safetensors","b":"m-3.safetensors"}}`), `tensor "a": appears in two files`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Open(dir(t, c.files))
			var fe *FileError
			if got != nil || !errors.As(err, &fe) || !strings.Contains(err.Error(), c.text) {
				t.Error(err)
			}
		})
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(stFile(stGood, 24))
	f.Add(stFile(`{}`, 0))
	f.Add(stFile(`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}`, 2))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := openST(raw)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		look(t, c)
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":8},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../x.safetensors"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		where, err := parseIndex(raw)
		if err != nil {
			return
		}
		for _, file := range where {
			if filepath.Base(file) != file || strings.ContainsAny(file, "/\\:\x00") {
				t.Fatalf("%q is no plain name", file)
			}
		}
	})
}
