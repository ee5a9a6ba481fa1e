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
	trial    *attention.Trial
	selector *attention.Selector
	knob     attention.Knob
	setting  float32 // of the knob; NaN = the selector's own
	oracle   *oracle // writes the plan in place of a gate; nil where the selector does

	phase   attention.Phases
	keys    int
	batch   int
	align   int   // prompts are planned from multiples of it on
	chunk   int   // rows of a prompt's step, a multiple of align
	samples []int // positions
}

// gated are the kinds that score with trained gates. Inputs without a model have none, so the oracle's blocks stand in for theirs.
var gated = []string{"seer", "seer_decode"}

func (a *attentionBench) newRace(name string, t *truth, samples []int, rows int) (*race, error) {
	r := &race{phase: phases[a.phase], keys: t.in.Keys(), batch: 1, samples: samples, setting: float32(math.NaN())}
	size := attention.TrialSize{Rows: roundUp(rows, attention.PageTokens), Sequences: 1, Phase: r.phase, Format: quant.F16}
	if r.phase == attention.Decode {
		r.batch = a.batch
		size.Rows, size.Sequences = max(attention.PageTokens, a.batch), a.batch
	}
	if err := r.open(name, t, size); err != nil {
		return nil, err
	}
	r.align, r.chunk = r.selector.Caps.Chunk(), r.trial.Env.Rows()
	return r, nil
}

// open prepares the trial and the selector.
func (r *race) open(name string, t *truth, size attention.TrialSize) (err error) {
	if kind := attention.KindOf(name); !slices.Contains(gated, name) {
		r.knob = kind.Knob
		r.trial, r.selector, err = attention.NewTrialOf(kind, t.device, t.in, size)
		return err
	}
	r.knob = attention.Knob{Name: "cut", Default: 1e-3, Min: 1e-7, Max: 1, Down: true}
	if r.oracle, err = newOracle(t, r.phase, r.samples); err != nil {
		return err
	}
	if r.trial, err = attention.NewTrial(t.device, t.in, size); err != nil {
		return err
	}
	r.selector = &attention.Selector{Caps: attention.Caps{ChunkAlign: 1}, Plan: r.trial.Env.Plan}
	return nil
}

