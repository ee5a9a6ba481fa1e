package attention

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// pagesStep is a step of one sequence whose rows fill pages first to last, last excluded, under one policy.
type pagesStep struct{ heads, kv, layers, first, last int }

// env is an Env over the step, with one tile a page, whose caches have no pages.
func (s pagesStep) env(t testing.TB) *Env {
	t.Helper()
	first, last := s.first, s.last
	var pos, of, firsts, policy []int32
	var knobs []float32
	for p := first; p < last; p++ {
		firsts, policy, knobs = append(firsts, int32(len(pos))), append(policy, 0), append(knobs, float32(0)/zero)
		for i := range PageTokens {
			pos, of = append(pos, int32(p*PageTokens+i)), append(of, int32(p-first))
		}
	}
	n := len(pos)
	l := &Layout{Pos: tensor.FromI32(n, 1, pos), Seq: tensor.FromI32(n, 1, make([]int32, n)), Rows: tensor.FromI32(1, 1, []int32{int32(n)})}
	tiles := len(policy)
	l.Tiles = Tiles{
		Of: tensor.FromI32(n, 1, of), First: tensor.FromI32(tiles+1, 1, append(firsts, int32(n))), N: tensor.FromI32(1, 1, []int32{int32(tiles)}),
		Policy: tensor.FromI32(tiles, 1, policy), Knob: tensor.FromF32(tiles, 1, knobs),
	}
	d := tensor.Reference()
	plan, err := NewPlan(d, &l.Tiles, s.heads, last, 4096)
	if err != nil {
		t.Fatal(err)
	}
	e := &Env{Device: d, Layout: l, Plan: plan, Heads: s.heads, Context: last * PageTokens, Q: tensor.Mat{Rows: n, Cols: s.heads * 8, Format: quant.F32}}
	for range s.layers {
		e.Caches = append(e.Caches, &Cache{Heads: s.kv, Dim: 8})
	}
	return e
}

var zero float32 // divides to NaN

// planned is what each page of an Env reads of the pages before it and its own, by head, after a layer's ops have run.
func planned(t testing.TB, e *Env, s *Selector, layer int) (reads [][][]int) {
	t.Helper()
	for _, o := range s.At(layer).Select {
		o.Reference()
	}
	if err := e.Plan.Check(e.Layout, e.Heads); err != nil {
		t.Fatal(err)
	}
	for h := range e.Heads {
		var rows [][]int
		for tile := range e.Layout.Tiles.Policy.Rows {
			var blocks []int
			last := int(e.Layout.Tiles.First.I32()[tile+1]) - 1
			e.Plan.keys(e.Plan.row(last, h, e.Heads), int(e.Layout.Pos.I32()[last]), func(k int) {
				if k%PageTokens == 0 {
					blocks = append(blocks, k/PageTokens)
				}
			})
			slices.Sort(blocks)
			rows = append(rows, blocks)
		}
		reads = append(reads, rows)
	}
	return reads
}

func prepare(t testing.TB, e *Env, kind string, s Setting) *Selector {
	t.Helper()
	k := KindOf(kind)
	if err := k.Check(s); err != nil {
		t.Fatal(err)
	}
	sel, err := k.New(k, e, s)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

func TestS2Golden(t *testing.T) {
	e := pagesStep{4, 4, 1, 0, 8}.env(t)
	columns := map[int]string{0: "0 4|3 7|2 6|1 5", 1: "3 7|2 6|1 5|0 4"}
	for offset, want := range columns {
		s := Setting{Params: map[string]float64{"stride": 4, "offset": float64(offset)}}
		var have []string
		for _, c := range s2Columns(KindOf("s2"), e, s, 0) {
			have = append(have, fmt.Sprint(c, " ", c+4))
		}
		if got := strings.Join(have, "|"); got != want {
			t.Errorf("offset %d: columns %s, want %s", offset, got, want)
		}
	}
	s := Setting{Knobs: []float32{2}, Params: map[string]float64{"stride": 4, "offset": 0}}
	want := [][]int{{0}, {0, 1}, {1, 2}, {2, 3}, {3, 4}, {3, 4, 5}, {3, 5, 6}, {3, 6, 7}}
	if have := planned(t, e, prepare(t, e, "s2", s), 0)[1]; !slices.EqualFunc(have, want, slices.Equal) {
		t.Errorf("head 1 reads %v, want %v", have, want)
	}
}

// What is planned is what the formula says, for all variants; and what a page reads is the same whatever step computes it.
func TestS2IsItsFormula(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for range 60 {
		kv := 1 + r.IntN(4)
		heads, stride, offset, local := kv*(1+r.IntN(4)), 1+r.IntN(20), r.IntN(30), 1+r.IntN(6)
		byKV, homo, dense, every := r.IntN(2), r.IntN(2), r.IntN(kv+1), r.IntN(4)
		s := Setting{Knobs: []float32{float32(local), float32(local)}, Params: map[string]float64{
			"stride": float64(stride), "offset": float64(offset), "homo": float64(homo), "kv": float64(byKV),
			"dense_heads": float64(dense), "dense_every": float64(every),
		}}
		first := r.IntN(30)
		e := pagesStep{heads, kv, 2, first, first + 10}.env(t)
		sel := prepare(t, e, "s2", s)
		for layer := range 2 {
			for h, rows := range planned(t, e, sel, layer) {
				group := h / (heads / kv)
				index, of := h, heads
				if byKV == 1 {
					index, of = group, kv
				}
				if homo == 1 {
					index = 0
				}
				all := group >= kv-dense || every > 0 && (layer+1)%every == 0
				for at, have := range rows {
					i := first + at
					var want []int
					for j := range i + 1 {
						if all || i-j < local || (j+index*max(1, stride/of)+offset)%stride == 0 {
							want = append(want, j)
						}
					}
					if !slices.Equal(have, want) {
						t.Fatalf("%v, %d heads on %d, layer %d head %d page %d: reads %v, want %v", s, heads, kv, layer, h, i, have, want)
					}
				}
			}
		}
	}
}

// The heads together read everything, as soon as there are as many as the stride is long.
func TestS2HeadsCoverEverything(t *testing.T) {
	for stride := 1; stride <= 8; stride++ {
		e := pagesStep{8, 2, 1, 30, 31}.env(t)
		s := Setting{Knobs: []float32{1}, Params: map[string]float64{"stride": float64(stride), "dense_every": 0}}
		seen := map[int]bool{}
		for _, rows := range planned(t, e, prepare(t, e, "s2", s), 0) {
			for _, b := range rows[0] {
				seen[b] = true
			}
		}
		if len(seen) != 31 {
			t.Errorf("stride %d: %d of 31 pages are read", stride, len(seen))
		}
	}
}

// A local range over the whole past is the plan with one range.
func TestS2OfShortContextsIsDense(t *testing.T) {
	e := pagesStep{4, 2, 1, 0, 16}.env(t)
	planned(t, e, prepare(t, e, "s2", Setting{}), 0)
	for r := range e.Plan.rows() {
		if e.Plan.Local.I32()[r] != 0 || e.Plan.BlockN.I32()[r] != 0 {
			t.Fatalf("plan row %d: local %d, %d blocks", r, e.Plan.Local.I32()[r], e.Plan.BlockN.I32()[r])
		}
	}
}
