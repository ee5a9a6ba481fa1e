package compress_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
)

// observed is a profile of a model as if its columns had had these norms; expert 3 of layer 1 was chosen by no token.
func observed(t testing.TB, c *store.Checkpoint) *compress.Profile {
	t.Helper()
	spec, err := model.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	p := &compress.Profile{Model: c.Fingerprint()}
	for layer, l := range spec.Layers {
		var lp compress.LayerProfile
		for e := range l.Router.Experts {
			columns := func(n int) (out []float64) {
				for i := range n {
					out = append(out, float64((7*i+3*e+layer)%11))
				}
				return out
			}
			lp.Usage = append(lp.Usage, int64(10+e))
			lp.Inputs, lp.Hidden = append(lp.Inputs, columns(spec.Dim)), append(lp.Hidden, columns(l.ExpertWidth))
		}
		p.Layers = append(p.Layers, lp)
	}
	p.Layers[1].Usage[3] = 0
	return p
}

// matricesOf are the weights of an expert's matrix, and the name of the tensor and the part of it that holds them.
func matricesOf(t testing.TB, c *store.Checkpoint, layer, expert int, part string) (cols int, raw []byte, w []float32) {
	t.Helper()
	x, ok := c.Tensors[fmt.Sprintf("blk.%d.ffn_%s_exps.weight", layer, part)]
	if ok {
		size := len(x.Data) / x.Shape[0]
		raw = x.Data[expert*size:][:size]
	} else {
		var err error
		if x, err = c.Tensor(fmt.Sprintf("model.layers.%d.mlp.experts.%d.%s_proj.weight", layer, expert, part)); err != nil {
			t.Fatal(err)
		}
		raw = x.Data
	}
	w = make([]float32, len(raw)/x.Format.Bytes*x.Format.Block)
	x.Format.Decode(w, raw)
	return x.Shape[len(x.Shape)-1], raw, w
}

// owl is how the shares of layers follow from their outliers, all scores of a layer taken at once.
func owl(t testing.TB, c *store.Checkpoint, p *compress.Profile, share, lambda float64) []float64 {
	t.Helper()
	var outliers []float64
	for layer, lp := range p.Layers {
		var scores []float64
		for e := range lp.Usage {
			for _, part := range []string{"gate", "up", "down"} {
				columns := lp.Inputs[e]
				if part == "down" {
					columns = lp.Hidden[e]
				}
				cols, _, w := matricesOf(t, c, layer, e, part)
				for i, v := range w {
					if lp.Usage[e] > 0 {
						scores = append(scores, math.Abs(float64(v))*math.Sqrt(columns[i%cols]))
					}
				}
			}
		}
		outliers = append(outliers, compress.Outliers(3, slices.Values([][]float64{scores})))
	}
	return compress.Shares(share, lambda, outliers)
}

// TestSparsify makes weights of the demo, Q8_0, and of a folder, BF16, zero: exactly floor(share * columns) of each row by the scores, and nothing
// else changes. The expert that no token chose stays as it is, and is named.
func TestSparsify(t *testing.T) {
	for name, c := range map[string]*store.Checkpoint{"file": demoModel(t), "folder": opened(t, fixture)} {
		for _, lambda := range []float64{0, 0.08} {
			p, out := observed(t, c), filepath.Join(t.TempDir(), "sparse")
			z, err := compress.Sparsify(t.Context(), c, p, compress.Sparsity{Share: 0.3, Lambda: lambda, Outlier: 3}, compress.Writing{Out: out})
			if err != nil {
				t.Fatal(err)
			}
			small := opened(t, out)
			if len(z.Dead) != 1 || !slices.Equal(z.Dead[1], []int{3}) {
				t.Errorf("%s: dead %v", name, z.Dead)
			}
			zeros, weights, total := int64(0), int64(0), 0.0
			if want := owl(t, c, p, 0.3, lambda); len(want) != len(z.Shares) {
				t.Errorf("%s: shares %v, want %v", name, z.Shares, want)
			} else {
				for layer, s := range want {
					if math.Abs(s-z.Shares[layer]) > 1e-9 {
						t.Errorf("%s: layer %d: share %v, want %v", name, layer, z.Shares[layer], s)
					}
				}
			}
			for layer, lp := range p.Layers {
				total += z.Shares[layer]
				if lambda == 0 && z.Shares[layer] != 0.3 {
					t.Errorf("%s: layer %d: share %v", name, layer, z.Shares[layer])
				}
				for e := range lp.Usage {
					for _, part := range []string{"gate", "up", "down"} {
						columns := lp.Inputs[e]
						if part == "down" {
							columns = lp.Hidden[e]
						}
						cols, was, w := matricesOf(t, c, layer, e, part)
						_, is, v := matricesOf(t, small, layer, e, part)
						weights += int64(len(w))
						if lp.Usage[e] == 0 {
							if !bytes.Equal(was, is) {
								t.Errorf("%s: layer %d: dead expert %d changed", name, layer, e)
							}
							continue
						}
						for row := 0; row < len(w); row += cols {
							n, gone, stays := 0, 0.0, math.Inf(1)
							for i := row; i < row+cols; i++ {
								s := math.Abs(float64(w[i])) * math.Sqrt(columns[i-row])
								switch {
								case v[i] == 0 && w[i] != 0:
									n, gone = n+1, max(gone, s)
								case v[i] != w[i]:
									t.Fatalf("%s: layer %d: expert %d: %v became %v", name, layer, e, w[i], v[i])
								case w[i] == 0:
									n++
								default:
									stays = min(stays, s)
								}
							}
							want := int(z.Shares[layer] * float64(cols))
							if n < want || gone > stays {
								t.Fatalf("%s: layer %d: expert %d: %d zeros, want %d; %v goes and %v stays", name, layer, e, n, want, gone, stays)
							}
							zeros += int64(want)
						}
					}
				}
			}
			if z.Zero != zeros || z.Weights != weights {
				t.Errorf("%s: %d zeros of %d weights, want %d of %d", name, z.Zero, z.Weights, zeros, weights)
			}
			if mean := total / float64(len(p.Layers)); math.Abs(mean-0.3) > 1e-9 {
				t.Errorf("%s: shares %v", name, z.Shares)
			}
			if lambda > 0 && z.Shares[0] == z.Shares[1] && z.Shares[1] == z.Shares[2] {
				t.Errorf("%s: all layers have the share %v", name, z.Shares[0])
			}
			for tensor, x := range c.Tensors {
				if experts := strings.Contains(tensor, "_exps") || strings.Contains(tensor, ".experts."); !experts && !bytes.Equal(x.Data, small.Tensors[tensor].Data) {
					t.Errorf("%s: %s changed", name, tensor)
				}
			}
		}
	}
}

