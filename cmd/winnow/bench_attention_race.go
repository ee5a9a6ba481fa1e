package main

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
)

// decodeSteps is how often a step is measured.
const decodeSteps = 21

// race is a selector beside dense attention on one layer.
type race struct {
	*attention.Search
	oracle *oracle // writes the plan in place of a gate; nil where the selector does

	keys  int
	batch int
	chunk int // rows of a prompt's step
}

// gated are the kinds that score with trained gates. Inputs without a model have none, so the oracle's blocks stand in for theirs.
var gated = []string{"seer", "seer_decode"}

func (a *attentionBench) newRace(name string, t *truth, rows int) (*race, error) {
	r, phase := &race{keys: t.in.Keys(), batch: 1}, phases[a.phase]
	size := attention.TrialSize{Rows: roundUp(rows, attention.PageTokens), Sequences: 1, Phase: phase, Format: quant.F16}
	if phase == attention.Decode {
		r.batch = a.batch
		size.Rows, size.Sequences = max(attention.PageTokens, a.batch), a.batch
	}
	if err := r.open(name, t, size); err != nil {
		return nil, err
	}
	r.chunk = r.Trial.Env.Rows()
	return r, nil
}

// open prepares the trial and the selector.
func (r *race) open(name string, t *truth, size attention.TrialSize) error {
	kind := attention.KindOf(name)
	if !slices.Contains(gated, name) {
		trial, selector, err := attention.NewTrialOf(kind, t.device, t.in, size)
		if err == nil {
			r.Search = attention.NewSearch(kind, trial, selector, size.Phase)
		}
		return err
	}
	trial, err := attention.NewTrial(t.device, t.in, size)
	if err != nil {
		return err
	}
	r.Search = attention.NewSearch(kind, trial, &attention.Selector{Caps: attention.Caps{ChunkAlign: 1}, Plan: trial.Env.Plan}, size.Phase)
	r.Knob = attention.Knob{Name: "cut", Default: 1e-3, Min: 1e-7, Max: 1, Down: true}
	r.Choose = func(run attention.Run) { r.foresee(run) }
	r.oracle, err = newOracle(t, size.Phase, r.Samples)
	return err
}

