package attention

import (
	"errors"
	"math"
)

// Search finds how far a selector must be turned on one layer's inputs, by what the softmax of sampled positions weighs.
type Search struct {
	Trial    *Trial
	Selector *Selector
	Knob     Knob
	Setting  float32 // of the knob; NaN = the selector's own
	Phase    Phases
	Samples  []int       // positions, ascending
	Choose   func(r Run) // fills the plan of a step in place of the selector; nil = the selector does
	Align    int         // prompts are planned from multiples of it on
}

// NewSearch prepares a search of a kind over inputs, with steps of at least so many rows.
func NewSearch(k *Kind, t *Trial, s *Selector, phase Phases) *Search {
	return &Search{Trial: t, Selector: s, Knob: k.Knob, Setting: float32(math.NaN()), Phase: phase, Align: s.Caps.Chunk(), Samples: Samples(t.in.Keys(), phase)}
}

// Samples are positions of a sequence by which a selector is judged: of all of it, or of its last quarter where tokens are generated, since a step is
// at its end.
func Samples(keys int, phase Phases) []int {
	all := Run{To: keys}
	if phase == Decode {
		all.From = keys * 3 / 4
	}
	return SamplesOf(all)
}

// SamplesOf are 64 positions spread evenly over some runs. They are at all places of a page: the first row of a page sees none of its keys, and where
// plans are made for pages, it is the one that has least of them.
func SamplesOf(runs ...Run) (rows []int) {
	const most = 64
	total := 0
	for _, r := range runs {
		total += r.To - r.From
	}
	for i := range most {
		within := (float64(i*37%most) + 0.5) / most
		pos := int((float64(i) + within) * float64(total) / most)
		for _, r := range runs {
			if n := r.To - r.From; pos >= n {
				pos -= n
				continue
			}
			pos += r.From
			break
		}
		if len(rows) == 0 || rows[len(rows)-1] != pos {
			rows = append(rows, pos)
		}
	}
	return rows
}

// Keys is the length of the sequence.
func (s *Search) Keys() int { return s.Trial.in.Keys() }

// Fill puts all keys and values of a sequence of the trial into the cache, and the selector's sidecars beside them.
func (s *Search) Fill(seq int) error {
	for from, rows := 0, s.Trial.Env.Rows(); from < s.Keys(); from += rows {
		s.Trial.Step(Prefill, s.Setting, Run{Seq: seq, From: from, To: min(from+rows, s.Keys())})
		if err := errors.Join(s.Trial.Observe(s.Selector), s.Trial.Keep(), s.Trial.Append(s.Selector)); err != nil {
			return err
		}
	}
	return nil
}

// Receipts are those of the sampled rows with the knob at its setting, computing no more of a prompt than they need. The cache is filled.
func (s *Search) Receipts() (all []Receipt, err error) {
	for i := 0; i < len(s.Samples); {
		run := Run{From: s.Samples[i], To: s.Samples[i] + 1}
		if s.Phase == Prefill {
			run.From = run.From / s.Align * s.Align
			run.To = min(run.From+s.Align, s.Keys())
		}
		rows := s.Sampled(run)
		i += len(rows)
		some, err := s.ReceiptsOf(run, rows)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// ReceiptsOf are those of some rows of a step.
func (s *Search) ReceiptsOf(run Run, rows []int) ([]Receipt, error) {
	// A generated token's key is there already; kept alone, sidecars of its page would forget what comes after it.
	t := s.Trial
	t.Step(s.Phase, s.Setting, run)
	if s.Phase == Prefill {
		if err := errors.Join(t.Observe(s.Selector), t.Keep(), t.Append(s.Selector)); err != nil {
			return nil, err
		}
	}
	if s.Choose != nil {
		s.Choose(run)
	} else if err := t.Select(s.Selector); err != nil {
		return nil, err
	}
	return t.Probe(s.Selector.Plan, rows)
}

// Sampled are the rows of a run that are sampled.
func (s *Search) Sampled(run Run) (rows []int) {
	for _, pos := range s.Samples {
		if pos >= run.From && pos < run.To {
			rows = append(rows, pos-run.From)
		}
	}
	return rows
}

// Turned is how far a knob is turned, and what it is worth there.
type Turned struct {
	Value   float64
	Reached bool    // the recall that was asked for
	Recall  float64 // mean of the sampled rows and heads, as below
	Density float64
	read    int64 // keys of all of them
}

// At turns the knob to a value.
func (s *Search) At(value float64) (t Turned, err error) {
	s.Setting = float32(value)
	all, err := s.Receipts()
	t.Value = value
	t.Recall, t.Density = Means(all)
	for _, x := range all {
		t.read += x.Read
	}
	return t, err
}

// Turn turns the knob so that the mean recall of the samples is reached with the fewest keys. Where nothing reaches it, the setting that reads
// most stays.
func (s *Search) Turn(recall float64) (best Turned, err error) {
	at := func(x float64) (t Turned, err error) {
		value := math.NaN()
		if s.Knob.Name != "" {
			value = s.Knob.Turn(x, s.Keys())
		}
		t, err = s.At(value)
		t.Reached = t.Recall >= recall
		return t, err
	}
	best, err = at(1)
	if err != nil || !best.Reached || s.Knob.Name == "" {
		return best, err
	}
	least, err := at(0) // has not been reached
	if err != nil || least.Reached {
		return least, err
	}
	lo, hi := 0.0, 1.0
	const (
		tries  = 40 // a knob may go from -1e6 to 1e6, and matter between 0 and 20
		enough = 5e-5
	)
	for i := range tries {
		if best.read == least.read || best.Recall < recall+enough {
			break
		}
		// Two times of three on the line between both ends, which is near where recall is smooth; else in the middle, which always halves.
		x := (lo + hi) / 2
		if i%3 != 0 && best.Recall > least.Recall {
			x = lo + (hi-lo)*min(0.95, max(0.05, (recall+enough/2-least.Recall)/(best.Recall-least.Recall)))
		}
		mid, err := at(x)
		switch {
		case err != nil:
			return best, err
		case mid.Reached:
			hi, best = x, mid
		default:
			lo, least = x, mid
		}
	}
	s.Setting = float32(best.Value)
	return best, nil
}

// Means are those of recall and density.
func Means(all []Receipt) (recall, density float64) {
	for _, x := range all {
		recall, density = recall+x.Recall/float64(len(all)), density+x.Density()/float64(len(all))
	}
	return recall, density
}
