package attentiontest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// walk takes one sequence through a selector of one layer, some rows a step, as a model would.
type walk struct {
	t      testing.TB
	device tensor.Device
	queue  tensor.Queue
	env    *attention.Env
	steps  attention.Steps
	append attention.Append
	v      tensor.Mat
	angles tensor.Angles
	ropes  []tensor.Op
	tale
	told   map[uint64]tale // by seed
	prompt int             // tokens of it
	phases attention.Phases
}

// walkRoom is the longest step and the longest sequence of a walk.
const walkRoom, walkContext = 256, 1024

var walkHeads = Heads{4, 2, 16, quant.F16}

// newWalk makes a layer with cache, plan and selector. Pages lie backwards.
func newWalk(t testing.TB, d tensor.Device, kind string, s attention.Setting, prompt int) *walk {
	t.Helper()
	h := walkHeads
	w := &walk{t: t, device: d, queue: d.Queue(), prompt: prompt, told: map[uint64]tale{}}
	caches, err := attention.NewCaches(d, walkContext/page, []attention.Shape{{Heads: h.KV, Dim: h.Dim, Format: h.Format}})
	if err != nil {
		t.Fatal(err)
	}
	lay := &attention.Layout{Pages: []tensor.Mat{w.mat(quant.I32, 1, walkContext/page)}, Prompt: w.mat(quant.I32, 1, 1), Seq: w.mat(quant.I32, walkRoom, 1),
		Pos: w.mat(quant.I32, walkRoom, 1), Rows: w.mat(quant.I32, 1, 1)}
	lay.Tiles = attention.Tiles{Of: w.mat(quant.I32, walkRoom, 1), First: w.mat(quant.I32, walkRoom+1, 1), N: w.mat(quant.I32, 1, 1),
		Policy: w.mat(quant.I32, walkRoom, 1), Knob: w.mat(quant.F32, walkRoom, 1)}
	plan, err := attention.NewPlan(d, &lay.Tiles, h.Query, walkContext/page, walkContext)
	if err != nil {
		t.Fatal(err)
	}
	freq := []float32{1, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125}
	w.env = &attention.Env{Device: d, Layout: lay, Plan: plan, Caches: caches, Q: w.mat(quant.F32, walkRoom, h.Query*h.Dim),
		K: w.mat(quant.F32, walkRoom, h.KV*h.Dim), Heads: h.Query, Scale: 0.25, Pages: walkContext / page, Context: walkContext,
		Freq: freq, Turn: 1.25, Pairs: tensor.Halves}
	w.v = w.mat(quant.F32, walkRoom, h.KV*h.Dim)
	table := make([]int32, walkContext/page)
	for i := range table {
		table[i] = int32(len(table) - 1 - i)
	}
	w.write(lay.Pages[0], table)
	w.angles = tensor.Angles{Pos: lay.Pos, Freq: w.mat(quant.F32, 1, len(freq)), Y: w.mat(quant.F32, walkRoom, 2*len(freq)), N: lay.Rows, Scale: 1.25}
	w.write(w.angles.Freq, freq)
	for m, heads := range map[tensor.Mat]int{w.env.Q: h.Query, w.env.K: h.KV} {
		w.ropes = append(w.ropes, &tensor.Rope{X: m.Reshape(walkRoom*heads, h.Dim), Angles: w.angles.Y, N: lay.Rows, Heads: heads, Pairs: w.env.Pairs})
	}
	w.append = attention.Append{K: w.env.K, V: w.v, Cache: caches[0], Layout: lay}
	s.Number = 1
	k := attention.KindOf(kind)
	sel, err := k.New(k, w.env, s)
	if err != nil {
		t.Fatal(err)
	}
	w.steps, w.phases = sel.At(0), k.Phases
	return w
}

// tale is a sequence's keys and queries, before they are turned.
type tale struct {
	keys  []float32 // positions x kv heads*dim
	query []float32 // positions x heads*dim
}

// tell has the sequence be another one. Whatever was told before stays in caches and sidecars.
func (w *walk) tell(seed uint64) {
	var known bool
	if w.tale, known = w.told[seed]; known {
		return
	}
	r := rand.New(rand.NewPCG(seed, 1))
	w.tale = tale{make([]float32, walkContext*w.env.K.Cols), make([]float32, walkContext*w.env.Q.Cols)}
	for _, v := range [][]float32{w.keys, w.query} {
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
	}
	w.told[seed] = w.tale
}

func (w *walk) mat(f *quant.Format, rows, cols int) tensor.Mat {
	m, err := tensor.NewMat(w.device, f, rows, cols)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// write sets a matrix from its start.
func (w *walk) write(m tensor.Mat, v any) {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
		w.t.Fatal(err)
	}
	w.queue.Write(m.Buf, m.Off, b.Bytes())
}

