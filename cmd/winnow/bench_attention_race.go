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
}

// gated are the kinds that score with trained gates. Inputs without a model have none, so the oracle's blocks stand in for theirs.
var gated = []string{"seer", "seer_decode"}

func (f *field) newRace(name string) (*race, error) {
	r, phase := &race{keys: f.truth.in.Keys(), batch: 1}, phases[f.bench.phase]
	size := attention.TrialSize{Rows: roundUp(f.rows, attention.PageTokens), Sequences: 1, Phase: phase, Format: quant.F16}
	if phase == attention.Decode {
		r.batch = f.bench.batch
		size.Rows, size.Sequences = max(attention.PageTokens, r.batch), r.batch
	}
	open := r.open
	if slices.Contains(gated, name) {
		open = r.openGated
	}
	if err := open(attention.KindOf(name), f, size); err != nil {
		return nil, err
	}
	r.Samples = f.samples
	return r, nil
}

// open prepares the trial and the selector.
func (r *race) open(kind *attention.Kind, f *field, size attention.TrialSize) error {
	trial, selector, err := attention.NewTrialOf(kind, f.truth.device, f.truth.in, size)
	if err == nil {
		r.Search = attention.NewSearch(kind, trial, selector, size.Phase)
	}
	return err
}

// openGated prepares the trial and what stands in for the selector.
func (r *race) openGated(kind *attention.Kind, f *field, size attention.TrialSize) error {
	trial, err := attention.NewTrial(f.truth.device, f.truth.in, size)
	if err != nil {
		return err
	}
	r.Search = attention.NewSearch(kind, trial, &attention.Selector{Caps: attention.Caps{ChunkAlign: 1}, Plan: trial.Env.Plan}, size.Phase)
	r.Knob = attention.Knob{Name: "cut", Default: 1e-3, Min: 1e-7, Max: 1, Down: true}
	r.Choose = func(run attention.Run) { r.foresee(run) }
	r.oracle, err = newOracle(f)
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

// sparse is the time of a step's selection and attention, and the outputs of some rows.
func (r *race) sparse(rows []int, runs ...attention.Run) (took time.Duration, out []float32, err error) {
	t := r.Trial
	t.Step(r.Phase, r.Setting, runs...)
	started := time.Now()
	err = t.Observe(r.Selector)
	took = time.Since(started)
	if err := errors.Join(err, t.Keep()); err != nil {
		return took, nil, err
	}
	if r.oracle != nil {
		r.foresee(runs...)
	}
	started = time.Now()
	err = t.Append(r.Selector)
	if r.oracle == nil {
		err = errors.Join(err, t.Select(r.Selector))
	}
	err = errors.Join(err, t.Attend(r.Selector.Plan))
	return took + time.Since(started), r.outputs(rows), err
}

// dense is the time of attention over everything in a step, and the outputs of some rows.
func (r *race) dense(rows []int, runs ...attention.Run) (took time.Duration, out []float32, err error) {
	t := r.Trial
	t.Step(r.Phase, r.Setting, runs...)
	if err := t.Keep(); err != nil {
		return 0, nil, err
	}
	started := time.Now()
	err = t.Attend(t.Dense)
	return time.Since(started), r.outputs(rows), err
}

func (r *race) outputs(rows []int) (all []float32) {
	for _, row := range rows {
		all = append(all, r.Trial.Output(row)...)
	}
	return all
}

// decode computes the last token of every sequence, many times over, in turn with dense attention. What the error is is seen at the sampled
// positions.
func (r *race) decode(res *attentionResult) error {
	res.Rounds, res.Measured = decodeSteps, 1
	var sparse, dense []float64
	var runs []attention.Run
	for s := range r.batch {
		runs = append(runs, attention.Run{Seq: s, From: r.keys - 1, To: r.keys})
	}
	for round := range decodeSteps + 1 {
		var took [2]time.Duration
		for i := range 2 {
			of := (round + i) % 2
			step := r.sparse
			if of == 1 {
				step = r.dense
			}
			var err error
			if took[of], _, err = step(nil, runs...); err != nil {
				return err
			}
		}
		if round > 0 { // the first one warms up
			sparse, dense = append(sparse, milliseconds(took[0])), append(dense, milliseconds(took[1]))
		}
	}
	if _, _, err := r.sparse(nil, runs...); err != nil { // its plan is counted
		return err
	}
	read, visible, err := r.Trial.Count(r.Selector.Plan)
	if err != nil {
		return err
	}
	res.Ms, res.MsDense, res.Work = percentile(sparse, 50), percentile(dense, 50), read/visible
	for _, pos := range r.Samples {
		if _, err := r.ReceiptsOf(attention.Run{From: pos, To: pos + 1}, []int{0}); err != nil {
			return err
		}
		differ, err := r.differ()
		if err != nil {
			return err
		}
		res.MaxError = max(res.MaxError, differ)
	}
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
	return furthest(sparse, r.outputs([]int{0})), nil
}

// furthest is the largest difference of two vectors' values.
func furthest(x, y []float32) (most float64) {
	for i, v := range x {
		most = max(most, math.Abs(float64(v-y[i])))
	}
	return most
}
