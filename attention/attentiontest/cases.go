package attentiontest

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// Run checks a device against the references of all ops of attention, that rows stand alone, and that plans which say the same in
// different words give the same bits.
func Run(t *testing.T, d tensor.Device) {
	tensortest.RunCases(t, d, Cases())
	t.Run("coverage", func(t *testing.T) { Coverage(t, d) })
	t.Run("steady", func(t *testing.T) { SteadyQuest(t, d); SteadyGates(t, d) })
}

// Cases are small, and cover page boundaries, ragged batches, head shapes and plans.
func Cases() []tensortest.Case {
	return slices.Concat(windows(), ranges(), appends(), boundaries(), shapes(), ragged(), receipts(), anchors(), antidiagonals(), s2s(), minferences(), flexprefills(), quests(), gates(), shared(), pruned(), lanes())
}

// edges are context lengths at which a page begins or ends.
var edges = []int{1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193}

// one is a batch of one sequence.
func one(past, rows int) Batch { return Batch{[]int{past}, []int{rows}} }

func windows() []tensortest.Case {
	var cases []tensortest.Case
	for rows := 1; rows <= 9; rows++ {
		for width := 1; width <= 9; width++ {
			cases = append(cases, SelectWindow(rows, width))
		}
	}
	return append(cases, SelectWindow(100, 64))
}

// SelectWindow finds where windows start.
func SelectWindow(rows, width int) tensortest.Case {
	return tensortest.Case{Name: tensortest.Labels("window", rows, "x", width), Rows: rows, Make: func(w *tensortest.World) tensortest.Trial {
		o := &attention.SelectWindow{Pos: w.Pick(w.Ints(1, 3*width)), Local: w.Output(quant.I32, 1, 1), N: w.Count(), Width: width}
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.Local}}
	}}
}

func appends() []tensortest.Case {
	var cases []tensortest.Case
	for _, f := range []*quant.Format{quant.F32, quant.F16} {
		for _, n := range edges {
			cases = append(cases, Append(one(n-1, 1), Heads{1, 1, 8, f}), Append(one(0, n), Heads{2, 2, 24, f}))
		}
		for dim := 1; dim <= 9; dim++ {
			for kv := 1; kv <= 3; kv++ {
				cases = append(cases, Append(one(62, 4), Heads{kv, kv, dim, f}))
			}
		}
		cases = append(cases, Append(Batch{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 2}}, Heads{4, 4, 128, f}))
	}
	for _, f := range []*quant.Format{quant.Q8_0, quant.Q4_0} {
		for _, n := range edges {
			cases = append(cases, Append(one(n-1, 1), Heads{1, 1, 32, f}), Append(one(0, n), Heads{2, 2, 96, f}))
		}
		cases = append(cases, Append(Batch{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 2}}, Heads{4, 4, 128, f}))
	}
	return cases
}

// boundaries tries every edge as the end of a context and as the start of a step.
func boundaries() []tensortest.Case {
	var cases []tensortest.Case
	choices := []Choice{Full, FullByBlocks, FullBySink, Itself, Window(64), Window(65), Stream, Mixed(1), Mixed(2)}
	for nth, f := range formats(32) {
		small, odd := 8, 24
		if packed(f) {
			small, odd = 32, 96
		}
		for _, c := range choices {
			for i, n := range edges { // every edge in every format, and every second format in each of two ways
				if (nth+i)%2 == 0 {
					cases = append(cases, Attend(one(n-1, 1), Heads{4, 2, 32, f}, c))
				} else {
					cases = append(cases, Attend(one(n, 3), Heads{2, 2, small, f}, c))
				}
			}
			cases = append(cases, Attend(one(0, 129), Heads{2, 1 + c.Groups%2, odd, f}, c), Attend(one(700, 5), Heads{2, 1, 64, f}, c))
		}
	}
	return cases
}

