package attentiontest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Visits checks on a device that Attend visits the keys which a selector's plan lists, and each of them once: every kind of selector, prompts in
// chunks and generated tokens, several sequences a step, at page boundaries, with keys and values stored in some formats.
//
// Visits are counted by what they weigh, in the kernels as they are. All queries are 0, so all scores are, and what comes out is the mean of the values of
// the keys that are visited. Values are 0 but for those of a few keys, each in a dimension of its own. In F32 they are half of what overflows when it
// comes twice, so the count does not rest on the divisor.
func Visits(t *testing.T, d tensor.Device, formats ...*quant.Format) {
	for _, f := range formats {
		for _, kind := range attention.Kinds(attention.Prefill | attention.Decode) {
			for name, phase := range map[string]attention.Phases{"prefill": attention.Prefill, "decode": attention.Decode} {
				if k := attention.KindOf(kind); k.Phases&phase != 0 {
					t.Run(fmt.Sprint(f.Name, " ", name, " ", kind), func(t *testing.T) { visits(t, d, k, attention.TrialSize{Phase: phase, Format: f}) })
				}
			}
		}
	}
}

const visitKeys, visitSequences = 449, 3

// sparing are settings of the kinds that leave keys out of few; a kind that is not among them is as it is by default.
func sparing(e *attention.Env) map[string]attention.Setting {
	set := func(knob float32, params map[string]float64) attention.Setting {
		return attention.Setting{Knobs: []float32{knob}, Params: params}
	}
	r := rand.New(rand.NewPCG(8, 9))
	mat := func(rows, cols int) tensor.Mat {
		m, err := tensor.NewMat(e.Device, quant.F32, rows, cols)
		if err != nil {
			panic(err)
		}
		for i := range m.F32() {
			m.F32()[i] = float32(0.3 * r.NormFloat64())
		}
		return m
	}
	seer := set(0.05, map[string]float64{"last_block_dense": 0, "sink": 0})
	seer.Gates = []attention.Gate{{Key: mat(e.Heads*3*e.Dim(), e.Dim())}}
	decode := set(128, nil)
	decode.Gates = []attention.Gate{{Query: mat(e.Heads*e.Dim(), 8), Key: mat(e.KV()*3*e.Dim(), 8), QueryNorm: mat(1, 8), KeyNorm: mat(1, 8)}}
	duo := set(64, map[string]float64{"threshold": 0.5})
	duo.Heads = attention.HeadPattern{{0, 1}}
	return map[string]attention.Setting{
		"streaming": set(64, nil), "xattention": set(0.3, map[string]float64{"lead": 128}), "anchor": set(0, map[string]float64{"lead": 128}), "duo": duo, "seer": seer, "seer_decode": decode,
		"flexprefill": set(0.3, map[string]float64{"group": 128, "budget": 128}), "quest": set(100, map[string]float64{"dense_layers": 0}),
		"minference": {Params: map[string]float64{"group": 128, "columns": 30, "diagonals": 50}},
		"s2":         set(1, map[string]float64{"stride": 4, "dense_every": 0}),
	}
}

// visits takes sequences through a selector.
func visits(t *testing.T, d tensor.Device, k *attention.Kind, size attention.TrialSize) {
	in := attention.World{Heads: 4, KV: 2, Dim: 64, Keys: visitKeys, Alpha: 4, Seed: 11}.Draw()
	alike(in, together[k.Name])
	size.Rows, size.Sequences = visitSequences*256, visitSequences
	trial, err := attention.NewTrial(d, in, size)
	check(t, err)
	defer trial.Free()
	e := trial.Env
	e.Turn, e.Pairs = 1, tensor.Halves
	for i := range in.Q.Cols / 2 {
		e.Freq = append(e.Freq, float32(math.Pow(10000, -2*float64(i)/float64(in.Q.Cols))))
	}
	set := sparing(e)[k.Name]
	set.Number = 1 // what a trial calls its selector
	sel, err := k.New(k, e, set)
	if errors.Is(err, attention.ErrNoGates) || errors.Is(err, attention.ErrNoPattern) {
		t.Skip(err)
	}
	check(t, err)
	defer sel.Free(d)
	c := counter{t: t, trial: trial, in: in, selector: sel, value: 1}
	if size.Format == quant.F32 {
		c.value = 0x1p127
	}
	chunk := sel.Caps.Chunk()
	if chunk > 256 {
		t.Fatalf("chunks of %d", chunk)
	}
	for _, from := range slices.Compact([]int{0, chunk, (visitKeys - 1) / chunk * chunk}) { // of the last one some have a row in a page, some more
		var runs []attention.Run
		for s := range visitSequences {
			at := max(0, from-s*chunk)
			runs = append(runs, attention.Run{Seq: s, From: at, To: min(at+chunk, visitKeys)})
		}
		c.fill(runs)
		if size.Phase == attention.Prefill {
			c.step(size.Phase, runs)
		}
	}
	for _, at := range [][visitSequences]int{{0, 62, 448}, {63, 64, 1}, {65, 127, 128}, {126, 191, 192}, {129, 193, 447}} {
		if size.Phase != attention.Decode {
			break
		}
		var runs []attention.Run
		for s, pos := range at {
			runs = append(runs, attention.Run{Seq: s, From: pos, To: pos + 1})
		}
		c.step(size.Phase, runs)
	}
	if size.Phase == attention.Decode {
		c.twice()
	}
	if c.listed == c.visible && k.Name != "full" {
		t.Errorf("%s lists all %d keys, which shows nothing", k.Name, c.visible)
	}
	t.Logf("%d keys of %d were to be visited", c.listed, c.visible)
}

