package attention

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// What heads say that they keep is what their plans read, page by page, and no less is kept than some row reads that comes late.
func TestKeepsAreWhatPlansRead(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 4))
	for n := range 60 {
		kv := 1 + r.IntN(4)
		heads, local := kv*(1+r.IntN(3)), 1+r.IntN(6)
		s, kind := Setting{Knobs: []float32{float32(local), float32(local + 1)}}, "s2"
		switch n % 3 {
		case 0:
			s.Params = map[string]float64{
				"stride": float64(1 + r.IntN(9)), "offset": float64(r.IntN(9)), "kv": float64(r.IntN(2)), "homo": float64(r.IntN(2)),
				"dense_every": float64(r.IntN(3)), "dense_heads": float64(r.IntN(kv + 1)),
			}
		case 1:
			kind, s.Knobs, s.Params = "streaming", []float32{float32(70 * local), float32(64 * local)}, map[string]float64{"sink": float64(r.IntN(200))}
		default:
			kind, s.Knobs = "duo", []float32{float32(70 * local), float32(64 * local)}
			s.Heads, s.Params = HeadPattern{make([]float64, kv), make([]float64, kv)}, map[string]float64{"threshold": 0.5}
			s.Heads[0][r.IntN(kv)] = 1
		}
		const pages = 40
		e := pagesStep{heads, kv, 2, 0, pages}.env(t)
		sel := prepare(t, e, kind, s)
		for layer := range 2 {
			keeps := sel.Keeps(layer, float32(math.NaN()))
			if wider := sel.Keeps(layer, s.Knobs[layer]+64); len(wider) != kv || kind != "duo" && keeps[0].Stride != 1 && wider[0].Recent <= keeps[0].Recent {
				t.Errorf("%s %v: a knob turned up leaves %+v at %+v", kind, s, keeps[0], wider[0])
			}
			reads := planned(t, e, sel, layer)
			for h, k := range keeps {
				late := map[int]bool{}
				for q := h * heads / kv; q < (h+1)*heads/kv; q++ {
					for page, read := range reads[q] {
						for _, p := range read {
							if p < page-k.Recent && !k.Holds(p) {
								t.Fatalf("%s %v: head %d keeps %+v, page %d reads %d", kind, s, h, k, page, p)
							}
							late[p] = late[p] || page == pages-1
						}
					}
				}
				for p := range pages - 1 - k.Recent {
					if k.Holds(p) && !late[p] {
						t.Fatalf("%s %v: head %d keeps %+v, of which page %d is read by nobody", kind, s, h, k, p)
					}
				}
			}
		}
	}
}

