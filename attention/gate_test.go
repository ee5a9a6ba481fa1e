package attention

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// The gate of the golden example: one key-value head of four channels with two query heads.
var (
	goldenPages = [][][]float32{{{1, 0, 0, 1}, {3, -2, 0, 1}}, {{0, 1, 2, -1}, {0, 3, -2, 1}}}
	goldenQuery = []float32{1, 1, 0, 0, 1, -1, 2, 0}
	ones        = tensor.FromF32(1, 4, []float32{1, 1, 1, 1})
)

// diagonal is matrices of four rows one under another, each a multiple of one.
func diagonal(factors ...float32) tensor.Mat {
	m := tensor.FromF32(4*len(factors), 4, make([]float32, 16*len(factors)))
	for i := range m.Rows {
		m.F32()[i*4+i%4] = factors[i/4]
	}
	return m
}

func golden(freq ...float32) Rotation {
	return Rotation{Freq: tensor.FromF32(1, len(freq), freq), Scale: 1, Pairs: tensor.Halves}
}

func near(t *testing.T, what string, have, want []float32, within float64) {
	t.Helper()
	for i, v := range want {
		if !(math.Abs(float64(have[i]-v)) <= within) {
			t.Errorf("%s is %v, want %v", what, have, want)
			return
		}
	}
}

// Pages of two keys, as the example has them.
func TestGateOfTwoKeysAPage(t *testing.T) {
	wk, wq, turn := diagonal(0.5, 0, 1), diagonal(0.5, 0.5), golden(1, 0.01)
	var keys [][]float32
	for j, want := range [][]float32{{1.778002, -0.508, 0, 0.762001}, {-0.494959, 1.899334, -0.226522, 0.310212}} {
		pools := pool(goldenPages[j])
		near(t, "the pool", pools, [][]float32{{3, 0, 0, 1, 1, -2, 0, 1, 2, -1, 0, 1}, {0, 3, 2, 1, 0, 1, -2, -1, 0, 2, 0, 0}}[j], 0)
		k := project(pools, &wk, 0)
		near(t, "the projection", k, [][]float32{{3.5, -1, 0, 1.5}, {0, 3.5, 1, 0.5}}[j], 0)
		finish(k, &ones, &turn, 2*j)
		near(t, "the key", k, want, 1e-6)
		keys = append(keys, k)
	}
	q := project(goldenQuery, &wq, 0)
	finish(q, &ones, &turn, 5)
	near(t, "the query", q, []float32{1.757281, 0, -0.954964, 0}, 1e-6)
	var scores []float32
	for _, k := range keys {
		scores = append(scores, q[0]*k[0]+q[1]*k[1]+q[2]*k[2]+q[3]*k[3])
	}
	near(t, "the score", []float32{scores[0] / 2, scores[1] / 2}, []float32{1.562224, -0.326731}, 1e-6)
	for threshold, want := range map[float32][]int32{0.13: {0, 1}, 0.1314: {0}, 0.868: {0}, 0.869: nil} {
		if have := likely(scores, 0.5, threshold); !slices.Equal(have, want) {
			t.Errorf("above %v are %v, want %v", threshold, have, want)
		}
	}
}

// The same by the ops: pages hold the two keys 32 times, and turn 32 times as slowly.
func TestGateOfWholePages(t *testing.T) {
	column := func(v ...int32) tensor.Mat { return tensor.FromI32(len(v), 1, v) }
	caches, err := NewCaches(tensor.Reference(), 3, []Shape{{Heads: 1, Dim: 4, Format: quant.F32}})
	if err != nil {
		t.Fatal(err)
	}
	for j, page := range []int32{2, 0} {
		for i := range 4 * PageTokens {
			slot, d := i%PageTokens, i/PageTokens
			caches[0].K.F32()[caches[0].Tile(page, 0)+KeyAt(4, slot, d)] = goldenPages[j][i%2][d]
		}
	}
	turn := golden(1./32, 0.01/32)
	l := &Layout{Pages: []tensor.Mat{tensor.FromI32(1, 3, []int32{2, 0, 1})}, Seq: column(0, 0, 0), Pos: column(63, 127, 160), Rows: column(3), Prompt: column(1),
		Tiles: Tiles{Of: column(0, 1, 2), First: column(0, 1, 2, 3), N: column(3), Policy: column(0, 0, 1), Knob: tensor.FromF32(3, 1, make([]float32, 3))}}
	keys := &GateKeys{Cache: caches[0], W: diagonal(0.5, 0, 1), Norm: ones, Keys: tensor.HostMat("", quant.F16, 3, 4, make([]byte, 24)), Gate: turn, Layout: l, Serves: 1}
	keys.Reference()
	key := make([]float32, 4)
	keys.Keys.RowF32(key, 2)
	near(t, "the first page's key", key, []float32{1.778002, -0.508, 0, 0.762001}, 1e-3)
	keys.Keys.RowF32(key, 0)
	near(t, "the second page's key", key, []float32{-0.494959, 1.899334, -0.226522, 0.310212}, 1e-3)
	queries := &GateQueries{Q: tensor.FromF32(3, 8, slices.Concat(make([]float32, 16), goldenQuery)), W: diagonal(0.5, 0.5), Norm: ones,
		Y: tensor.FromF32(3, 4, make([]float32, 12)), Gate: turn, Layout: l, Serves: 1, Heads: 1, Whole: 1}
	queries.Reference()
	near(t, "the query", queries.Y.F32()[8:], []float32{1.757281, 0, -0.954964, 0}, 1e-6)
	p, err := NewPlan(tensor.Reference(), &l.Tiles, 2, 3, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sink  int
		share float32
		want  string
	}{{0, 0.13, "0 128 [0 1]"}, {0, 0.5, "0 128 [0]"}, {1, 0.5, "64 128 []"}, {1, 0.13, "64 128 [1]"}} {
		o := &SelectPages{Queries: queries.Y, Keys: keys.Keys, Plan: p, Layout: l, Heads: 1, KeyHeads: 1, Serves: 1, Rule: ByShare, Fixed: c.share, Scale: 0.5, Sink: c.sink}
		o.Reference()
		for r := 4; r < 6; r++ {
			if have := fmt.Sprint(p.Sink.I32()[r], p.Local.I32()[r], p.blocks(r)); have != c.want {
				t.Errorf("above %v, sink %d: %s, want %s", c.share, c.sink, have, c.want)
			}
		}
	}
}

