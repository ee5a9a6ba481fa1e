package compress

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// GateTraining is what is asked of TrainGates.
type GateTraining struct {
	Checkpoint *store.Checkpoint // stays the caller's
	Device     tensor.Device     // where the model is loaded for the time of the training
	Options    model.Options     // as in Study; Context is at least LeastGateTokens
	Text       Text              // every fifth sequence is held out
	Kinds      []model.GateKind
	Steps      int
	Batch      int     // sequences a step; 0 = 1
	Rows       int     // queries of a sequence that are learnt from in a step; 0 = all
	Rate       float64 // of learning; 0 = 1e-3
	Target     GateTarget
	Trial      int // held-out sequences that the gates are measured on; 0 = 8
	Seed       uint64
	Progress   func(GateProgress) // after each step; may be nil
}

// GateTarget is what gates are taught.
type GateTarget string

const (
	// Peak is the most that a single key of a block gets, as SeerAttention and SeerAttention-R are taught; also where none is named.
	Peak GateTarget = "peak"
	// Mass is what all keys of a block get together, which recall counts. Queries that attend to their own block alone teach little.
	Mass GateTarget = "mass"
)

// LeastGateTokens is how long a sequence must be to have blocks to choose among.
const LeastGateTokens = 4 * blockTokens

// GateProgress is how far a training is.
type GateProgress struct {
	Step, Steps int
	Loss        []float64 // of the step, by kind
}

// TrainedGates are gates of one kind and what they are worth.
type TrainedGates struct {
	Gates   *model.Gates // in the order of files
	Loss    float64      // on what was held out
	Recalls []GateRecall // likewise, by density
	Layers  []GateRecall // by layer, at a quarter
}

// GateRecall is how much of the attention to earlier blocks is found in those that a score puts first, as a part of all of it.
type GateRecall struct {
	Density float64 // part of the earlier blocks that is taken
	Gate    float64
	Best    float64 // of the blocks that really have most
	Peak    float64 // of those in which the most goes to a single key, which is what gates are taught

	Untrained []float64 // of those that score highest without a gate, by UntrainedOf
}

// TrainGates teaches gates to say where a model's own attention goes. The model stays as it is. The result depends on the model, the device's
// kernels, the ids, and the numbers asked for, not on how many goroutines work. ErrText: no sequence is as long as LeastGateTokens, or none of
// those that are held out; model.ErrAssumption: the model's layers can have no gates.
func TrainGates(ctx context.Context, ask GateTraining) ([]TrainedGates, error) {
	spec, err := model.Describe(ask.Checkpoint)
	if err != nil {
		return nil, err
	}
	lim := &ask.Options.Limits
	if lim.Context < LeastGateTokens || lim.Context > spec.Context {
		return nil, fmt.Errorf("%w: sequences of %d tokens, %d to %d are needed", ErrText, lim.Context, LeastGateTokens, spec.Context)
	}
	length := lim.Context
	*lim = walkLimits(*lim)
	size, err := model.GateSizes(&spec)
	if err != nil {
		return nil, err
	}
	base, err := model.Identity(ask.Checkpoint)
	if err != nil {
		return nil, err
	}
	e := &eavesdropper{layers: make([]reading, len(spec.Layers))}
	m, err := model.Load(ask.Checkpoint, model.Placement{Device: tensor.Observed(ask.Device, e.see)}, ask.Options)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	e.walk = walk{models: []*model.Model{m}, after: func(*model.Step) error { return nil }}
	var to []*turns
	for i := range spec.Layers {
		to = append(to, turnsOf(to, &spec, i, length))
	}
	var all []*gateSchool
	for _, kind := range ask.Kinds {
		s := newGateSchool(&ask, kind, to, size)
		s.scale = spec.Layers[0].Scale
		s.gates.Base, s.gates.Pairs = base, spec.Layers[0].Rope.Pairs
		all = append(all, s)
	}
	if err := teach(ctx, &ask, e, all); err != nil {
		return nil, err
	}
	if err := examine(ctx, &ask, e, all); err != nil {
		return nil, err
	}
	var out []TrainedGates
	for _, s := range all {
		s.gates.Published(len(spec.Layers[0].Rope.Freq))
		out = append(out, s.result())
	}
	return out, nil
}

// turnsOf are the rotations of a layer, those of an earlier one where it turns alike.
func turnsOf(have []*turns, s *model.Spec, layer, positions int) *turns {
	r := s.Layers[layer].Rope
	for i, t := range have {
		if before := s.Layers[i].Rope; before.Scale == r.Scale && fmt.Sprint(before.Freq) == fmt.Sprint(r.Freq) {
			return t
		}
	}
	return newTurns(r, positions)
}

// teach runs all steps.
func teach(ctx context.Context, ask *GateTraining, e *eavesdropper, all []*gateSchool) error {
	next, stop := iter.Pull2(again(ask.Text))
	defer stop()
	batch := max(1, ask.Batch)
	random := rand.New(rand.NewPCG(ask.Seed, 1))
	for step := range ask.Steps {
		losses := make([]float64, len(all))
		for range batch {
			ids, err, ok := next()
			if !ok {
				return fmt.Errorf("%w: no sequence of %d tokens that is not held out", ErrText, LeastGateTokens)
			}
			if err == nil {
				err = e.read(ctx, ids)
			}
			if err != nil {
				return err
			}
			for i, s := range all {
				losses[i] += s.learn(e.layers, 1/float32(batch), random) / float64(batch)
			}
		}
		for i, s := range all {
			if err := s.step(step, losses[i]); err != nil {
				return err
			}
		}
		if ask.Progress != nil {
			ask.Progress(GateProgress{step + 1, ask.Steps, losses})
		}
	}
	return nil
}

// again is the sequences of a text that are long enough and not held out, over and over.
func again(text Text) iter.Seq2[[]int32, error] {
	return func(yield func([]int32, error) bool) {
		for found := true; found; {
			found = false
			for ids, err := range text.Only(func(seq int) bool { return !HeldOut(seq) }).Sequences {
				if err == nil && len(ids) < LeastGateTokens {
					continue
				}
				found = true
				if !yield(ids, err) || err != nil {
					return
				}
			}
		}
	}
}

// examine measures the gates on what was held out.
func examine(ctx context.Context, ask *GateTraining, e *eavesdropper, all []*gateSchool) error {
	left := ask.Trial
	if left == 0 {
		left = 8
	}
	tried := 0
	random := rand.New(rand.NewPCG(ask.Seed, 2))
	for ids, err := range ask.Text.Only(HeldOut).Sequences {
		if err == nil && len(ids) < LeastGateTokens {
			continue
		}
		if err == nil {
			err = e.read(ctx, ids)
		}
		if err != nil {
			return err
		}
		for _, s := range all {
			s.sit(e.layers, random)
		}
		if tried++; tried == left {
			break
		}
	}
	if tried == 0 {
		return fmt.Errorf("%w: none of the held-out sequences, every fifth, has %d tokens", ErrText, LeastGateTokens)
	}
	return nil
}
