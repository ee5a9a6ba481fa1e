package tensortest

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// most is up to where shapes are tried one by one.
const most = 9

// Cases are small, and cover every op: all shapes up to 9, then the sizes at which kernels change their ways.
func Cases() []Case {
	return slices.Concat(linears(), norms(), ropes(), angles(), moves(), units(), samples())
}

func linears() []Case {
	var cases []Case
	for rows := 1; rows <= most; rows++ {
		for in := 1; in <= most; in++ {
			for out := 1; out <= most; out++ {
				cases = append(cases, Linear(quant.F32, rows, in, out))
			}
			cases = append(cases, Linear(quant.F16, rows, in, 10-in), Linear(quant.BF16, rows, 10-in, in))
		}
	}
	for _, f := range Formats() {
		for _, in := range []int{32, 64, 96, 256, 576, 768} {
			if !f.Fits(in) {
				continue
			}
			for n := 1; n <= 40; n++ {
				cases = append(cases, Linear(f, (5*n)%33+1, in, n))
			}
			for rows := 1; rows <= 33; rows++ {
				cases = append(cases, Linear(f, rows, in, (7*rows)%40+1))
			}
		}
	}
	// More inputs than a near cache holds at once.
	return append(cases, Linear(quant.F16, 40, 2048, 33), Linear(quant.Q8_0, 80, 2048, 33), Linear(quant.Q4_K, 80, 2048, 33))
}

// Linear is a product with weights of a format; with an odd number of outputs a bias is added.
func Linear(f *quant.Format, rows, in, out int) Case {
	return Case{Labels("linear", f, rows, "x", in, "to", out), rows, func(w *World) Trial {
		o := &tensor.Linear{X: w.Batch(1, in), W: w.Weight(f, out, in), Y: w.Output(quant.F32, 1, out), N: w.Count()}
		if out%2 == 1 {
			o.B = named(w.Floats(1, out))
		}
		return Trial{o, []*tensor.Mat{&o.Y}}
	}}
}

func named(m tensor.Mat) tensor.Mat {
	m.Name = "w"
	return m
}

func norms() []Case {
	var cases []Case
	for rows := 1; rows <= most; rows++ {
		for dim := 1; dim <= most; dim++ {
			for groups := 1; groups <= 3; groups++ {
				cases = append(cases, Norm(rows, groups, dim))
			}
		}
		for _, dim := range []int{15, 16, 17, 31, 33, 64, 100, 128, 576, 2048} {
			cases = append(cases, Norm(rows, 1, dim))
		}
	}
	return cases
}

// Norm is a norm of each group of each row; with an odd number of rows in place.
func Norm(rows, groups, dim int) Case {
	return Case{Labels("norm", rows, "x", groups, "x", dim), rows, func(w *World) Trial {
		o := &tensor.Norm{X: w.Batch(groups, dim), W: named(w.Floats(1, dim)), N: w.Count(), Groups: groups, Eps: 1e-6}
		o.Y = o.X
		if rows%2 == 0 {
			o.Y = w.Output(quant.F32, groups, dim)
		}
		return Trial{o, []*tensor.Mat{&o.Y}}
	}}
}

func ropes() []Case {
	var cases []Case
	for _, pairs := range []tensor.Pairing{tensor.Halves, tensor.Neighbours} {
		for rows := 1; rows <= most; rows++ {
			for half := 1; half <= most; half++ {
				for heads := 1; heads <= 3; heads++ {
					cases = append(cases, Rope(pairs, rows, heads, half))
				}
			}
		}
		for _, half := range []int{12, 16, 32, 33, 64} {
			cases = append(cases, Rope(pairs, 5, 4, half))
		}
	}
	return cases
}

// Rope turns heads of 2*half values; with an odd half a head has three values more, which stay.
func Rope(pairs tensor.Pairing, rows, heads, half int) Case {
	return Case{Labels("rope", pairs, rows, "x", heads, "of", half), rows, func(w *World) Trial {
		o := &tensor.Rope{X: w.Batch(heads, 2*half+3*(half%2)), Angles: w.Batch(1, 2*half), N: w.Count(), Heads: heads, Pairs: pairs}
		return Trial{o, []*tensor.Mat{&o.X}}
	}}
}

func angles() []Case {
	var cases []Case
	for rows := 1; rows <= most; rows++ {
		for half := 1; half <= most; half++ {
			cases = append(cases, Angles(rows, half))
		}
	}
	return append(cases, Angles(3, 32), Angles(33, 64))
}

// Angles is a table for positions up to a long context.
func Angles(rows, half int) Case {
	return Case{Labels("angles", rows, "x", half), rows, func(w *World) Trial {
		freq := make([]float32, half)
		for i := range freq {
			freq[i] = float32(math.Pow(10000, -float64(i)/float64(half)))
		}
		o := &tensor.Angles{
			Pos: w.Pick(w.Ints(1, 1<<18)), Freq: named(tensor.FromF32(1, half, freq)), Y: w.Output(quant.F32, 1, 2*half), N: w.Count(), Scale: 1.25,
		}
		return Trial{o, []*tensor.Mat{&o.Y}}
	}}
}