func (r *race) free() {
	r.selector.Free(r.trial.Env.Device)
	r.trial.Free()
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// fill puts all keys and values into the cache, and the selector's sidecars beside them.
func (r *race) fill() error {
	for s := range r.batch {
		for from := 0; from < r.keys; from += r.chunk {
			if err := r.step(attention.Prefill, attention.Run{Seq: s, From: from, To: min(from+r.chunk, r.keys)}); err != nil {
				return err
			}
			if err := r.trial.Append(r.selector); err != nil {
				return err
			}
		}
	}
	return nil
}

// step lays a step out and keeps its keys.
func (r *race) step(phase attention.Phases, runs ...attention.Run) error {
	r.trial.Step(phase, r.setting, runs...)
	return errors.Join(r.trial.Observe(r.selector), r.trial.Keep())
}

// plan is the selector's work of a step that its Append has been done for. An oracle has written the plan before.
func (r *race) plan(runs ...attention.Run) error {
	if r.oracle == nil {
		return r.trial.Select(r.selector)
	}
	var firsts []int
	for _, run := range runs {
		for pos := run.From; pos < run.To; pos = roundUp(pos+1, attention.PageTokens) {
			firsts = append(firsts, pos)
		}
	}
	r.oracle.write(r.selector.Plan, firsts, float64(r.setting))
	return nil
}

// receipts are those of the sampled rows with the knob at its setting, computing no more of a prompt than they need.
func (r *race) receipts() (all []attention.Receipt, err error) {
	for i := 0; i < len(r.samples); {
		run := attention.Run{From: r.samples[i], To: r.samples[i] + 1}
		if r.phase == attention.Prefill {
			run.From = run.From / r.align * r.align
			run.To = min(run.From+r.align, r.keys)
		}
		rows := r.sampled(run)
		i += len(rows)
		some, err := r.receiptsOf(run, rows)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func (r *race) receiptsOf(run attention.Run, rows []int) ([]attention.Receipt, error) {
	// A generated token's key is there already; kept alone, sidecars of its page would forget what comes after it.
	r.trial.Step(r.phase, r.setting, run)
	if r.phase == attention.Prefill {
		if err := errors.Join(r.trial.Observe(r.selector), r.trial.Keep(), r.trial.Append(r.selector)); err != nil {
			return nil, err
		}
	}
	if err := r.plan(run); err != nil {
		return nil, err
	}
	return r.trial.Probe(r.selector.Plan, rows)
}

// sampled are the rows of a run that are sampled.
func (r *race) sampled(run attention.Run) (rows []int) {
	for _, pos := range r.samples {
		if pos >= run.From && pos < run.To {
			rows = append(rows, pos-run.From)
		}
	}
	return rows
}

// lap is one step of both.
type lap struct {
	sparse, dense time.Duration
	differ        float64 // largest difference of the outputs of some rows
}

// lap runs a step's selection and attention, then attention over everything, or the other way about.
func (r *race) lap(phase attention.Phases, rows []int, denseFirst bool, runs ...attention.Run) (l lap, err error) {
	t := r.trial
	t.Step(phase, r.setting, runs...)
	started := time.Now()
	err = t.Observe(r.selector)
	l.sparse = time.Since(started)
	if err := errors.Join(err, t.Keep()); err != nil {
		return l, err
	}
	var sparse, dense []float32
	one := func() error {
		if r.oracle != nil {
			if err := r.plan(runs...); err != nil {
				return err
			}
		}
		started := time.Now()
		err := t.Append(r.selector)
		if r.oracle == nil {
			err = errors.Join(err, t.Select(r.selector))
		}
		err = errors.Join(err, t.Attend(r.selector.Plan))
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
		all = append(all, r.trial.Output(row)...)
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
			rows := r.sampled(run)
			l, err := r.lap(r.phase, rows, (round+from/r.chunk)%2 == 1, run)
			if err != nil {
				return err
			}
			sum.sparse, sum.dense = sum.sparse+l.sparse, sum.dense+l.dense
			res.MaxError = max(res.MaxError, l.differ)
			if round > 0 {
				continue
			}
			some, err := r.trial.Probe(r.selector.Plan, rows)
			n, of, err2 := r.trial.Count(r.selector.Plan)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			all, read, visible = append(all, some...), read+n, visible+of
		}
		sparse, dense = append(sparse, milliseconds(sum.sparse)), append(dense, milliseconds(sum.dense))
	}
	res.Ms, res.MsDense, res.Work = percentile(sparse, 50), percentile(dense, 50), read/visible
	res.Recall, res.Density = means(all)
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
		l, err := r.lap(r.phase, []int{0}, round%2 == 1, runs...)
		if err != nil {
			return err
		}
		res.MaxError = max(res.MaxError, l.differ)
		if round > 0 { // the first one warms up
			sparse, dense = append(sparse, milliseconds(l.sparse)), append(dense, milliseconds(l.dense))
		}
	}
	read, visible, err := r.trial.Count(r.selector.Plan)
	if err != nil {
		return err
	}
	res.Ms, res.MsDense, res.Work = percentile(sparse, 50), percentile(dense, 50), read/visible
	var all []attention.Receipt
	for _, pos := range r.samples {
		some, err := r.receiptsOf(attention.Run{From: pos, To: pos + 1}, []int{0})
		if err != nil {
			return err
		}
		differ, err := r.differ()
		if err != nil {
			return err
		}
		all, res.MaxError = append(all, some...), max(res.MaxError, differ)
	}
	res.Recall, res.Density = means(all)
	return nil
}

// differ is how far the output of a step's first row is from the dense one, under the plan as it is.
func (r *race) differ() (most float64, err error) {
	if err := r.trial.Attend(r.selector.Plan); err != nil {
		return 0, err
	}
	sparse := r.outputs([]int{0})
	if err := r.trial.Attend(r.trial.Dense); err != nil {
		return 0, err
	}
	for i, v := range r.outputs([]int{0}) {
		most = max(most, math.Abs(float64(v-sparse[i])))
	}
	return most, nil
}
