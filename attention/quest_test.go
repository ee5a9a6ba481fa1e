package attention

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Two query heads share a key-value head of two channels. Units of 32 keys have the bounds 1, 5, -1 and 3 for the first query and 1, 0, 4 and
// -2 for the second.
func TestQuestChoosesByTheLargestBoundOfAGroup(t *testing.T) {
	column := func(v ...int32) tensor.Mat { return tensor.FromI32(len(v), 1, v) }
	for budget, want := range map[float32]string{
		64:  "0 128 [] [32..95]",  // units 1 and 2
		100: "0 128 [1] [32..63]", // and 3
		122: "0 128 [1] [32..63]",
		123: "0 0 [] []", // less than an eighth of the context is left out
		150: "0 0 [] []", // the context fits
	} {
		l := &Layout{Pages: []tensor.Mat{tensor.FromI32(1, 3, []int32{1, 0, 2})}, Seq: column(0), Pos: column(140), Rows: column(1), Tiles: Tiles{
			Of: column(0), First: column(0, 1), N: column(1), Policy: column(7), Knob: tensor.FromF32(1, 1, []float32{budget})}}
		p, err := NewPlan(tensor.Reference(), &l.Tiles, 2, 2, 64)
		if err != nil {
			t.Fatal(err)
		}
		o := &SelectQuest{Q: tensor.FromF32(1, 4, []float32{1, -1, -1, 0}), Plan: p, Layout: l, Heads: 2, KV: 1, Unit: 32, Serves: 7, Budget: 1,
			Bounds: tensor.FromF32(2, 8, []float32{
				-4, 2, 1, -1, 0, 2, 1, 5, // page 1: least of units 2 and 3 in channel 0, in channel 1; largest likewise
				-1, 0, 0, -2, 1, 3, 2, 0, // page 0
			})}
		o.Reference()
		for r := range 2 {
			have := fmt.Sprint(p.Sink.I32()[r], p.Local.I32()[r], p.blocks(r), spans(p.single(r)))
			if have != want {
				t.Errorf("a budget of %v reads %q in head %d, want %q", budget, have, r, want)
			}
		}
		if err := p.Check(l, 2); err != nil {
			t.Error(err)
		}
	}
}

// spans says which runs of neighbours a list holds.
func spans(list []int32) (out []string) {
	for i, end := 0, 0; i < len(list); i = end {
		for end = i + 1; end < len(list) && list[end] == list[end-1]+1; end++ {
		}
		out = append(out, fmt.Sprint(list[i], "..", list[end-1]))
	}
	return out
}

func TestQuestRefusesWhatItCannotKeep(t *testing.T) {
	l := &Layout{Tiles: Tiles{Policy: tensor.FromI32(1, 1, []int32{0})}}
	p, err := NewPlan(tensor.Reference(), &l.Tiles, 4, 8, 32)
	if err != nil {
		t.Fatal(err)
	}
	caches, err := NewCaches(tensor.Reference(), 8, []Shape{{Heads: 2, Dim: 8, Format: quant.F16}, {Heads: 2, Dim: 8, Format: quant.F16}, {Heads: 2, Dim: 8, Format: quant.F16}})
	if err != nil {
		t.Fatal(err)
	}
	e := &Env{Device: tensor.Reference(), Layout: l, Plan: p, Caches: caches, Q: tensor.FromF32(1, 32, make([]float32, 32)), Heads: 4, Pages: 8, Context: 512}
	k := KindOf("quest")
	for _, c := range []struct {
		budget, unit float64
		wrong        string
	}{{64, 16, ""}, {80, 16, "no room"}, {80, 64, ""}, {64, 48, "does not fill a page"}} {
		s := Setting{Knobs: slices.Repeat([]float32{float32(c.budget)}, 3), Params: map[string]float64{"unit": c.unit}}
		q, err := k.New(k, e, s)
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("a budget of %v in units of %v: %v, want %q", c.budget, c.unit, err, c.wrong)
		}
		if err != nil {
			continue
		}
		if n := len(q.At(1).Append); n != 0 {
			t.Errorf("the second layer is dense and has %d ops that append", n)
		}
		if n := len(q.At(2).Append); n != 1 {
			t.Errorf("the third layer has %d ops that append", n)
		}
	}
}