func shapes() []tensortest.Case {
	var cases []tensortest.Case
	for dim := 1; dim <= 9; dim++ {
		for heads := 1; heads <= 9; heads++ {
			for _, f := range formats(dim) {
				cases = append(cases, Attend(one(66, 2), Heads{heads, 1, dim, f}, Mixed(1)))
			}
			if dim <= 3 {
				cases = append(cases, Attend(one(66, 2), Heads{heads, 1, 32 * dim, quant.Q8_0}, Mixed(1)), Attend(one(66, 2), Heads{heads, 1, 32 * dim, quant.Q4_0}, Mixed(1)))
			}
		}
	}
	for nth, dim := range []int{8, 24, 32, 40, 64, 80, 96, 100, 128, 192, 256} {
		for i, f := range formats(dim) {
			for n, h := range []Heads{{4, 4, dim, f}, {6, 2, dim, f}, {7, 1, dim, f}, {16, 2, dim, f}} { // each reads everything, or some, with the next dimension and format the other
				if (nth+i+n)%2 == 0 {
					cases = append(cases, Attend(one(130, 3), h, Full))
				} else {
					cases = append(cases, Attend(one(200, 9), h, Mixed(h.KV)))
				}
			}
		}
	}
	for nth, dim := range []int{24, 32, 64, 128, 192} {
		for i, f := range formats(dim) {
			for _, stray := range []int{0, 2} {
				cases = append(cases, Attend(one(700, 2), Heads{4, 2, dim, f}, Neighbours(1, 4, stray)), Attend(one(700, 1), Heads{7, 1, dim, f}, Neighbours(1, 1, stray)))
			}
			cases = append(cases, Attend(one(320, 64), Heads{4, 2, dim, f}, Neighbours(64, 2, (nth+i)%2*2))) // rows that share lists
		}
	}
	for _, f := range formats(32) {
		for _, tile := range []int{2, 16, 64} {
			cases = append(cases, Attend(one(150, 37), Heads{4, 2, 32, f}, Tiled(tile)))
		}
		cases = append(cases, Attend(one(6000, 2), Heads{4, 2, 64, f}, Full), Attend(one(5000, 2), Heads{4, 2, 64, f}, Mixed(4)))
	}
	return cases
}

// shared has rows and heads read the same lists, some of them, in steps of whole tiles, of parts of tiles and of single rows.
func shared() []tensortest.Case {
	var cases []tensortest.Case
	for _, f := range formats(32) {
		h, odd := Heads{8, 2, 32, f}, 20
		if packed(f) {
			odd = 96
		}
		for _, each := range []int{1, 2, 8} {
			cases = append(cases, Attend(one(320, 130), h, HeadTiles(64, 8, each)), Attend(one(320, 130), h, Stripes(320, 64, 8, each)),
				Attend(one(1500, 3), h, Stripes(1500, 1, 8, each)), Attend(one(2500, 1), Heads{8, 2, 64, f}, HeadTiles(1, 8, each)))
		}
		cases = append(cases, Attend(one(512, 70), Heads{6, 2, odd, f}, Stripes(512, 16, 6, 3)),
			Attend(Batch{[]int{900, 1300, 40}, []int{1, 1, 1}}, Heads{6, 3, 128, f}, HeadTiles(1, 6, 2)))
	}
	return cases
}

func ragged() []tensortest.Case {
	var cases []tensortest.Case
	batches := []Batch{
		{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 2}},
		{[]int{63, 64, 65, 1, 2000}, []int{1, 1, 1, 1, 1}},
		{[]int{0, 0, 0}, []int{70, 1, 20}},
	}
	for _, b := range batches {
		for _, c := range []Choice{Full, Window(70), Stream, Mixed(2)} {
			for _, f := range formats(32) {
				cases = append(cases, Attend(b, Heads{8, 2, 32, f}, c))
			}
		}
	}
	return cases
}