// step computes positions from to to, to excluded. Those of the prompt are tiled by pages, the others stand alone, under one policy.
func (w *walk) step(from, to int) {
	lay, e := w.env.Layout, w.env
	serves := func(p attention.Phases) int { return min(1, int(w.phases&p)) }
	tiles := TilesOf(0, from, min(to, w.prompt), serves(attention.Prefill), Own)
	for p := max(from, w.prompt); p < to; p++ {
		tiles = append(tiles, Tile{0, p, 1, serves(attention.Decode), Own})
	}
	var pos, of, first, policy []int32
	var knobs []float32
	for i, t := range tiles {
		first, policy, knobs = append(first, int32(len(pos))), append(policy, int32(t.Policy)), append(knobs, float32(math.NaN()))
		for r := range t.Rows {
			pos, of = append(pos, int32(t.First+r)), append(of, int32(i))
		}
	}
	w.write(lay.Prompt, []int32{int32(w.prompt)})
	w.write(lay.Pos, pos)
	w.write(lay.Rows, []int32{int32(len(pos))})
	w.write(lay.Tiles.Of, of)
	w.write(lay.Tiles.First, append(first, int32(len(pos))))
	w.write(lay.Tiles.N, []int32{int32(len(tiles))})
	w.write(lay.Tiles.Policy, policy)
	w.write(lay.Tiles.Knob, knobs)
	w.write(e.Q, w.query[from*e.Q.Cols:to*e.Q.Cols])
	w.write(e.K, w.keys[from*e.K.Cols:to*e.K.Cols])
	w.write(w.v, w.keys[from*e.K.Cols:to*e.K.Cols])
	w.queue.Run(&w.angles)
	for _, op := range slices.Concat(w.steps.Observe, w.ropes, []tensor.Op{&w.append}, w.steps.Append, w.steps.Select) {
		w.queue.Run(op)
	}
	if err := w.queue.Sync(); err != nil {
		w.t.Fatal(err)
	}
}

// read is a matrix of numbers that are no floats.
func (w *walk) read(m tensor.Mat) []int32 {
	raw := make([]byte, m.Bytes())
	w.queue.Read(raw, m.Buf, m.Off)
	v := make([]int32, len(raw)/4)
	for i := range v {
		v[i] = int32(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return v
}

// reads says what each head reads in the tile of the last step's row n; nothing where another selector serves it.
func (w *walk) reads(n int) []string {
	p := w.env.Plan
	at := func(m tensor.Mat, i int) int { return int(w.read(m.Slice(i, i+1))[0]) }
	tile := at(w.env.Layout.Tiles.Of, n)
	if at(w.env.Layout.Tiles.Policy, tile) != 1 {
		return nil
	}
	list := func(from, n, of tensor.Mat, r int) []int32 {
		return w.read(of.Slice(at(from, r), at(from, r)+at(n, r)))
	}
	var out []string
	for r := tile * p.Groups; r < (tile+1)*p.Groups; r++ {
		out = append(out, fmt.Sprint(at(p.Sink, r), at(p.Local, r), list(p.BlockAt, p.BlockN, p.Blocks, r), list(p.KeyAt, p.KeyN, p.Keys, r)))
	}
	return out
}

// Steady checks that what a selector plans for each token does not depend on the steps in which the sequence came, nor on what its pages
// held before, nor on guesses that were taken back. Steps of a prompt end at multiples of chunk.
func Steady(t testing.TB, d tensor.Device, kind string, s attention.Setting, chunk int) {
	t.Helper()
	const prompt, end = 650, 720
	want := make([][]string, end)
	w := newWalk(t, d, kind, s, prompt)
	for n, size := range []int{walkRoom, chunk, 3 * chunk} {
		w.tell(uint64(10 + n)) // other tokens in the same pages
		for from := 0; from < end; from += walkRoom {
			w.step(from, min(from+walkRoom, end))
		}
		w.tell(1)
		for from, to := 0, 0; from < end; from = to {
			to = min(from+size, end)
			if n > 0 && from >= prompt {
				w.tell(2)
				w.step(from, min(from+5, end)) // guesses
				w.tell(1)
				to = from + 1
			}
			w.step(from, to)
			for p := from; p < to; p++ {
				switch have := w.reads(p - from); {
				case n == 0:
					want[p] = have
				case !slices.Equal(have, want[p]):
					t.Fatalf("%s in steps of %d: position %d reads %v, want %v", kind, size, p, have, want[p])
				}
			}
		}
	}
}