// A cached key turned back is the key before it was turned.
func TestTurningBack(t *testing.T) {
	for _, pairs := range []tensor.Pairing{tensor.Halves, tensor.Neighbours} {
		r := Rotation{Freq: tensor.FromF32(1, 2, []float32{1, 0.3}), Scale: 1.5, Pairs: pairs}
		before := []float32{1, -2, 3, 0.5, 7}
		x, angles := tensor.FromF32(1, 5, slices.Clone(before)), tensor.FromF32(1, 4, make([]float32, 4))
		(&tensor.Angles{Pos: tensor.FromI32(1, 1, []int32{77}), Freq: r.Freq, Y: angles, Scale: r.Scale}).Reference()
		(&tensor.Rope{X: x, Angles: angles, Heads: 1, Pairs: pairs}).Reference()
		ahead := slices.Clone(before)
		r.turn(ahead, 77, 1)
		near(t, string(pairs), ahead, x.F32(), 1e-5)
		r.turn(x.F32(), 77, -1)
		near(t, string(pairs), x.F32(), before, 1e-5)
	}
}

// A share of what a prompt of 128 pages may read takes 1 - sqrt(1 - share) of each row.
func TestRatioCountsTheCausalArea(t *testing.T) {
	for share, want := range map[float32]int{0.1: 6, 0.2: 13, 0.5: 37, 0.001: 1} {
		o := &SelectPages{Rule: ByRatio, Fixed: share, Layout: &Layout{Seq: tensor.FromI32(1, 1, []int32{0}), Prompt: tensor.FromI32(1, 1, []int32{8190})}}
		if have := len(o.choose(make([]float32, 128), 0, 0)); have != want {
			t.Errorf("%v of 128 pages are %d a row, want %d", share, have, want)
		}
	}
}

func TestGatesOfOtherWidths(t *testing.T) {
	caches, err := NewCaches(tensor.Reference(), 1, []Shape{{Heads: 1, Dim: 8, Format: quant.F16}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		freq  []float32
		width int
		want  []float32
		wrong string
	}{
		{[]float32{1, 0.1, 0.02, 0.001}, 8, []float32{1, 0.1, 0.02, 0.001}, ""},
		{[]float32{1, 0.1, 0.01, 0.001}, 4, []float32{1, 0.01}, ""},
		{[]float32{1, 0.1, 0.02, 0.001}, 4, nil, "follow no base"},
		{[]float32{1, 0.1}, 4, nil, "follow no base"},
	} {
		have, err := gateFreq(&Env{Freq: c.freq, Caches: caches}, c.width)
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%v for width %d: %v", c.freq, c.width, err)
		}
		if len(have) != len(c.want) {
			t.Errorf("%v for width %d: %v, want %v", c.freq, c.width, have, c.want)
			continue
		}
		near(t, "the frequencies", have, c.want, 1e-6)
	}
}

func TestGatesMustBeThere(t *testing.T) {
	l := &Layout{Tiles: Tiles{Policy: tensor.FromI32(2, 1, []int32{0, 0})}}
	p, err := NewPlan(tensor.Reference(), &l.Tiles, 4, 64, 1)
	if err != nil {
		t.Fatal(err)
	}
	caches, err := NewCaches(tensor.Reference(), 8, []Shape{{Heads: 2, Dim: 4, Format: quant.F16}})
	if err != nil {
		t.Fatal(err)
	}
	e := &Env{Device: tensor.Reference(), Layout: l, Plan: p, Caches: caches, Heads: 4, Pages: 8, Context: 512, Freq: []float32{1, 0.1}, Turn: 1, Pairs: tensor.Halves,
		Q: tensor.FromF32(1, 16, make([]float32, 16))}
	m := func(rows int) tensor.Mat { return tensor.FromF32(rows, 4, make([]float32, 4*rows)) }
	for _, c := range []struct {
		kind  string
		gates []Gate
		wrong string
	}{
		{"seer_decode", nil, "0 layers have trained gates, want all 1"},
		{"seer_decode", []Gate{{}}, "no key projection"},
		{"seer_decode", []Gate{{Key: m(24)}}, "no query projection"},
		{"seer_decode", []Gate{{Key: m(24), Query: m(15)}}, "want 16 x 4"},
		{"seer_decode", []Gate{{Key: m(24), Query: m(16), KeyNorm: m(2)}}, "norm of layer 0"},
		{"seer_decode", []Gate{{Key: m(24), Query: m(16)}}, ""},
		{"seer", []Gate{{Key: m(24)}}, "want 48 x 4"},
		{"seer", []Gate{{Key: m(48)}}, ""},
		{"seer", []Gate{{Key: m(24), Query: m(16)}}, ""},
	} {
		k := KindOf(c.kind)
		_, err := k.New(k, e, Setting{Gates: c.gates})
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s with %v: %v, want %q", c.kind, c.gates, err, c.wrong)
		}
	}
}