// counter counts visits.
type counter struct {
	t        *testing.T
	trial    *attention.Trial
	in       *attention.Inputs
	selector *attention.Selector
	value    float32 // of the dimension that is a key's
	filled   [visitSequences]int

	listed, visible int // keys of all rows and heads
}

// fill caches what sequences have before a step.
func (c *counter) fill(runs []attention.Run) {
	c.t.Helper()
	chunk := c.selector.Caps.Chunk()
	for s, r := range runs {
		for ; c.filled[s] < r.To; c.filled[s] = min(c.filled[s]+chunk, visitKeys) {
			c.trial.Step(attention.Prefill, Own, attention.Run{Seq: s, From: c.filled[s], To: min(c.filled[s]+chunk, visitKeys)})
			check(c.t, errors.Join(c.trial.Observe(c.selector), c.trial.Keep(), c.trial.Append(c.selector)))
		}
	}
}

// step plans a step and compares what is visited with what the plan lists.
func (c *counter) step(phase attention.Phases, runs []attention.Run) {
	c.t.Helper()
	c.trial.Step(phase, Own, runs...)
	check(c.t, errors.Join(c.trial.Observe(c.selector), c.trial.Select(c.selector)))
	p, e := c.selector.Plan, c.trial.Env
	check(c.t, p.Check(e.Layout, e.Heads))
	want := c.plan(p)
	for i, have := range c.visited(p, want) {
		if !slices.Equal(have, want[i].counts) {
			key := 0
			for have[key] == want[i].counts[key] {
				key++
			}
			c.t.Fatalf("position %d, head %d: key %d is visited %d times, want %d", want[i].pos, i%e.Heads, key, have[key], want[i].counts[key])
		}
	}
}

// twice has the last row of the last step read a block two times in one head, which is seen there alone.
func (c *counter) twice() {
	c.t.Helper()
	p, e := c.selector.Plan, c.trial.Env
	tile := int(e.Layout.Rows.I32()[0]) - 1
	for g := range p.Groups {
		blocks := []int32{1, 2}
		if g == 1 {
			blocks[1] = 1
		}
		p.Write(tile*p.Groups+g, 0, 256, blocks, nil)
	}
	all := c.visited(p, c.plan(p))
	for h, have := range all[len(all)-e.Heads:] {
		if twice := have[100] > 1; twice != (h == 1) || have[300] != 1 || have[0] != 0 || (have[130] == 0) != (h == 1) {
			c.t.Errorf("head %d visits keys 100, 300, 0 and 130 %d, %d, %d and %d times", h, have[100], have[300], have[0], have[130])
		}
	}
}

// reading is what a row reads in a head.
type reading struct {
	pos, keys int
	counts    []int // by key: how often
}

// plan is what a plan lists for the rows of the step, head after head.
func (c *counter) plan(p *attention.Plan) (all []reading) {
	e := c.trial.Env
	for row, pos := range e.Layout.Pos.I32()[:e.Layout.Rows.I32()[0]] {
		for h := range e.Heads {
			tile := row
			if p.Tile.Present() {
				tile = int(p.Tile.I32()[row])
			}
			r, w := tile*p.Groups+h*p.Groups/e.Heads, reading{pos: int(pos), counts: make([]int, visitKeys)}
			list := func(from, to int) {
				for k := from; k < to; k++ {
					w.counts[k]++
					w.keys++
				}
			}
			list(0, int(p.Sink.I32()[r]))
			if p.BlockAt.Present() {
				for _, b := range p.Blocks.I32()[p.BlockAt.I32()[r]:][:p.BlockN.I32()[r]] {
					list(int(b)*page, int(b+1)*page)
				}
			}
			if p.KeyAt.Present() {
				for _, k := range p.Keys.I32()[p.KeyAt.I32()[r]:][:p.KeyN.I32()[r]] {
					list(int(k), int(k)+1)
				}
			}
			list(int(p.Local.I32()[r]), int(pos)+1)
			c.listed, c.visible = c.listed+w.keys, c.visible+int(pos)+1
			all = append(all, w)
		}
	}
	return all
}

// visited is how often the keys are visited for each row and head.
func (c *counter) visited(p *attention.Plan, want []reading) [][]int {
	e, dim := c.trial.Env, c.in.Q.Cols
	cache := e.Caches[0]
	keys, values := slices.Clone(cache.K.Raw()), slices.Clone(cache.V.Raw())
	defer func() { copy(cache.K.Raw(), keys); copy(cache.V.Raw(), values) }()
	clear(e.Q.F32())
	out := make([][]int, len(want))
	for i := range out {
		out[i] = make([]int, visitKeys)
	}
	nothing, one := make([]float32, dim), make([]float32, dim)
	for base := 0; base < visitKeys; base += dim {
		clear(cache.V.Raw())
		for key := base; key < min(base+dim, visitKeys); key++ {
			one[key-base] = c.value
			for at := range visitSequences * e.KV() {
				first := at / e.KV() * ((visitKeys + page - 1) / page) // the sequence's pages lie one after the other
				cache.Put(int32(first+key/page), at%e.KV(), key%page, nothing, one)
			}
			one[key-base] = 0
		}
		check(c.t, c.trial.Attend(p))
		for i := range want {
			for d, y := range c.trial.Output(i / e.Heads)[i%e.Heads*dim:][:min(dim, visitKeys-base)] {
				out[i][base+d] = int(math.Round(min(float64(y)*float64(want[i].keys)/float64(c.value), 9)))
			}
		}
	}
	return out
}
