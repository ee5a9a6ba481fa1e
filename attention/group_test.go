package attention

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// filled is an Env over the step with queries and keys drawn, each page in a place of its own.
func (s pagesStep) filled(t testing.TB) *Env {
	t.Helper()
	e, r := s.env(t), rand.New(rand.NewPCG(1, 2))
	draw := func(v []float32) {
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
	}
	var err error
	if e.Caches, err = NewCaches(e.Device, s.last, []Shape{{Heads: s.kv, Dim: 8, Format: quant.F32}}); err != nil {
		t.Fatal(err)
	}
	draw(e.Caches[0].K.F32())
	q := make([]float32, e.Q.Rows*e.Q.Cols)
	draw(q)
	e.Q = tensor.FromF32(e.Q.Rows, e.Q.Cols, q)
	table := make([]int32, s.last)
	for i := range table {
		table[i] = int32(s.last - 1 - i)
	}
	e.Layout.Pages = []tensor.Mat{tensor.FromI32(1, s.last, table)}
	e.Scale = 0.35
	return e
}

// at is the place of the first number of a key in a cache.
func (e *Env) at(head, key int) int {
	return e.Caches[0].Tile(e.Layout.Pages[0].I32()[key/PageTokens], head) + KeyAt(8, key%PageTokens, 0)
}

// needle turns a key to where all queries look.
func needle(e *Env, key int) {
	q := e.Q.F32()
	for i := range q {
		if i%8 < 4 {
			q[i] = 3 + q[i]/8
		}
	}
	for h := range e.KV() {
		for d := range 4 {
			e.Caches[0].K.F32()[e.at(h, key)+d*stripKeys] = 4
		}
	}
}

// Pages that stand beside whole groups read everything. Groups are of two pages here.
func TestOnlyWholeGroupsAreSparse(t *testing.T) {
	s := Setting{Params: map[string]float64{"group": 128, "columns": 30, "diagonals": 50}}
	for _, step := range []pagesStep{{2, 1, 1, 5, 12}, {2, 1, 1, 6, 9}, {2, 1, 1, 7, 8}, {2, 1, 1, 8, 10}} {
		e := step.filled(t)
		planned(t, e, prepare(t, e, "minference", s), 0)
		for page := step.first; page < step.last; page++ {
			want := page * PageTokens
			if page%2 == 0 && page+1 == step.last || page%2 == 1 && page == step.first {
				want = 0
			}
			if have := int(e.Plan.Local.I32()[(page-step.first)*2]); have != want {
				t.Errorf("of pages %d to %d, %d is local from %d, want %d", step.first, step.last, page, have, want)
			}
		}
	}
}

// The needle becomes a single key, beside the first 30, and the nearest 100 keys two blocks.
func TestColumnsOfMInference(t *testing.T) {
	e := pagesStep{4, 2, 1, 8, 16}.filled(t)
	needle(e, 209)
	planned(t, e, prepare(t, e, "minference", Setting{Params: map[string]float64{"group": 128, "columns": 31, "diagonals": 100}}), 0)
	var want []int32
	for k := range int32(30) {
		want = append(want, k)
	}
	want = append(want, 209)
	for r := range e.Plan.rows() {
		if page := int32(8 + r/4); !slices.Equal(e.Plan.single(r), want) || !slices.Equal(e.Plan.blocks(r), []int32{page - 2, page - 1}) {
			t.Fatalf("page %d reads keys %v and blocks %v", page, e.Plan.single(r), e.Plan.blocks(r))
		}
	}
}

// Where queries look at what is 300 keys before them, the blocks 4 and 5 pages before a page are read, beside those of the nearest 100.
func TestSlashesOfMInference(t *testing.T) {
	e := pagesStep{1, 1, 1, 8, 16}.filled(t)
	for i, pos := range e.Layout.Pos.I32() {
		for d := range 8 {
			e.Caches[0].K.F32()[e.at(0, int(pos)-300)+d*stripKeys] = 2 * e.Q.F32()[i*8+d]
		}
	}
	planned(t, e, prepare(t, e, "minference", Setting{Params: map[string]float64{"group": 128, "columns": 30, "diagonals": 101}}), 0)
	for r := range e.Plan.rows() {
		if p := int32(8 + r); !slices.Equal(e.Plan.blocks(r), []int32{p - 5, p - 4, p - 2, p - 1}) {
			t.Fatalf("page %d reads blocks %v", p, e.Plan.blocks(r))
		}
	}
}

