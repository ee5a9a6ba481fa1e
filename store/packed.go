package store

import (
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/winnow-llm/winnow/quant"
)

// Parts of the name of a packed matrix's tensors, which stand where its own would end in ".weight".
const (
	packedCodes  = ".weight_packed"
	packedScales = ".weight_scale"
	packedShape  = ".weight_shape"
)

// packed is a matrix that compressed-tensors has put in several tensors.
type packed struct {
	quant.Packed
	rows, cols    int
	codes, scales []byte
}

// addPacked finds the matrices of a Hugging Face directory that compressed-tensors has packed, by what config.json says of them, and enters
// each under the name that it would have by itself. Those in variants that Winnow does not read are refused when they are asked for.
func (c *Checkpoint) addPacked() error {
	c.refuseForeign()
	var modules []string
	for name := range c.Tensors {
		if module, ok := strings.CutSuffix(name, packedCodes); ok {
			modules = append(modules, module)
		}
	}
	if len(modules) == 0 {
		return nil
	}
	slices.Sort(modules)
	file := filepath.Join(c.Path, "config.json")
	schemes, err := readSchemes(c.Files["config.json"])
	if err != nil {
		return &FileError{File: file, Part: `key "quantization_config"`, Limit: err.Error(), Err: ErrFormat}
	}
	for _, module := range modules {
		s, err := schemes.of(module)
		if err != nil {
			return &FileError{File: file, Part: `key "quantization_config"`, Limit: err.Error(), Err: ErrFormat}
		}
		if err := c.pack(module, s); err != nil {
			return err
		}
	}
	return nil
}

// refuseForeign says of matrices that other programs have packed why they are not there.
func (c *Checkpoint) refuseForeign() {
	for _, name := range c.Names() {
		if module, ok := strings.CutSuffix(name, ".qweight"); ok && !c.Has(module+".weight") {
			limit := "packed as GPTQ or AWQ do, which is not read"
			c.refused[module+".weight"] = &FileError{File: c.Path, Part: quoted("tensor", name), Limit: limit, Err: ErrUnsupported}
		}
	}
}

// pack checks the tensors of a packed matrix and enters it.
func (c *Checkpoint) pack(module string, s *scheme) error {
	name := module + ".weight"
	bad := &FileError{File: c.Path, Part: quoted("tensor", module+packedCodes), Err: ErrFormat}
	if c.Has(name) {
		bad.Limit = fmt.Sprintf("stands beside %.100q", name)
		return bad
	}
	if bad.Limit = s.refused; bad.Limit == "" {
		for _, also := range []string{".weight_zero_point", ".weight_g_idx"} {
			if c.Has(module + also) {
				bad.Limit = fmt.Sprintf("with %.100q, which is not read", module+also)
			}
		}
	}
	if bad.Limit != "" {
		bad.Err = ErrUnsupported
		c.refused[name] = bad
		return nil
	}
	codes, shape, scales := c.Tensors[module+packedCodes], c.Tensors[module+packedShape], c.Tensors[module+packedScales]
	p := packed{Packed: quant.Packed{Bits: s.bits, Group: s.group, Scale: scales.Format}, codes: codes.Data, scales: scales.Data}
	if bad.Limit = p.shape(codes, shape); bad.Limit == "" {
		bad.Limit = p.grouped(scales)
	}
	if bad.Limit != "" {
		return bad
	}
	if c.packed == nil {
		c.packed, c.pieces = map[string]packed{}, map[string]Tensor{}
	}
	for _, piece := range []Tensor{codes, shape, scales} {
		c.pieces[piece.Name] = piece
		delete(c.Tensors, piece.Name)
	}
	c.packed[name] = p
	c.Tensors[name] = Tensor{Name: name, Format: p.Format(), Shape: []int{p.rows, p.cols}}
	return nil
}

