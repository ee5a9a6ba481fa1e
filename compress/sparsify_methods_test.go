package compress_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// outputs are those of the experts of layer 0, which no change of experts has any influence on but its own.
func outputs(t *testing.T, c *store.Checkpoint) (out []float32) {
	t.Helper()
	d := tensor.Observed(fast(t), func(op tensor.Op, read func(tensor.Mat) []byte) {
		if f, ok := op.(*moe.FFN); ok && strings.HasPrefix(f.Banks[0].Gate.Name, "blk.0.") {
			n := int(tensor.HostMat("", quant.I32, 1, 1, read(f.N)).I32()[0])
			out = append(out, tensor.HostMat("", quant.F32, n, f.Y.Cols, read(f.Y.Slice(0, n))).F32()...)
		}
	})
	if _, err := compress.Observe(t.Context(), study(t, c, d, 50)); err != nil {
		t.Fatal(err)
	}
	return out
}

func apart(a, b []float32) (sum float64) {
	for i, v := range a {
		sum += (float64(v) - float64(b[i])) * (float64(v) - float64(b[i]))
	}
	return sum
}

// sparse makes a model and opens it.
func sparse(t *testing.T, c *store.Checkpoint, p *compress.Profile, s compress.Sparsity) (*store.Checkpoint, compress.Zeros) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "sparse")
	z, err := compress.Sparsify(t.Context(), c, p, s, compress.Writing{Out: out})
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, out), z
}

