package model

import (
	"fmt"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// tiles are the batch's part of selectors: the step's rows, cut into tiles.
type tiles struct {
	on     *attention.Tiles // of the batch's layout; nil where all rows read everything
	in     []int            // the selectors of the step, the first one always among them
	of     []int32          // scratch of fill, as all below
	first  []int32
	policy []int32
	knob   []float32
}

// most is how many tiles a step can have. A sequence's rows begin and end within a page, and where its prompt ends; of the tokens that are tiles
// by themselves a sequence has one, see Policy.Alone.
func mostTiles(lim Limits) int { return min(lim.Rows, lim.Rows/attention.PageTokens+4*lim.Sequences) }

// newTiles allocates the columns.
func newTiles(d tensor.Device, lim Limits, t *attention.Tiles) (tiles, error) {
	most := mostTiles(lim)
	for _, c := range []struct {
		mat    *tensor.Mat
		format *quant.Format
		rows   int
	}{{&t.Of, quant.I32, lim.Rows}, {&t.First, quant.I32, most + 1}, {&t.N, quant.I32, 1}, {&t.Policy, quant.I32, most}, {&t.Knob, quant.F32, most}} {
		var err error
		if *c.mat, err = tensor.NewMat(d, c.format, c.rows, 1); err != nil {
			return tiles{on: t}, fmt.Errorf("batch: %w", err)
		}
	}
	return tiles{on: t}, nil
}

// fill cuts a step's rows and writes the tiles.
func (t *tiles) fill(q tensor.Queue, s *Step, pos []int32) {
	t.in = append(t.in[:0], 0)
	if t.on == nil {
		return
	}
	t.of, t.first, t.policy, t.knob = t.of[:0], t.first[:0], t.policy[:0], t.knob[:0]
	for i := range s.Past {
		t.cut(s, i, pos[s.Start[i]:s.Start[i+1]])
	}
	if n, most := len(t.policy), t.on.Policy.Rows; n > most {
		panic(fmt.Sprintf("winnow: bug: model: a step of %d tiles, more than %d", n, most))
	}
	write(q, t.on.N, []int32{int32(len(t.policy))})
	write(q, t.on.First, append(t.first, int32(len(t.of))))
	write(q, t.on.Of, t.of)
	write(q, t.on.Policy, t.policy)
	write(q, t.on.Knob, t.knob)
}

// cut cuts a sequence's rows, which are at the given positions.
func (t *tiles) cut(s *Step, seq int, pos []int32) {
	all, prompt := Policy{Knob: float32(math.NaN())}, int(s.Prompts[seq])
	policy := &all
	if len(s.Policies) > 0 && s.Policies[seq] != nil {
		policy = s.Policies[seq]
	}
	alone, before := true, -1
	for _, p := range pos {
		selector, knob := policy.at(int(p), prompt)
		if alone || p%attention.PageTokens == 0 || selector != before {
			t.first, t.policy, t.knob = append(t.first, int32(len(t.of))), append(t.policy, int32(selector)), append(t.knob, knob)
		}
		alone, before = int(p) >= prompt && selector > 0, selector
		t.of = append(t.of, int32(len(t.policy)-1))
		if !slices.Contains(t.in, selector) {
			t.in = append(t.in, selector)
		}
	}
}

func (t *tiles) free(d tensor.Device) {
	if t.on == nil {
		return
	}
	for _, m := range []tensor.Mat{t.on.Of, t.on.First, t.on.N, t.on.Policy, t.on.Knob} {
		if m.Present() {
			d.Free(m.Buf)
		}
	}
}