// moves are the ops that carry rows about.
func moves() []Case {
	var cases []Case
	for rows := 1; rows <= most; rows++ {
		for dim := 1; dim <= most; dim++ {
			cases = append(cases, Gather(rows, dim), Embed(quant.F32, rows, dim), Sum(rows, dim))
		}
	}
	for _, f := range Formats() {
		cases = append(cases, Embed(f, 5, 768))
	}
	return append(cases, Gather(17, 100), Sum(3, 127), Sum(3, 129), Sum(17, 576))
}

// Gather picks from eleven rows.
func Gather(rows, dim int) Case {
	return Case{Labels("gather", rows, "x", dim), rows, func(w *World) Trial {
		o := &tensor.Gather{X: w.Floats(11, dim), Rows: w.Pick(w.Ints(1, 11)), Y: w.Output(quant.F32, 1, dim), N: w.Count()}
		return Trial{o, []*tensor.Mat{&o.Y}}
	}}
}

// Sum adds runs of none to eleven rows to sums begun before.
func Sum(sums, dim int) Case {
	return Case{Labels("sum", sums, "x", dim), sums, func(w *World) Trial {
		const longest = 11
		x, lengths := w.Floats(sums*longest, dim).F32(), w.Ints(1, longest+1).I32()
		var rows []float32
		start := []int32{0}
		for _, i := range w.Picked {
			rows = append(rows, x[i*longest*dim:][:int(lengths[i])*dim]...)
			start = append(start, int32(len(rows)/dim))
		}
		rows = append(rows, slices.Repeat([]float32{float32(math.NaN())}, Spare*dim)...)
		o := &tensor.Sum{
			X: tensor.FromF32(len(rows)/dim, dim, rows), Start: tensor.FromI32(len(start), 1, start), Y: w.Batch(1, dim), N: w.Count(),
		}
		return Trial{o, []*tensor.Mat{&o.Y}}
	}}
}

// Embed looks up a table of 37 rows, which ends within a panel of any width.
func Embed(f *quant.Format, rows, dim int) Case {
	return Case{Labels("embed", f, rows, "x", dim), rows, func(w *World) Trial {
		o := &tensor.Embed{IDs: w.Pick(w.Ints(1, 37)), Table: w.Weight(f, 37, dim), Y: w.Output(quant.F32, 1, dim), N: w.Count()}
		return Trial{o, []*tensor.Mat{&o.Y}}
	}}
}

// units are the ops that work value by value.
func units() []Case {
	var cases []Case
	for rows := 1; rows <= most; rows++ {
		for dim := 1; dim <= most; dim++ {
			cases = append(cases, Add(rows, dim), GLU(rows, dim))
		}
		cases = append(cases, Add(rows, 100), GLU(rows, 100))
	}
	return cases
}

// Add adds rows.
func Add(rows, dim int) Case {
	return Case{Labels("add", rows, "x", dim), rows, func(w *World) Trial {
		o := &tensor.Add{X: w.Batch(1, dim), Y: w.Batch(1, dim), N: w.Count()}
		return Trial{o, []*tensor.Mat{&o.Y}}
	}}
}

// GLU has gates from closed to wide open, and writes over one input or the other or neither.
func GLU(rows, dim int) Case {
	return Case{Labels("glu", rows, "x", dim), rows, func(w *World) Trial {
		gate := w.Floats(rows, dim)
		for i, v := range gate.F32() {
			if i%4 == 3 {
				gate.F32()[i] = 60 * v
			}
		}
		o := &tensor.GLU{Gate: w.Pick(gate), Up: w.Batch(1, dim), N: w.Count()}
		o.Y = []tensor.Mat{o.Gate, o.Up, w.Output(quant.F32, 1, dim)}[(rows+dim)%3]
		return Trial{o, []*tensor.Mat{&o.Y}}
	}}
}

func samples() []Case {
	cases := []Case{Sample(17, 1000), Sample(16, 5003), Sample(6, 4096), Sample(9, 33333)}
	for rows := 1; rows <= most; rows++ {
		for vocab := 1; vocab <= most; vocab++ {
			cases = append(cases, Sample(rows, vocab))
		}
	}
	return cases
}