// Large are the shapes of real models, for benchmarks: decoding deep contexts alone and in a batch, and a chunk of a prompt.
func Large() []tensortest.Case {
	h := Heads{32, 8, 128, quant.F16}
	return []tensortest.Case{
		Attend(one(4095, 1), h, Full),
		Attend(one(4095, 1), Heads{32, 8, 128, quant.F32}, Full),
		Attend(one(4095, 1), Heads{32, 8, 128, quant.Q8_0}, Full),
		Attend(one(4095, 1), Heads{32, 8, 128, quant.Q4_0}, Full),
		Attend(one(4095, 1), Heads{16, 16, 128, quant.F16}, Full),
		Attend(one(4095, 1), h, Mixed(8)),
		Attend(Batch{[]int{900, 1000, 1100, 1200}, []int{1, 1, 1, 1}}, h, Full),
		Attend(one(1024, 128), Heads{8, 2, 128, quant.F16}, Full),
		Attend(one(1024, 128), Heads{8, 2, 128, quant.Q8_0}, Full),
		Append(one(1024, 128), h), Append(one(1024, 128), Heads{32, 8, 128, quant.Q8_0}),
		Attend(one(32767, 1), h, Full),
		KeyBounds(one(32767, 1), h, 16), KeyBounds(one(1024, 128), h, 16),
		SelectQuest(decoding(32767), h, 16, 4096), SelectQuest(decoding(32767), h, 64, 4096),
		GateKeys([]Tile{{0, 127, 1, 1, Own}}, h, Gate{8, 128, quant.BF16}), GateQueries(decoding(32767), h, Gate{8, 128, quant.BF16}),
		SelectPages(decoding(32767), 4, 8, 128, attention.SelectPages{Heads: 8, Knob: 4096, Sink: 1}),
	}
}

// Drawn is a case of random shape.
func Drawn(r *rand.Rand) tensortest.Case {
	var b Batch
	for range 1 + r.IntN(4) {
		b.Past, b.Rows = append(b.Past, r.IntN(400)), append(b.Rows, 1+r.IntN(40))
	}
	kv := 1 + r.IntN(4)
	h := Heads{kv * (1 + r.IntN(8)), kv, 1 + r.IntN(140), []*quant.Format{quant.F32, quant.F16, quant.Q8_0, quant.Q4_0}[r.IntN(4)]}
	if f := formats(h.Dim); !slices.Contains(f, h.Format) {
		h.Dim = 32 * (1 + h.Dim%8)
	}
	attend := Attend
	if r.IntN(3) == 0 {
		attend = AttendLanes
	}
	return attend(b, h, []Choice{Full, Stream, Window(1 + r.IntN(200)), Mixed(1), Mixed(kv)}[r.IntN(5)])
}

// Coverage checks that a plan which lists everything gives the bits of the plan with one range, so that a selector whose budget covers
// the context changes nothing; and that where tiles lie changes nothing either.
func Coverage(t testing.TB, d tensor.Device) {
	t.Helper()
	for _, n := range append(slices.Clone(edges), 1000, 3000) {
		for _, h := range []Heads{{6, 2, 40, quant.F32}, {6, 2, 40, quant.F16}, {6, 2, 32, quant.Q8_0}, {6, 2, 64, quant.Q8_0}, {6, 2, 64, quant.Q4_0}} {
			want := output(t, d, Attend(one(n-1, 1), h, Full))
			if !bytes.Equal(want, output(t, d, AttendLanes(one(n-1, 1), h, Full))) {
				t.Errorf("%d keys, %s: other bits where pages are spread over others", n, h.Format)
			}
			for _, c := range []Choice{FullByBlocks, FullBySink} {
				if !bytes.Equal(want, output(t, d, Attend(one(n-1, 1), h, c))) {
					t.Errorf("%d keys, %s: %s has other bits than one range", n, h.Format, c.Name)
				}
			}
		}
	}
}

func output(t testing.TB, d tensor.Device, c tensortest.Case) []byte {
	t.Helper()
	c.Name = "" // the same operands for all plans
	o := c.Make(c.NewWorld(tensortest.Seed, c.All())).Op.(*attention.Attend)
	p, err := tensortest.Place(d, o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Free()
	p.Queue.Run(o)
	out := p.Read(o.Y)
	if err := p.Queue.Sync(); err != nil {
		t.Fatal(err)
	}
	return out
}
