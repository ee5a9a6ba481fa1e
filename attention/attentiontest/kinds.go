package attentiontest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// byPosition are the kinds that look at no query, so that nothing can be found with them.
var byPosition = []string{"streaming", "s2"}

// together are the kinds that judge aligned runs of as many keys as one, in which a key is lost among others that are nothing like it: xattention
// takes the mean of a stride of 16 keys, and quest the box around 16 keys, which for independent ones promises much everywhere. For these a run
// of keys is alike, so that what is looked for fills it.
var together = map[string]int{"xattention": 16, "quest": 16}

// Kinds checks every selector that works without gates on a device, on sequences of each length: that its plans hold, that more of its knob
// reads more, that what reads everything changes no bit, and that needles are found.
func Kinds(t *testing.T, d tensor.Device, lengths ...int) {
	for name, phase := range map[string]attention.Phases{"prefill": attention.Prefill, "decode": attention.Decode} {
		for _, kind := range attention.Kinds(phase) {
			k := attention.KindOf(kind)
			if !slices.Contains(byPosition, kind) {
				for _, keys := range lengths {
					t.Run(fmt.Sprintf("%s %s needles %d", name, kind, keys), func(t *testing.T) { needles(t, d, k, phase, keys) })
				}
			}
			t.Run(fmt.Sprintf("%s %s knob", name, kind), func(t *testing.T) { knob(t, d, k, phase) })
		}
	}
}

// course is a selector that goes over a sequence whose keys are cached.
type course struct {
	*attention.Trial
	in    *attention.Inputs
	sel   *attention.Selector
	phase attention.Phases
	free  func()
}