// Sample has rows of every kind: greedy and not, each step of the chain on and off, ties, ids that nothing can choose, with and without edits and
// log-probabilities.
func Sample(rows, vocab int) Case {
	return Case{Labels("sample", rows, "x", vocab), rows, func(w *World) Trial {
		logits, params, draws := w.Floats(rows, vocab), w.Floats(rows, tensor.SampleParams), w.Ints(tensor.SampleDraws, 1<<30)
		for i := range rows {
			row := logits.F32()[i*vocab : (i+1)*vocab]
			for j := range row {
				switch {
				case i%3 == 2:
					row[j] = float32(w.IntN(3))
				case i%3 == 1:
					row[j] *= 5
				}
				if i%4 == 3 && w.IntN(3) == 0 {
					row[j] = float32([]float64{math.NaN(), math.Inf(-1), -3e38, 0}[w.IntN(4)])
				}
			}
			p, d := params.F32()[i*tensor.SampleParams:], draws.I32()[i*tensor.SampleDraws:]
			p[tensor.Temperature] = []float32{1, 0.7, 0, 2.5, 1e-4, 1}[w.IntN(6)]
			p[tensor.TopK] = []float32{0, 1, 3, 40, 700, 0, 0}[w.IntN(7)]
			p[tensor.TopP] = []float32{1, 0.9, 0.37, 0.999, 1}[w.IntN(5)]
			p[tensor.MinP] = []float32{0, 0.05, 0.3, 0}[w.IntN(4)]
			p[tensor.TypicalP] = []float32{1, 0.8, 0.2, 1, 1}[w.IntN(5)]
			p[tensor.Repetition] = []float32{1, 1.3, 0.5}[w.IntN(3)]
			p[tensor.Presence], p[tensor.Frequency] = float32(w.IntN(3)-1), float32(w.IntN(3)-1)
			d[tensor.Alternatives] = int32(w.IntN(min(vocab, 4)+2)) - 1
		}
		o := &tensor.Sample{
			Logits: w.Pick(logits), Params: w.Pick(params), Draws: w.Pick(draws), N: w.Count(),
			IDs: w.Output(quant.I32, 1, 1), Best: w.Output(quant.I32, 1, 4), Probs: w.Output(quant.F32, 1, 5),
		}
		o.Start, o.Edits, o.Biases = edits(w, vocab)
		return Trial{o, []*tensor.Mat{&o.IDs, &o.Best, &o.Probs}}
	}}
}

// edits are Sample's operands of that name. Every other row of the batch has some, at most one for each third id.
func edits(w *World, vocab int) (start, edits, biases tensor.Mat) {
	rows, bias := make([][]int32, w.Total), make([][]float32, w.Total)
	for i := 1; i < w.Total; i += 2 {
		for id := w.IntN(3); id < vocab && len(bias[i]) < 50; id += 3 {
			seen := w.Int32N(2)
			rows[i] = append(rows[i], int32(id), seen, seen*w.Int32N(3))
			bias[i] = append(bias[i], []float32{0, 1.5, -100}[w.IntN(3)])
		}
	}
	begins, all, added := []int32{0}, []int32{}, []float32{}
	for _, i := range w.Picked {
		all, added = append(all, rows[i]...), append(added, bias[i]...)
		begins = append(begins, int32(len(added)))
	}
	for range Spare {
		begins, added = append(begins, -1), append(added, float32(math.NaN()))
		all = append(all, slices.Repeat([]int32{-1}, tensor.EditColumns)...)
	}
	return tensor.FromI32(len(begins), 1, begins), tensor.FromI32(len(added), tensor.EditColumns, all), tensor.FromF32(len(added), 1, added)
}

// Large are the shapes of real models, for benchmarks: the references take too long for them.
func Large() []Case {
	var cases []Case
	for _, f := range []*quant.Format{quant.BF16, quant.F16, quant.Q4_0, quant.Q8_0, quant.Q4_K, quant.Q6_K} {
		for _, rows := range []int{1, 4, 32} {
			cases = append(cases, Linear(f, rows, 4096, 1536))
		}
	}
	return append(cases, Norm(1, 1, 4096), Norm(128, 1, 4096), Rope(tensor.Halves, 128, 32, 64), Angles(128, 64),
		Embed(quant.Q8_0, 128, 4096), Sum(16, 4096), GLU(128, 4096), Add(128, 4096), Sample(1, 151936), Sample(8, 151936))
}

// Drawn is a case of random shape.
func Drawn(r *rand.Rand) Case {
	rows, dim := 1+r.IntN(40), 1+r.IntN(300)
	fs := Formats()
	f := fs[r.IntN(len(fs))]
	in := (dim + f.Block - 1) / f.Block * f.Block
	switch r.IntN(10) {
	case 0:
		return Norm(rows, 1+r.IntN(4), dim)
	case 1:
		return Rope([]tensor.Pairing{tensor.Halves, tensor.Neighbours}[r.IntN(2)], rows, 1+r.IntN(8), dim)
	case 2:
		return Embed(f, rows, in)
	case 3:
		return Gather(rows, dim)
	case 4:
		return GLU(rows, dim)
	case 5:
		return Sample(rows, dim)
	case 6:
		return Sum(rows, dim)
	}
	return Linear(f, rows, in, 1+r.IntN(100))
}