// A page of which more than half is chosen is read as a block.
func TestLinesOf(t *testing.T) {
	var columns []int32
	for k := range int32(33) {
		columns = append(columns, 64+k)
	}
	columns = append(columns, 130, 200, 300)
	blocks, keys := linesOf(4, columns, []bool{true, false, false, false, true})
	if !slices.Equal(blocks, []int32{0, 1}) || !slices.Equal(keys, []int32{130, 200}) {
		t.Errorf("blocks %v, keys %v", blocks, keys)
	}
}

// Under both patterns of FlexPrefill every block of queries reads the first block of keys, its own, and the needle's.
func TestNeedleOfFlexPrefill(t *testing.T) {
	for _, tau := range []float64{0, 1} {
		e := pagesStep{4, 2, 1, 12, 20}.filled(t)
		for k := range 128 { // all of a block, or its mean says nothing
			needle(e, 4*PageTokens+k)
		}
		s := Setting{Knobs: []float32{0.3}, Params: map[string]float64{"group": 256, "budget": 256, "tau": tau}}
		for h, rows := range planned(t, e, prepare(t, e, "flexprefill", s), 0) {
			for i, have := range rows {
				page := 12 + i
				for _, b := range []int{0, 1, 4, 5, page / 2 * 2, page} {
					if !slices.Contains(have, b) {
						t.Fatalf("tau %v, head %d: page %d reads %v, without %d", tau, h, page, have, b)
					}
				}
				if len(have) == page+1 {
					t.Fatalf("tau %v, head %d: page %d reads everything", tau, h, page)
				}
			}
		}
	}
}

// A larger knob reads what a smaller one reads, the largest everything.
func TestKnobsOfGroups(t *testing.T) {
	for _, c := range []struct {
		kind   string
		params map[string]float64
	}{
		{"minference", map[string]float64{"group": 128, "columns": 30, "diagonals": 50}},
		{"flexprefill", map[string]float64{"group": 256, "budget": 0, "tau": 0}},
		{"flexprefill", map[string]float64{"group": 256, "budget": 0, "tau": 1}},
	} {
		k, before, least := KindOf(c.kind), map[[2]int]bool{}, 0
		for _, knob := range []float32{0.1, 0.4, 0.7, 0.9, float32(k.Knob.Max)} {
			e := pagesStep{4, 2, 1, 8, 16}.filled(t)
			planned(t, e, prepare(t, e, c.kind, Setting{Knobs: []float32{knob}, Params: c.params}), 0)
			reads := map[[2]int]bool{} // plan row, key
			for r := range e.Plan.rows() {
				e.Plan.keys(r, (8+r/4)*PageTokens, func(key int) { reads[[2]int{r, key}] = true })
			}
			for at := range before {
				if !reads[at] {
					t.Fatalf("%s %v: %v leaves away key %d of plan row %d, which a smaller knob reads", c.kind, c.params, knob, at[1], at[0])
				}
			}
			if before = reads; least == 0 {
				least = len(reads)
			}
		}
		if all := 4 * (8*64*(8+15)/2 + 8); len(before) != all || least > all/2 {
			t.Errorf("%s %v: from %d to %d of %d keys", c.kind, c.params, least, len(before), all)
		}
	}
}

// The first of some positions' runs speaks for the others in a head where it would read everything: then they do, though by themselves they would
// look at single keys. Where it leaves something away, each speaks for itself.
func TestFirstRunIsAskedForOthers(t *testing.T) {
	for kind, knob := range map[string]float32{"xattention": 0.9, "anchor": 12} {
		for _, c := range []struct {
			lead, even int // positions; the page in which all queries look at everything alike
			whole      []int
		}{
			{64, 8, []int{8}}, {256, 8, []int{8, 9, 10, 11}}, {256, 9, []int{9}}, {512, 8, []int{8, 9, 10, 11}},
		} {
			e := pagesStep{2, 1, 1, 8, 12}.filled(t)
			for i := range e.Q.F32() {
				if page := 8 + i/e.Q.Cols/PageTokens; page == c.even {
					e.Q.F32()[i] = 0
				} else {
					e.Q.F32()[i] *= 100
				}
			}
			planned(t, e, prepare(t, e, kind, Setting{Knobs: []float32{knob}, Params: map[string]float64{"lead": float64(c.lead)}}), 0)
			for page := 8; page < 12; page++ {
				for h := range 2 {
					if whole := e.Plan.Local.I32()[(page-8)*2+h] == 0; whole != slices.Contains(c.whole, page) {
						t.Errorf("%s, %+v: page %d, head %d: everything is read: %v", kind, c, page, h, whole)
					}
				}
			}
		}
	}
}
