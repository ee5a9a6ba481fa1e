package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/quant"
)

// packedGolden holds matrices a, b and c that the Python package compressed-tensors 0.20.1 has packed (pack-quantized; 4 bits in groups of 32 with
// BF16 scales, 8 bits with F16, 4 bits with one F32 scale a row), and what each value is in F32 as *.exact.
const packedGolden = "testdata/packed.safetensors"

const packedConfig = `{"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{
 "group_0":{"targets":["a"],"weights":{"num_bits":4,"type":"int","symmetric":true,"strategy":"group","group_size":32,"dynamic":false,"actorder":null}},
 "group_1":{"targets":["re:[bx]$"],"weights":{"num_bits":8,"type":"int","symmetric":true,"strategy":"group","group_size":32}},
 "group_2":{"targets":["Linear"],"weights":{"num_bits":4,"type":"int","symmetric":true,"strategy":"channel"}}}}}`

func packedDir(t testing.TB, config string, weights []byte) string {
	dir := t.TempDir()
	for name, raw := range map[string][]byte{"config.json": []byte(config), hfWeights: weights} {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func golden(t testing.TB) []byte {
	raw, err := os.ReadFile(packedGolden)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestPackedIsUnpackedExactly(t *testing.T) {
	c, err := Open(packedDir(t, packedConfig, golden(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A scale that is far from the other ones of c, in F32, is none that a binary16 has.
	for name, format := range map[string]*quant.Format{"a": quant.Q4_0, "b": quant.Q8_0, "c": quant.F32} {
		m, err := c.Tensor(name + ".weight")
		want, err2 := c.Tensor(name + ".exact")
		if err != nil || err2 != nil || m.Format != format || !slices.Equal(m.Shape, []int{3, 96}) || !c.Packed(m.Name) {
			t.Fatal(m.Name, m.Format, m.Shape, err, err2)
		}
		got := make([]float32, 3*96)
		m.Format.Decode(got, m.Data)
		exact := make([]float32, 3*96)
		quant.F32.Decode(exact, want.Data)
		for i := range got {
			if got[i] != exact[i] {
				t.Fatalf("%s: value %d is %v, want %v", name, i, got[i], exact[i])
			}
		}
	}
	if names := c.Names(); !slices.Equal(names, []string{"a.exact", "a.weight", "b.exact", "b.weight", "c.exact", "c.weight"}) {
		t.Errorf("%q", names)
	}
	if piece, err := c.Tensor("a" + packedCodes); err != nil || len(piece.Data) != 3*12*4 || !c.Has("b"+packedScales) {
		t.Errorf("a piece as it lies: %+v, %v", piece, err)
	}
}

// packedFile is a folder's weights: tensors of zeros, but for the shapes.
func packedFile(t testing.TB, tensors ...string) []byte {
	var s NewSafetensors
	for _, line := range tensors {
		var name, format string
		var rows, cols int
		if n, err := fmt.Sscan(line, &name, &format, &rows, &cols); n < 3 {
			t.Fatal(line, err)
		}
		n := NewTensor{Name: name, Format: quant.ByName(format), Shape: []int{rows, cols}}
		if strings.HasSuffix(name, packedShape) { // its two numbers are what it says
			n.Shape = []int{2}
			raw := make([]byte, 16)
			binary.LittleEndian.PutUint64(raw, uint64(rows))
			binary.LittleEndian.PutUint64(raw[8:], uint64(cols))
			n.Pieces = slices.Values([][]byte{raw})
		} else {
			n.Pieces = slices.Values([][]byte{make([]byte, rows*cols*n.Format.Bytes)})
		}
		s.Tensors = append(s.Tensors, n)
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := WriteSafetensors(t.Context(), path, s, nil); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestPackedLies(t *testing.T) {
	good := []string{"m.weight_packed I32 2 8", "m.weight_shape I64 2 64", "m.weight_scale F16 2 2"}
	but := func(i int, line string) []string { x := slices.Clone(good); x[i] = line; return x }
	weights := func(s string) string {
		return `{"quantization_config":{"format":"pack-quantized","config_groups":{"g":{"targets":["Linear"],"weights":{` + s + `}}}}}`
	}
	fine := weights(`"num_bits":4,"strategy":"group","group_size":32`)
	for _, c := range []struct {
		name    string
		config  string
		tensors []string
		err     error
		text    string
	}{
		{"fine", fine, good, nil, ""},
		{"too few words", fine, but(0, "m.weight_packed I32 2 7"), ErrFormat, "want I32 [2 8]"},
		{"another row of words", fine, but(0, "m.weight_packed I32 3 8"), ErrFormat, "want I32 [2 8]"},
		{"words that are floats", fine, but(0, "m.weight_packed F32 2 8"), ErrFormat, "want I32 [2 8]"},
		{"scales of another shape", fine, but(2, "m.weight_scale F16 2 4"), ErrFormat, "its scales are F16 [2 4], want floats [2 2]"},
		{"scales that are integers", fine, but(2, "m.weight_scale I32 2 2"), ErrFormat, "want floats"},
		{"no scales", fine, good[:2], ErrFormat, "no scales"},
		{"no shape", fine, []string{good[0], good[2]}, ErrFormat, "no tensor of its shape"},
		{"a negative shape", fine, but(1, "m.weight_shape I64 -2 64"), ErrFormat, "-2 rows"},
		{"a vast shape", fine, but(1, "m.weight_shape I64 2 4611686018427387904"), ErrFormat, "4611686018427387904"},
		{"the matrix itself beside it", fine, append([]string{"m.weight F32 2 64"}, good...), ErrFormat, "stands beside"},
		{"groups that do not divide", weights(`"num_bits":4,"strategy":"group","group_size":48`), good, ErrFormat, "no whole number of groups of 48"},
		{"groups of nothing", weights(`"num_bits":4,"strategy":"group","group_size":0`), good, ErrFormat, "group_size"},
		{"no group size", weights(`"num_bits":4,"strategy":"group"`), good, ErrFormat, "group_size"},
		{"no bits", weights(`"strategy":"group","group_size":32`), good, ErrFormat, "num_bits"},
		{"minus bits", weights(`"num_bits":-4,"strategy":"channel"`), good, ErrFormat, "num_bits is -4"},
		{"bits in words", weights(`"num_bits":"four","strategy":"channel"`), good, ErrFormat, "num_bits"},
		{"no config", "{}", good, ErrFormat, "quantization_config"},
		{"no groups", `{"quantization_config":{"config_groups":{}}}`, good, ErrFormat, "among its targets"},
		{"another program's", `{"quantization_config":{"quant_method":"gptq"}}`, good, ErrFormat, "gptq"},
		{"a bad expression", strings.Replace(fine, "Linear", "re:(", 1), good, ErrFormat, "config_groups.g: targets"},
		{"targets that overlap", strings.Replace(fine, `"g":`, `"h":{"targets":["re:m"],"weights":{"num_bits":4,"strategy":"channel"}},"i":{"targets":["re:.$"],`+
			`"weights":{"num_bits":8,"strategy":"channel"}},"g":`, 1), good, ErrFormat, `"m" is among the targets of`},
		{"an overlap that says the same", strings.Replace(fine, `"g":`, `"h":{"targets":["Linear"],"weights":{"num_bits":4,"strategy":"group","group_size":32}},"g":`, 1),
			good, nil, ""},
		{"5 bits", weights(`"num_bits":5,"strategy":"group","group_size":32`), good, ErrUnsupported, "num_bits 5, only 4 and 8"},
		{"floats", weights(`"num_bits":4,"type":"float","strategy":"group","group_size":32`), good, ErrUnsupported, `type "float"`},
		{"zero points said", weights(`"num_bits":4,"symmetric":false,"strategy":"group","group_size":32`), good, ErrUnsupported, "zero points"},
		{"zero points there", fine, append([]string{"m.weight_zero_point I32 1 2"}, good...), ErrUnsupported, "m.weight_zero_point"},
		{"another order", weights(`"num_bits":4,"strategy":"group","group_size":32,"actorder":"group"`), good, ErrUnsupported, "actorder"},
		{"an order there", fine, append([]string{"m.weight_g_idx I32 1 64"}, good...), ErrUnsupported, "m.weight_g_idx"},
		{"another strategy", weights(`"num_bits":4,"strategy":"block"`), good, ErrUnsupported, `strategy "block"`},
		{"another format", strings.Replace(fine, "pack-quantized", "marlin-24", 1), good, ErrUnsupported, "marlin-24"},
		{"activations", strings.Replace(fine, `"targets"`, `"input_activations":{"num_bits":8},"targets"`, 1), good, ErrUnsupported, "activations"},
		{"GPTQ", "{}", []string{"m.qweight I32 2 8"}, ErrUnsupported, "GPTQ"},
	} {
		ck, err := Open(packedDir(t, c.config, packedFile(t, c.tensors...)))
		if err == nil {
			_, err = ck.Tensor("m.weight")
			ck.Close()
		}
		var fe *FileError
		if !errors.Is(err, c.err) || c.err != nil && (!errors.As(err, &fe) || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzPacked(f *testing.F) {
	raw := golden(f)
	f.Add(packedConfig, raw)
	f.Add(strings.Replace(packedConfig, "32", "16", 1), raw)
	f.Add(strings.Replace(packedConfig, "Linear", "re:.*", 1), packedFile(f, "m.weight_packed I32 2 8", "m.weight_shape I64 2 64", "m.weight_scale F32 2 1"))
	f.Fuzz(func(t *testing.T, config string, raw []byte) {
		c := newCheckpoint("fuzz", HF)
		c.Files["config.json"] = []byte(config)
		err := addSafetensors(c, "fuzz", raw)
		if err == nil {
			err = c.addPacked()
		}
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		for name := range c.Tensors {
			m, err := c.Tensor(name)
			if err != nil {
				t.Fatal(name, err)
			}
			if c.Packed(name) && len(m.Data) != m.Shape[0]*m.Format.RowBytes(m.Shape[1]) {
				t.Fatalf("%s: %d bytes of %s %v", name, len(m.Data), m.Format, m.Shape)
			}
		}
	})
}