// TestSparsifyRefusals gives profiles and models that do not fit; nothing is left.
func TestSparsifyRefusals(t *testing.T) {
	c := demoModel(t)
	change := func(f func(*compress.Profile)) *compress.Profile {
		p := observed(t, c)
		f(p)
		return p
	}
	half := compress.Sparsity{Share: 0.5}
	for name, r := range map[string]struct {
		p    *compress.Profile
		s    compress.Sparsity
		says string
	}{
		"other model": {change(func(p *compress.Profile) { p.Model = strings.Repeat("0", 64) }), half, "known by 000000000000"},
		"few layers":  {change(func(p *compress.Profile) { p.Layers = p.Layers[:2] }), half, "layer 2 of 8 experts was not observed"},
		"few experts": {change(func(p *compress.Profile) { p.Layers[0].Usage = p.Layers[0].Usage[1:] }), half, "was not observed"},
		"no columns":  {change(func(p *compress.Profile) { p.Layers[0].Hidden = nil }), half, "hidden of 0 experts"},
		"narrow":      {change(func(p *compress.Profile) { p.Layers[0].Inputs[2] = []float64{1} }), half, "expert 2 has 1 columns"},
		"no number":   {change(func(p *compress.Profile) { p.Layers[0].Inputs[2][5] = math.NaN() }), half, "expert 2 is NaN"},
		"negative":    {change(func(p *compress.Profile) { p.Layers[0].Inputs[2][5] = -1 }), half, "expert 2 is -1"},
		"share":       {observed(t, c), compress.Sparsity{Share: 1}, "sparsity 1"},
		"NaN":         {observed(t, c), compress.Sparsity{Share: math.NaN()}, "sparsity NaN"},
		"lambda":      {observed(t, c), compress.Sparsity{Lambda: -1}, "lambda -1"},
	} {
		root := t.TempDir()
		_, err := compress.Sparsify(t.Context(), c, r.p, r.s, compress.Writing{Out: filepath.Join(root, "x")})
		if err == nil || !strings.Contains(err.Error(), r.says) || !strings.Contains(r.says, " of ") && strings.Contains(r.says, "expert") && !errors.Is(err, compress.ErrCalibration) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
	p := &compress.Profile{Layers: []compress.LayerProfile{{Usage: []int64{1, 1, 1}}}}
	const gate = "model.layers.0.mlp.gate.weight"
	for name, r := range map[string]struct {
		w    []store.NewTensor
		says string
	}{
		"stack": {[]store.NewTensor{numbered(gate, 3, 2), numbered("model.layers.0.mlp.experts.up_proj", 3, 2, 2)}, "not known which way round"},
		"empty": {[]store.NewTensor{numbered(gate, 3, 2), numbered("model.layers.0.mlp.experts.2.up_proj.weight", 2, 0)}, "no matrix"},
		"flat":  {[]store.NewTensor{numbered(gate, 3, 2), numbered("model.layers.0.mlp.experts.2.up_proj.weight", 2)}, "no matrix"},
	} {
		dir := folderWith(t, `{"num_experts":3,"num_experts_per_tok":1}`, store.NewSafetensors{Tensors: r.w}, map[string]string{})
		if _, err := compress.Sparsify(t.Context(), opened(t, dir), p, half, compress.Writing{Out: filepath.Join(t.TempDir(), "x")}); err == nil || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSparsifyShared counts the tokens of all router rows that lead to an expert.
func TestSparsifyShared(t *testing.T) {
	c := apply(t, demoModel(t), overlay(map[int]moe.OverlayLayer{1: {Merge: [][]int{{3, 5}}}}), compress.Writing{})
	p := observed(t, c)
	z, err := compress.Sparsify(t.Context(), c, p, compress.Sparsity{Share: 0.5}, compress.Writing{Out: filepath.Join(t.TempDir(), "x")})
	if err != nil {
		t.Fatal(err)
	}
	if want := z.Weights / 2; z.Zero != want {
		t.Errorf("%d zeros of %d weights, want half: row 5 leads to the expert that row 3 was not chosen for", z.Zero, z.Weights)
	}
}