func (r *race) free() {
	r.Selector.Free(r.Trial.Env.Device)
	r.Trial.Free()
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// fill puts all keys and values into the cache, and the selector's sidecars beside them.
func (r *race) fill() error {
	for s := range r.batch {
		if err := r.Fill(s); err != nil {
			return err
		}
	}
	return nil
}

// foresee has the oracle write the plan of a step.
func (r *race) foresee(runs ...attention.Run) {
	var firsts []int
	for _, run := range runs {
		for pos := run.From; pos < run.To; pos = roundUp(pos+1, attention.PageTokens) {
			firsts = append(firsts, pos)
		}
	}
	r.oracle.write(r.Selector.Plan, firsts, float64(r.Setting))
}

// lap is one step of both.
type lap struct {
	sparse, dense time.Duration
	differ        float64 // largest difference of the outputs of some rows
}

// lap runs a step's selection and attention, then attention over everything, or the other way about.
func (r *race) lap(phase attention.Phases, rows []int, denseFirst bool, runs ...attention.Run) (l lap, err error) {
	t := r.Trial
	t.Step(phase, r.Setting, runs...)
	started := time.Now()
	err = t.Observe(r.Selector)
	l.sparse = time.Since(started)
	if err := errors.Join(err, t.Keep()); err != nil {
		return l, err
	}
	var sparse, dense []float32
	one := func() error {
		if r.oracle != nil {
			r.foresee(runs...)
		}
		started := time.Now()
		err := t.Append(r.Selector)
		if r.oracle == nil {
			err = errors.Join(err, t.Select(r.Selector))
		}
		err = errors.Join(err, t.Attend(r.Selector.Plan))
		l.sparse += time.Since(started)
		sparse = r.outputs(rows)
		return err
	}
	two := func() error {
		started := time.Now()
		err := t.Attend(t.Dense)
		l.dense = time.Since(started)
		dense = r.outputs(rows)
		return err
	}
	if denseFirst {
		one, two = two, one
	}
	if err := errors.Join(one(), two()); err != nil {
		return l, err
	}
	for i := range sparse {
		l.differ = max(l.differ, math.Abs(float64(sparse[i]-dense[i])))
	}
	return l, nil
}

func (r *race) outputs(rows []int) (all []float32) {
	for _, row := range rows {
		all = append(all, r.Trial.Output(row)...)
	}
	return all
}

// prefill computes the whole prompt in chunks, some times over.
func (r *race) prefill(res *attentionResult, rounds int) error {
	res.Rounds = rounds
	if rounds == 0 {
		res.Rounds = 3
		if r.keys > 32768 {
			res.Rounds = 1
		}
	}
	var sparse, dense []float64
	var read, visible float64
	var all []attention.Receipt
	for round := range res.Rounds {
		var sum lap
		for from := 0; from < r.keys; from += r.chunk {
			run := attention.Run{From: from, To: min(from+r.chunk, r.keys)}
			rows := r.Sampled(run)
			l, err := r.lap(r.Phase, rows, (round+from/r.chunk)%2 == 1, run)
			if err != nil {
				return err
			}
			sum.sparse, sum.dense = sum.sparse+l.sparse, sum.dense+l.dense
			res.MaxError = max(res.MaxError, l.differ)
			if round > 0 {
				continue
			}
			some, err := r.Trial.Probe(r.Selector.Plan, rows)
			n, of, err2 := r.Trial.Count(r.Selector.Plan)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			all, read, visible = append(all, some...), read+n, visible+of
		}
		sparse, dense = append(sparse, milliseconds(sum.sparse)), append(dense, milliseconds(sum.dense))
	}
	res.Ms, res.MsDense, res.Work = percentile(sparse, 50), percentile(dense, 50), read/visible
	res.Recall, res.Density = attention.Means(all)
	return nil
}

// decode computes the last token of every sequence, many times over. What recall and error are is seen at the sampled positions.
func (r *race) decode(res *attentionResult) error {
	res.Rounds = decodeSteps
	var sparse, dense []float64
	var runs []attention.Run
	for s := range r.batch {
		runs = append(runs, attention.Run{Seq: s, From: r.keys - 1, To: r.keys})
	}
	for round := range decodeSteps + 1 {
		l, err := r.lap(r.Phase, []int{0}, round%2 == 1, runs...)
		if err != nil {
			return err
		}
		res.MaxError = max(res.MaxError, l.differ)
		if round > 0 { // the first one warms up
			sparse, dense = append(sparse, milliseconds(l.sparse)), append(dense, milliseconds(l.dense))
		}
	}
	read, visible, err := r.Trial.Count(r.Selector.Plan)
	if err != nil {
		return err
	}
	res.Ms, res.MsDense, res.Work = percentile(sparse, 50), percentile(dense, 50), read/visible
	var all []attention.Receipt
	for _, pos := range r.Samples {
		some, err := r.ReceiptsOf(attention.Run{From: pos, To: pos + 1}, []int{0})
		if err != nil {
			return err
		}
		differ, err := r.differ()
		if err != nil {
			return err
		}
		all, res.MaxError = append(all, some...), max(res.MaxError, differ)
	}
	res.Recall, res.Density = attention.Means(all)
	return nil
}

// differ is how far the output of a step's first row is from the dense one, under the plan as it is.
func (r *race) differ() (most float64, err error) {
	if err := r.Trial.Attend(r.Selector.Plan); err != nil {
		return 0, err
	}
	sparse := r.outputs([]int{0})
	if err := r.Trial.Attend(r.Trial.Dense); err != nil {
		return 0, err
	}
	for i, v := range r.outputs([]int{0}) {
		most = max(most, math.Abs(float64(v-sparse[i])))
	}
	return most, nil
}