// TestSparsifyMethods has a file of Q8_0 that experts were dropped and merged in, and a folder of BF16, made sparse by each method. All have exactly as
// many zeros, nothing but experts changes, and only SparseGPT changes weights that stay. On the text that they were made by, SparseGPT's layer is
// nearer to the whole one than Wanda's.
func TestSparsifyMethods(t *testing.T) {
	small := pruned()
	small.Layers[2] = moe.OverlayLayer{Drop: []int{1, 7}, Merge: [][]int{{3, 5}}}
	fewer := overlay(map[int]moe.OverlayLayer{0: {Drop: []int{0, 4, 5}}, 2: {Drop: []int{7}}})
	for name, c := range map[string]*store.Checkpoint{
		"fewer experts": apply(t, demoModel(t), small, compress.Writing{}), "folder": opened(t, fixture),
		"folder of fewer": apply(t, opened(t, fixture), fewer, compress.Writing{}),
	} {
		s := study(t, c, fast(t), 50)
		p, err := compress.Observe(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		whole, wanda := outputs(t, c), 0.0
		for _, m := range []struct {
			method compress.Pruning
			repair compress.Repair
			lambda float64
		}{{compress.ByWanda, "", 0}, {compress.ByWanda, compress.ByDSnoT, 0}, {compress.BySparseGPT, "", 0}, {compress.BySparseGPT, compress.ByDSnoT, 0.1}} {
			made, z := sparse(t, c, &p, compress.Sparsity{Share: 0.5, Method: m.method, Repair: m.repair, Lambda: m.lambda, Seeing: compress.Seeing{Study: s}})
			zeros, weights := countZeros(t, c, made, m.method == compress.BySparseGPT && m.repair == "", z)
			if z.Weights != weights || z.Zero != zeros || z.Zero < weights/3 {
				t.Errorf("%s by %s %s: %d zeros of %d weights, want %d of %d", name, m.method, m.repair, z.Zero, z.Weights, zeros, weights)
			}
			if m.repair != "" {
				continue
			}
			far := apart(whole, outputs(t, made))
			if m.method == compress.ByWanda {
				wanda = far
			} else if !(far > 0 && far < 0.9*wanda) {
				t.Errorf("%s: error of SparseGPT %v, of Wanda %v", name, far, wanda)
			}
			if rounded := 18; m.method == compress.BySparseGPT && m.repair == "" && c.Kind == store.GGUF && z.Rounded != rounded {
				t.Errorf("%s: %d tensors rounded, want %d", name, z.Rounded, rounded)
			}
		}
	}
}

// countZeros compares a sparse model with the whole one, and counts what it should have: floor(share * columns) zeros for each row of an expert that
// is not dead, which each row has, or all of a matrix together.
func countZeros(t *testing.T, c, made *store.Checkpoint, updated bool, z compress.Zeros) (zeros, weights int64) {
	t.Helper()
	for tensor, x := range c.Tensors {
		now := made.Tensors[tensor]
		layer := layerOfTensor(tensor)
		if !strings.Contains(tensor, "_exps.") && !strings.Contains(tensor, ".experts.") {
			if !bytes.Equal(x.Data, now.Data) || x.Format != now.Format {
				t.Errorf("%s: %s changed", c.Path, tensor)
			}
			continue
		}
		cols := x.Shape[len(x.Shape)-1]
		n, per := len(x.Data)/x.Format.RowBytes(cols), int(z.Shares[layer]*float64(cols))
		rows := n // of a matrix
		if len(x.Shape) == 3 {
			rows = x.Shape[1]
		}
		was, is := make([]float32, n*cols), make([]float32, n*cols)
		x.Format.Decode(was, x.Data)
		x.Format.Decode(is, now.Data)
		weights += int64(n * cols)
		for at := 0; at < n; at += rows {
			if slices.Equal(was[at*cols:(at+rows)*cols], is[at*cols:(at+rows)*cols]) {
				continue // dead: else the counts of all differ
			}
			zeros += int64(rows * per)
			all := 0
			for row := at; row < at+rows; row++ {
				own := 0
				for i := row * cols; i < (row+1)*cols; i++ {
					switch {
					case is[i] == 0:
						own++
					case is[i] != was[i] && !updated:
						t.Fatalf("%s: %s: %v became %v", c.Path, tensor, was[i], is[i])
					}
				}
				if all += own; own < per && !updated {
					t.Fatalf("%s: %s: %d zeros in row %d, want %d", c.Path, tensor, own, row, per)
				}
			}
			if all < rows*per {
				t.Errorf("%s: %s: %d zeros, want %d", c.Path, tensor, all, rows*per)
			}
		}
	}
	return zeros, weights
}

// layerOfTensor is the first number in a tensor's name.
func layerOfTensor(name string) int {
	at := strings.IndexAny(name, "0123456789")
	if at < 0 {
		return -1
	}
	return int(name[at] - '0')
}

// Of an expert that no token chose nothing changes, by no method, and it is named; the others get their zeros of as few tokens as there are.
func TestDeadExpertsStay(t *testing.T) {
	c := opened(t, fixture)
	s := study(t, c, fast(t), 50)
	s.Text = said([][]int32{{5, 9, 7}}, nil)
	p, err := compress.Observe(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []compress.Pruning{compress.ByWanda, compress.BySparseGPT} {
		for _, r := range []compress.Repair{"", compress.ByDSnoT} {
			made, z := sparse(t, c, &p, compress.Sparsity{Share: 0.5, Method: m, Repair: r, Seeing: compress.Seeing{Study: s}})
			for layer, l := range p.Layers {
				if len(z.Dead[layer]) < 2 {
					t.Errorf("%s %s: layer %d: dead %v after three tokens", m, r, layer, z.Dead[layer])
				}
				for e, n := range l.Usage {
					for _, part := range []string{"gate", "up", "down"} {
						_, was, _ := matricesOf(t, c, layer, e, part)
						_, is, _ := matricesOf(t, made, layer, e, part)
						if dead := slices.Contains(z.Dead[layer], e); dead != (n == 0) || dead != bytes.Equal(was, is) {
							t.Errorf("%s %s: layer %d: expert %d of %d tokens: dead %v, its %s is as it was: %v", m, r, layer, e, n, dead, part, bytes.Equal(was, is))
						}
					}
				}
			}
		}
	}
}

// Nothing asked for is an equal copy of all tensors, whatever the method.
func TestSparsifyByNothing(t *testing.T) {
	c := opened(t, fixture)
	s := study(t, c, fast(t), 50)
	p, err := compress.Observe(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []compress.Pruning{compress.ByWanda, compress.BySparseGPT} {
		made, z := sparse(t, c, &p, compress.Sparsity{Method: method, Seeing: compress.Seeing{Study: s}})
		for name, x := range c.Tensors {
			if !bytes.Equal(x.Data, made.Tensors[name].Data) {
				t.Errorf("%s: %s changed", method, name)
			}
		}
		if z.Zero != 0 {
			t.Errorf("%s: %d zeros", method, z.Zero)
		}
	}
}

// With less memory the text is read more often, and the same comes out; with too little, nothing does.
func TestSparseGPTInPasses(t *testing.T) {
	c := opened(t, fixture)
	s := study(t, c, fast(t), 50)
	p, err := compress.Observe(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	const layer = 8 * 8 * (64*65/2 + 32*33/2) // bytes
	var files [][]byte
	for _, bytes := range []int64{0, 2*layer + 100, layer} {
		told, seen := map[int]int{}, int64(0)
		see := func(pass, passes int, tokens int64) { told[pass], seen = passes, max(seen, tokens) }
		made, _ := sparse(t, c, &p, compress.Sparsity{Share: 0.3, Method: compress.BySparseGPT, Seeing: compress.Seeing{Study: s, Bytes: bytes, See: see}})
		want := map[int64]int{0: 1, layer: 3}[bytes]
		if want == 0 {
			want = 2
		}
		if len(told) != want || told[0] != want || seen != p.Calibration.Tokens {
			t.Errorf("%d bytes: told %v and %d tokens, want %d passes", bytes, told, seen, want)
		}
		var all []byte
		for _, name := range made.Names() {
			all = append(all, made.Tensors[name].Data...)
		}
		files = append(files, all)
	}
	if !bytes.Equal(files[0], files[1]) || !bytes.Equal(files[0], files[2]) {
		t.Error("passes change the result")
	}
	_, err = compress.Sparsify(t.Context(), c, &p, compress.Sparsity{Share: 0.3, Method: compress.BySparseGPT, Seeing: compress.Seeing{Study: s, Bytes: layer - 1}},
		compress.Writing{Out: filepath.Join(t.TempDir(), "x")})
	if !errors.Is(err, compress.ErrMemory) || !strings.Contains(err.Error(), "layer 0") {
		t.Errorf("a byte too few: %v", err)
	}
}

func TestSparsifyMethodRefusals(t *testing.T) {
	c, out := opened(t, fixture), filepath.Join(t.TempDir(), "x")
	s := study(t, c, fast(t), 50)
	p, err := compress.Observe(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	none := p
	none.Layers = slices.Clone(p.Layers)
	none.Layers[1].HiddenSums = nil
	other := s
	other.Text = said(script(299), nil)
	four, whole := demoModel(t), demoModel(t)
	up := four.Tensors["blk.4.ffn_up_exps.weight"]
	up.Format = quant.Q4_0
	four.Tensors["blk.4.ffn_up_exps.weight"] = up
	for name, r := range map[string]struct {
		c    *store.Checkpoint
		p    compress.Profile
		s    compress.Sparsity
		is   error
		says string
	}{
		"method":    {c, p, compress.Sparsity{Share: 0.5, Method: "magnitude"}, nil, "want wanda or sparsegpt"},
		"repair":    {c, p, compress.Sparsity{Share: 0.5, Repair: "lora"}, nil, "want dsnot"},
		"no text":   {c, p, compress.Sparsity{Share: 0.5, Method: compress.BySparseGPT}, compress.ErrCalibration, "takes the text itself"},
		"no sums":   {c, none, compress.Sparsity{Share: 0.5, Repair: compress.ByDSnoT}, compress.ErrCalibration, "layer 1: no sums of columns"},
		"of text":   {c, p, compress.Sparsity{Share: 0.5, Method: compress.BySparseGPT, Seeing: compress.Seeing{Study: other}}, compress.ErrCalibration, "of the profile's by"},
		"quantised": {four, compress.Profile{Layers: observed(t, whole).Layers}, compress.Sparsity{Share: 0.5}, store.ErrUnsupported, "Q4_0 holds no zeros"},
		"dense":     {opened(t, filepath.Join("..", "model", "testdata", "qwen3")), compress.Profile{}, compress.Sparsity{Share: 0.5}, store.ErrUnsupported, "no layer has experts"},
	} {
		_, err := compress.Sparsify(t.Context(), r.c, &r.p, r.s, compress.Writing{Out: out})
		if err == nil || r.is != nil && !errors.Is(err, r.is) || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}