// shape takes the matrix's, and says what is wrong with it or with the codes.
func (p *packed) shape(codes, shape Tensor) string {
	var dims []int64
	switch {
	case shape.Format == nil:
		return "has no tensor of its shape, " + packedShape
	case shape.Format == quant.I64 && slices.Equal(shape.Shape, []int{2}):
		dims = integers[int64](shape.Data)
	case shape.Format == quant.I32 && slices.Equal(shape.Shape, []int{2}):
		for _, d := range integers[int32](shape.Data) {
			dims = append(dims, int64(d))
		}
	default:
		return fmt.Sprintf("its shape is %s %v, want I64 [2]", shape.Format, shape.Shape)
	}
	rows, cols := dims[0], dims[1]
	if rows < 1 || cols < 1 || rows > math.MaxInt32 || cols > math.MaxInt32 {
		return fmt.Sprintf("a matrix of %d rows of %d", rows, cols)
	}
	p.rows, p.cols = int(rows), int(cols)
	if want := []int{p.rows, p.Words(p.cols)}; codes.Format != quant.I32 || !slices.Equal(codes.Shape, want) {
		return fmt.Sprintf("is %s %v, want I32 %v for %d rows of %d values of %d bits", codes.Format, codes.Shape, want, rows, cols, p.Bits)
	}
	return ""
}

// grouped says what is wrong with groups and their scales.
func (p *packed) grouped(scales Tensor) string {
	if p.Group == 0 { // one scale a row
		p.Group = p.cols
	}
	if p.cols%p.Group != 0 {
		return fmt.Sprintf("rows of %d values are no whole number of groups of %d", p.cols, p.Group)
	}
	want := []int{p.rows, p.cols / p.Group}
	switch {
	case scales.Format == nil:
		return "has no scales, " + packedScales
	case scales.Format != quant.F32 && scales.Format != quant.F16 && scales.Format != quant.BF16 || !slices.Equal(scales.Shape, want):
		return fmt.Sprintf("its scales are %s %v, want floats %v", scales.Format, scales.Shape, want)
	}
	return ""
}

// integers reads whole numbers, little-endian.
func integers[T int32 | int64](raw []byte) (out []T) {
	size := 4
	if _, long := any(T(0)).(int64); long {
		size = 8
	}
	for ; len(raw) >= size; raw = raw[size:] {
		v := uint64(0)
		for i := range size {
			v |= uint64(raw[i]) << (8 * i)
		}
		out = append(out, T(v))
	}
	return out
}

// unpacked is a packed matrix in blocks of one format, made anew: Q4_0 or Q8_0 with the same values, F32 where a scale is none that those have.
func (c *Checkpoint) unpacked(t Tensor, p packed) Tensor {
	if t.Format != quant.F32 {
		t.Data = make([]byte, p.rows*t.Format.RowBytes(p.cols))
		if p.each(t.Data, func(dst, codes, scales []byte) bool { return p.Blocks(dst, codes, scales) }) {
			c.Release(p.codes)
			c.Release(p.scales)
			return t
		}
	}
	t.Format = quant.F32
	t.Data = make([]byte, 4*p.rows*p.cols)
	p.each(t.Data, func(dst, codes, scales []byte) bool {
		row := make([]float32, p.cols)
		p.Decode(row, codes, scales)
		quant.F32.Encode(dst, row)
		return true
	})
	return t
}

// each makes the rows of dst by what row makes of codes and scales, in several goroutines. It says whether all went well.
func (p *packed) each(dst []byte, row func(dst, codes, scales []byte) bool) bool {
	size, words, groups := len(dst)/p.rows, 4*p.Words(p.cols), p.Scale.RowBytes(p.cols/p.Group)
	threads := min(runtime.GOMAXPROCS(0), 1+p.rows*p.cols>>16)
	good := make([]bool, threads)
	var group sync.WaitGroup
	for i := range threads {
		group.Go(func() {
			good[i] = true
			for r := i * p.rows / threads; r < (i+1)*p.rows/threads && good[i]; r++ {
				good[i] = row(dst[r*size:(r+1)*size], p.codes[r*words:(r+1)*words], p.scales[r*groups:(r+1)*groups])
			}
		})
	}
	group.Wait()
	return !slices.Contains(good, false)
}

// Packed says whether a tensor is one that Tensor makes of several.
func (c *Checkpoint) Packed(name string) bool {
	_, ok := c.packed[name]
	return ok
}