// S2 over pages of which only tiles are left gives the bits of a dense softmax under the mask of its formula.
func TestLanesAreTheMaskedSoftmax(t *testing.T) {
	const heads, kv, dim, pages, stride, local, layers = 4, 2, 8, 14, 3, 2, 2
	r := rand.New(rand.NewPCG(2, 9))
	caches, err := NewCaches(tensor.Reference(), 3*pages, slices.Repeat([]Shape{{Heads: kv, Dim: dim, Format: quant.F32}}, layers))
	if err != nil {
		t.Fatal(err)
	}
	draw := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	q := draw(PageTokens * heads * dim)
	keys, values := make([][]float32, layers*pages*PageTokens*kv), make([][]float32, layers*pages*PageTokens*kv)
	table, at := make([]int32, pages), func(layer, token, head int) int { return (layer*pages*PageTokens+token)*kv + head }
	for token := range pages * PageTokens {
		table[token/PageTokens] = int32(token / PageTokens)
		for layer, c := range caches {
			for h := range kv {
				i := at(layer, token, h)
				keys[i], values[i] = draw(dim), draw(dim)
				c.Put(int32(token/PageTokens), h, token%PageTokens, keys[i], values[i])
			}
		}
	}
	e := pagesStep{heads, kv, layers, pages - 1, pages}.env(t)
	e.Layout.Pages = []tensor.Mat{tensor.FromI32(1, pages, table)}
	sel := prepare(t, e, "s2", Setting{Knobs: []float32{local, local}, Params: map[string]float64{"stride": stride, "dense_every": 0, "kv": 1}})
	scatterTiles(t, e, sel, caches, table)
	for layer, c := range caches {
		for _, o := range sel.At(layer).Select {
			o.Reference()
		}
		y := tensor.FromF32(PageTokens, heads*dim, make([]float32, len(q)))
		op := &Attend{Q: tensor.FromF32(PageTokens, heads*dim, q), Y: y, Cache: c, Plan: e.Plan, Layout: e.Layout, Heads: heads, Scale: 0.3}
		if err := op.Check(nil); err != nil {
			t.Fatal(err)
		}
		op.Reference()
		for row := range PageTokens {
			pos := (pages-1)*PageTokens + row
			for h := range heads {
				scores, top := make([]float64, pos+1), math.Inf(-1)
				for k := range scores {
					scores[k] = math.Inf(-1)
					if i, j := pos/PageTokens, k/PageTokens; i-j < local || (j+h*kv/heads*max(1, stride/kv)+1)%stride == 0 {
						scores[k] = 0
						for d, v := range keys[at(layer, k, h*kv/heads)] {
							scores[k] += float64(q[(row*heads+h)*dim+d]) * float64(v)
						}
						scores[k] *= float64(float32(0.3))
					}
					top = max(top, scores[k])
				}
				sum, total := make([]float64, dim), 0.0
				for k, s := range scores {
					p := math.Exp(s - top)
					total += p
					for d := range sum {
						sum[d] += p * float64(values[at(layer, k, h*kv/heads)][d])
					}
				}
				for d, v := range sum {
					if have, want := y.F32()[(row*heads+h)*dim+d], float32(v/total); have != want {
						t.Fatalf("layer %d, row %d, head %d: %v, want %v", layer, row, h, have, want)
					}
				}
			}
		}
	}
	lost := e.Layout.Lanes.I32()[int(LanesEntry(table[2]))*layers*kv:][:layers*kv]
	copy(lost, []int32{-1, -1, -1, -1})
	var broken *PlanError
	if err := (&Attend{Cache: caches[1], Plan: e.Plan, Layout: e.Layout, Heads: heads}).Check(nil); !errors.As(err, &broken) || broken.Invariant != Kept {
		t.Errorf("a page is read that is not kept: %v", err)
	}
}

// scatterTiles moves what heads keep of the pages that are behind into pages from the first unused one on, and makes these pages NaN.
func scatterTiles(t *testing.T, e *Env, sel *Selector, caches []*Cache, table []int32) {
	t.Helper()
	kv, last := caches[0].Heads, len(table)-1
	var heads []Keep
	for layer := range caches {
		heads = append(heads, sel.Keeps(layer, float32(math.NaN()))...)
	}
	keep, next, moves, rows := NewRetention(heads), len(table)*len(heads), []int32(nil), []int32(nil)
	for page := range keep.Behind(last * PageTokens) {
		kept := 0
		for i := range heads {
			to := int32(-1)
			if heads[i].Holds(page) {
				c := caches[i/kv]
				from := c.TileOf(int32(page), i%kv)
				to = caches[next%len(heads)/kv].TileOf(int32(next/len(heads)), next%kv)
				moves = append(moves, from, to, from+int32(kv), to+int32(kv))
				next, kept = next+1, kept+1
			}
			rows = append(rows, to)
		}
		if kept != keep.Kept(page) {
			t.Fatalf("page %d is kept by %d heads, not %d", page, kept, keep.Kept(page))
		}
		table[page] = LanesEntry(int32(page))
	}
	(&MoveTiles{Tiles: caches[0].All, Moves: tensor.FromI32(len(moves)/2, 2, moves), N: tensor.FromI32(1, 1, []int32{int32(len(moves) / 2)})}).Reference()
	for page := range keep.Behind(last * PageTokens) {
		for _, c := range caches {
			for _, r := range c.Regions() {
				copy(r.Buf.Host()[r.Off+page*r.Stride:][:r.Bytes], slices.Repeat([]byte{0xff}, r.Bytes))
			}
		}
	}
	e.Layout.Pages = []tensor.Mat{tensor.FromI32(1, len(table), table)}
	e.Layout.Lanes = tensor.FromI32(len(rows)/len(heads), len(heads), rows)
}
