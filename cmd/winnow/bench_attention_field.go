package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/attention"
)

// stepRows divides the rows of a prompt's steps: what any selector plans together divides it.
const stepRows = 2048

// field is selectors side by side on one layer's inputs, each beside the same dense attention.
type field struct {
	bench *attentionBench
	truth *truth
	rows  int             // of a prompt's step
	steps []attention.Run // of a prompt, that are measured

	samples   []int     // positions by which selectors are judged
	densities []float64 // the least that reach the recalls there

	races []*race
	all   []*entry
}

// newField chooses what is measured. Rows are those of a prompt's step, 0 = stepRows.
func newField(a *attentionBench, t *truth, rows int) (f *field, err error) {
	f = &field{bench: a, truth: t, rows: min(roundUp(cmp.Or(rows, stepRows), stepRows), t.in.Keys())}
	f.steps = f.chunks()
	f.samples = attention.Samples(t.in.Keys(), phases[a.phase])
	if a.phase == "prefill" {
		f.samples = attention.SamplesOf(f.steps...)
	}
	f.densities, err = t.densities(f.samples, a.recalls)
	return f, err
}

// entry is a selector with its knob turned to one recall.
type entry struct {
	race    *race
	setting float32
	result  attentionResult

	ms            []float64 // of the rounds
	took          time.Duration
	read, visible float64
}

// enter prepares a selector and turns its knob to every recall.
func (f *field) enter(res attentionResult) error {
	r, err := f.newRace(res.Selector)
	if err != nil {
		return err
	}
	f.races = append(f.races, r)
	if f.bench.phase == "prefill" && f.rows < r.keys && r.Trial.Env.Rows() != f.rows {
		return fmt.Errorf("bench: a prompt is planned by %d tokens, which does not divide %d", r.Align, f.rows)
	}
	if err := r.fill(); err != nil {
		return err
	}
	res.Knob, res.OracleBlocks = r.Knob.Name, r.oracle != nil
	for i, recall := range f.bench.recalls {
		e := &entry{race: r, result: res}
		t, err := f.bench.turn(r, recall)
		if err != nil {
			return err
		}
		e.result.Target, e.result.OracleDensity, e.setting = recall, f.densities[i], r.Setting
		e.result.Value, e.result.Reached, e.result.Recall, e.result.Density = t.Value, t.Reached, t.Recall, t.Density
		f.all = append(f.all, e)
	}
	return nil
}

func (f *field) free() {
	for _, r := range f.races {
		r.free()
	}
}

// run takes the times of all entries.
func (f *field) run() (results []attentionResult, err error) {
	if f.bench.phase == "prefill" {
		err = f.prefill()
	}
	for _, e := range f.all {
		if e.race.Phase == attention.Decode && err == nil {
			e.race.Setting = e.setting
			err = e.race.decode(&e.result)
		}
		e.result.Speedup = e.result.MsDense / e.result.Ms
		results = append(results, e.result)
	}
	return results, err
}

// prefill computes a prompt in chunks, or some of them, some times over. Of every chunk dense attention and the entries take turns in an order
// that goes round.
func (f *field) prefill() error {
	rounds, keys := f.bench.rounds, f.truth.in.Keys()
	if rounds == 0 {
		rounds = 3
		if keys > 32768 {
			rounds = 1
		}
	}
	var dense []float64
	for round := range rounds {
		var sum time.Duration
		var share float64
		for i, run := range f.steps {
			took, err := f.lap(run, round+i, round == 0)
			if err != nil {
				return err
			}
			sum += took
			share += (float64(run.To)*float64(run.To+1) - float64(run.From)*float64(run.From+1)) / (float64(keys) * float64(keys+1))
		}
		dense = append(dense, milliseconds(sum)/share)
		for _, e := range f.all {
			e.ms, e.took = append(e.ms, milliseconds(e.took)/share), 0
			e.result.Measured = share
		}
	}
	for _, e := range f.all {
		r := &e.result
		r.Rounds, r.Ms, r.MsDense, r.Work = rounds, percentile(e.ms, 50), percentile(dense, 50), e.read/e.visible
	}
	return nil
}

// chunks are the steps of a prompt that are measured. Some of them lie symmetrically about the prompt's middle, since a step takes as long as it
// has keys before it.
func (f *field) chunks() (runs []attention.Run) {
	keys := f.truth.in.Keys()
	for from := 0; from < keys; from += f.rows {
		runs = append(runs, attention.Run{From: from, To: min(from+f.rows, keys)})
	}
	n, of := f.bench.chunks, len(runs)
	if n == 0 || n >= of {
		return runs
	}
	var some []attention.Run
	for i := range n {
		at := (2*i + 1) * of / (2 * n) // half of the chunks' places, rounded up
		if 2*i < n {
			at = of - 1 - (2*(n-1-i)+1)*of/(2*n) // the mirror of the place of the same number from the end
		}
		some = append(some, runs[at])
	}
	return slices.Compact(some)
}

// lap runs one step of dense attention and of every entry, and counts what the entries read where asked to.
func (f *field) lap(run attention.Run, turn int, count bool) (dense time.Duration, err error) {
	rows := f.races[0].Sampled(run)
	outputs := make([][]float32, len(f.all)+1)
	for i := range outputs {
		at := (i + turn) % len(outputs)
		if at == len(f.all) {
			if dense, outputs[at], err = f.races[0].dense(rows, run); err != nil {
				return 0, err
			}
			continue
		}
		e := f.all[at]
		r := e.race
		r.Setting = e.setting
		took, out, err := r.sparse(rows, run)
		if err != nil {
			return 0, err
		}
		e.took, outputs[at] = e.took+took, out
		if !count {
			continue
		}
		read, visible, err := r.Trial.Count(r.Selector.Plan)
		if err != nil {
			return 0, err
		}
		e.read, e.visible = e.read+read, e.visible+visible
	}
	for i, e := range f.all {
		e.result.MaxError = max(e.result.MaxError, furthest(outputs[i], outputs[len(f.all)]))
	}
	return dense, nil
}