// newCourse caches a world; kinds that need gates or a pattern of heads are skipped.
func newCourse(t *testing.T, d tensor.Device, k *attention.Kind, phase attention.Phases, in *attention.Inputs) *course {
	size := attention.TrialSize{Rows: page, Sequences: 1, Phase: phase, Format: quant.F16}
	trial, sel, err := attention.NewTrialOf(k, d, in, size)
	if err != nil {
		if !errors.Is(err, attention.ErrNeedsModel) {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	c := &course{trial, in, sel, phase, func() { sel.Free(d); trial.Free() }}
	rows := trial.Env.Rows()
	for from := 0; from < in.Keys(); from += rows {
		trial.Step(attention.Prefill, Own, attention.Run{From: from, To: min(from+rows, in.Keys())})
		check(t, errors.Join(trial.Observe(sel), trial.Keep(), trial.Append(sel)))
	}
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plan plans the step in which a position is, and gives the step's first position.
func (c *course) plan(t *testing.T, pos int, knob float32) (first int) {
	t.Helper()
	run := attention.Run{From: pos, To: pos + 1}
	if c.phase == attention.Prefill {
		chunk := c.sel.Caps.Chunk()
		run.From = pos / chunk * chunk
		run.To = min(run.From+chunk, c.in.Keys())
	}
	c.Step(c.phase, knob, run)
	if c.phase == attention.Prefill { // in Decode what is beside the cache knows of later keys already
		check(t, errors.Join(c.Observe(c.sel), c.Keep(), c.Append(c.sel)))
	}
	check(t, c.Select(c.sel))
	return run.From
}

// receipts are those of some rows of the step.
func (c *course) receipts(t *testing.T, rows ...int) []attention.Receipt {
	t.Helper()
	all, err := c.Probe(c.sel.Plan, rows)
	check(t, err)
	return all
}

// The last two pages look for a key at some depth, which has next to all of the softmax: a plan that has little of it has missed the key.
func needles(t *testing.T, d tensor.Device, k *attention.Kind, phase attention.Phases, keys int) {
	in := attention.World{Heads: 4, KV: 2, Dim: 64, Keys: keys, Seed: 5}.Draw()
	alike(in, together[k.Name])
	noise := slices.Clone(in.Q.F32())
	c := newCourse(t, d, k, phase, in)
	defer c.free()
	const depths = 16
	missed, tried := 0, 0
	for _, alpha := range []float32{6, 10} {
		for depth := range depths + 1 {
			copy(in.Q.F32(), noise)
			var at []int // of each head
			for h := range in.Heads {
				at = append(at, (keys-1)*((depth+h*depths/in.Heads)%(depths+1))/depths)
				in.Seek(h, keys-2*page, keys, attention.Needle{Key: at[h], Alpha: alpha})
			}
			first := c.plan(t, keys-1, Own)
			for h, r := range c.receipts(t, keys-1-first) {
				if tried++; r.Recall < 0.99 {
					missed++
					t.Logf("alpha %v: head %d reads %d of %d keys and misses key %d, page %d", alpha, h, r.Read, r.Visible, at[h], at[h]/page)
				}
			}
		}
	}
	if missed > 0 {
		t.Errorf("%s misses %d of %d needles", k.Name, missed, tried)
	}
}

// alike makes the keys of each aligned run the first of them.
func alike(in *attention.Inputs, run int) {
	k, dim := in.K.F32(), in.K.Cols
	for i := range len(k) / dim {
		if key := i % in.Keys(); run > 0 && key%run > 0 {
			copy(k[i*dim:(i+1)*dim], k[(i-key%run)*dim:])
		}
	}
}

// knob turns a selector from its least to its most, on an ordinary world.
func knob(t *testing.T, d tensor.Device, k *attention.Kind, phase attention.Phases) {
	const keys, turns = 2100, 6
	in := attention.World{Heads: 4, KV: 2, Dim: 64, Keys: keys, Alpha: 1, Seed: 6}.Draw()
	c := newCourse(t, d, k, phase, in)
	defer c.free()
	for _, pos := range []int{63, 700, 1283, keys - 1} {
		var before []attention.Receipt
		for turn := range turns + 1 {
			value := Own
			if k.Knob.Name != "" {
				value = float32(k.Knob.Turn(float64(turn)/turns, keys))
			}
			first := c.plan(t, pos, value)
			now := c.receipts(t, pos-first)
			for i := range before {
				if now[i].Read < before[i].Read || now[i].Recall < before[i].Recall-1e-5 {
					t.Errorf("position %d, head %d: %s turned to %v gives %+v, less than %+v before", pos, i, k.Knob.Name, value, now[i], before[i])
				}
			}
			before = now
		}
		c.covers(t, pos, before)
	}
}

// covers checks that heads of a row which read everything have the bits of dense attention, but for the order of single keys.
func (c *course) covers(t *testing.T, pos int, all []attention.Receipt) {
	t.Helper()
	first := pos
	if chunk := c.sel.Caps.Chunk(); c.phase == attention.Prefill {
		first = pos / chunk * chunk
	}
	check(t, c.Attend(c.sel.Plan))
	sparse := slices.Clone(c.Output(pos - first))
	check(t, c.Attend(c.Dense))
	dense, dim, whole := c.Output(pos-first), c.Env.Dim(), 0
	for h, r := range all {
		if r.Read < r.Visible {
			continue
		}
		if whole++; r.Recall != 1 {
			t.Errorf("position %d, head %d: everything is read and recall is %v", pos, h, r.Recall)
		}
		if r.Single == 0 && !slices.Equal(sparse[h*dim:(h+1)*dim], dense[h*dim:(h+1)*dim]) {
			t.Errorf("position %d, head %d: everything is read and other bits come out", pos, h)
		}
	}
	t.Logf("position %d: %d of %d heads read everything at the knob's most", pos, whole, len(all))
}

// Pace is how long selection and attention of the last chunk of a prompt, or of its last token, take beside attention to everything: the median
// of a few rounds. It is for tests on a machine that does nothing else.
func Pace(t *testing.T, d tensor.Device, k *attention.Kind, phase attention.Phases, keys int) float64 {
	t.Helper()
	c := newCourse(t, d, k, phase, attention.World{Heads: 8, KV: 2, Dim: 128, Keys: keys, Alpha: 1, Seed: 7}.Draw())
	defer c.free()
	var took [2][]time.Duration // of the selector, of dense attention
	for round := range 10 {
		c.plan(t, keys-1, Own)
		for i := range 2 { // who comes second finds keys in the caches
			of := (round + i) % 2
			started := time.Now()
			if of == 0 {
				check(t, errors.Join(c.Select(c.sel), c.Attend(c.sel.Plan)))
			} else {
				check(t, c.Attend(c.Dense))
			}
			took[of] = append(took[of], time.Since(started))
		}
	}
	for _, t := range took {
		slices.Sort(t)
	}
	return float64(took[0][4]+took[0][5]) / float64(took[1][4]+took[1][5])
}
