package compress

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// ErrDiffer is wrapped where two models have too little in common to be compared.
var ErrDiffer = errors.New("compress: not two forms of one model")

// Subject is one of two models that are compared.
type Subject struct {
	Checkpoint *store.Checkpoint // stays the caller's
	Device     tensor.Device     // where the model is loaded for the time of the comparison
	Options    model.Options     // its Limits are ignored
}

// Trial is a comparison of a changed model with the whole one, on a text that the change was not made by.
type Trial struct {
	Whole, Changed Subject
	Text           Text
	Context        int                // most tokens a sequence
	Rows           int                // tokens a step, of all of which both models give logits; 0 = 128
	Progress       func(tokens int64) // told how many tokens were read, after each step; may be nil
}

// Comparison is what a Trial found. Its means are over all tokens that another follows in their sequence.
type Comparison struct {
	Tokens  int64        `json:"tokens"`  // that another follows
	Whole   float64      `json:"whole"`   // perplexity of the whole model
	Changed float64      `json:"changed"` // perplexity of the changed one
	KL      float64      `json:"kl"`      // mean divergence of the changed distribution of the next token from the whole one, in nats
	Greedy  float64      `json:"greedy"`  // share of tokens behind which both models find the same likeliest
	Routing []LayerShare `json:"routing"` // layers in which both models have experts
}

// LayerShare is, of one layer, which share of the experts that the whole model chose the changed one chose too, by what experts were
// originally: see moe.ExpertMap.
type LayerShare struct {
	Layer int     `json:"layer"`
	Share float64 `json:"share"`
}

// verifyRows is how many rows of logits a step has where nobody says.
const verifyRows = 128

// Compare runs two models side by side over a text. ErrDiffer: their vocabularies or layers differ in number. ErrText: the text holds no two
// tokens in a row, or what the models cannot read. ErrNumber: a logit is none.
func Compare(ctx context.Context, t Trial) (Comparison, error) {
	lim := walkLimits(model.Limits{Rows: t.Rows, Context: t.Context})
	if t.Rows <= 0 {
		lim = walkLimits(model.Limits{Rows: verifyRows, Context: t.Context})
	}
	lim.Wanted = lim.Rows
	v := &trial{progress: t.Progress}
	v.walk = walk{want: true, after: v.step}
	for i, s := range []Subject{t.Whole, t.Changed} {
		s.Options.Limits = lim
		m, err := s.load(&v.seen[i])
		if err != nil {
			return Comparison{}, err
		}
		defer m.Close()
		v.walk.models = append(v.walk.models, m)
	}
	if err := v.prepare(lim); err != nil {
		return Comparison{}, err
	}
	if err := v.read(ctx, t.Text); err != nil {
		return Comparison{}, err
	}
	return v.result()
}

// load brings a subject onto its device, where seen follows its routers.
func (s Subject) load(seen *routed) (*model.Model, error) {
	spec, err := model.Describe(s.Checkpoint)
	if err != nil {
		return nil, err
	}
	if n := s.Options.Limits.Context; n < 1 || n > spec.Context {
		return nil, fmt.Errorf("%w: sequences of %d tokens, %s was made for 1 to %d", ErrText, n, s.Checkpoint.Path, spec.Context)
	}
	return model.Load(s.Checkpoint, model.Placement{Device: tensor.Observed(s.Device, seen.see)}, s.Options)
}

// routed is what the routers of a model chose in the step that ran last.
type routed struct {
	ids    []int32         // of the dispatch that ran last
	layers map[int][]int32 // rows x k, by layer
}

func (r *routed) see(op tensor.Op, read func(tensor.Mat) []byte) {
	switch op := op.(type) {
	case *moe.Dispatch:
		r.ids = tensor.HostMat("", quant.I32, op.IDs.Rows, op.IDs.Cols, read(op.IDs)).I32()
	case *moe.FFN:
		layer, ok := layerOf(op.Banks[0].Gate.Name, "")
		if !ok {
			panic("winnow: bug: compress: experts of " + op.Banks[0].Gate.String())
		}
		if r.layers == nil {
			r.layers = map[int][]int32{}
		}
		r.layers[layer] = r.ids
	}
}

// trial is a comparison under way. Index 0 is the whole model, 1 the changed one.
type trial struct {
	walk     walk
	seen     [2]routed
	logits   [2][]float32 // rows x vocabulary
	nats     [2]float64   // sums of negative log-likelihoods
	kl       float64
	greedy   int64
	tokens   int64   // that another follows
	passed   int64   // tokens of all steps
	chosen   []int64 // experts of the whole model, by layer
	agreed   []int64 // of these, chosen by the changed one too
	progress func(tokens int64)
}

func (v *trial) prepare(lim model.Limits) error {
	whole, changed := v.walk.models[0].Spec(), v.walk.models[1].Spec()
	if whole.Vocab != changed.Vocab || len(whole.Layers) != len(changed.Layers) {
		return fmt.Errorf("%w: %d ids and %d layers, and %d and %d", ErrDiffer, whole.Vocab, len(whole.Layers), changed.Vocab, len(changed.Layers))
	}
	v.logits[0], v.logits[1] = make([]float32, lim.Rows*whole.Vocab), make([]float32, lim.Rows*whole.Vocab)
	v.chosen, v.agreed = make([]int64, len(whole.Layers)), make([]int64, len(whole.Layers))
	return nil
}

func (v *trial) read(ctx context.Context, text Text) error {
	for ids, err := range text.Sequences {
		if err == nil {
			err = checkSequence(ids, v.walk.models[0])
		}
		if err == nil && !v.walk.fits(len(ids)) {
			err = v.walk.run(ctx)
		}
		if err == nil {
			err = v.walk.feed(ctx, ids)
		}
		if err != nil {
			return err
		}
	}
	return v.walk.run(ctx)
}

// step compares what both models gave for the rows of a step.
func (v *trial) step(s *model.Step) error {
	vocab := v.walk.models[0].Spec().Vocab
	for i, m := range v.walk.models {
		model.ReadF32(m.Queue(), m.Batch().Logits, v.logits[i][:len(s.IDs)*vocab])
		if err := m.Queue().Sync(); err != nil {
			return err
		}
	}
	for row, next := range v.walk.next {
		if next < 0 {
			continue
		}
		whole, changed := v.logits[0][row*vocab:(row+1)*vocab], v.logits[1][row*vocab:(row+1)*vocab]
		logWhole, logChanged := logSum(whole), logSum(changed)
		kl := divergence(whole, changed, logWhole, logChanged)
		if math.IsNaN(kl) || math.IsInf(kl, 0) {
			return fmt.Errorf("%w: logits of a divergence of %v", ErrNumber, kl)
		}
		v.kl += kl
		v.nats[0] += logWhole - float64(whole[next])
		v.nats[1] += logChanged - float64(changed[next])
		if largest(whole) == largest(changed) {
			v.greedy++
		}
		v.tokens++
	}
	for layer := range v.chosen {
		v.route(layer, len(s.IDs))
	}
	if v.passed += int64(len(s.IDs)); v.progress != nil {
		v.progress(v.passed)
	}
	return nil
}

// route compares the experts that a layer's rows went to.
func (v *trial) route(layer, rows int) {
	whole, changed := &v.walk.models[0].Spec().Layers[layer], &v.walk.models[1].Spec().Layers[layer]
	if whole.Router == nil || changed.Router == nil {
		return
	}
	for row := range rows {
		ours := v.seen[0].layers[layer][row*whole.Router.K:][:whole.Router.K]
		theirs := v.seen[1].layers[layer][row*changed.Router.K:][:changed.Router.K]
		for _, a := range ours {
			if a < 0 {
				continue
			}
			v.chosen[layer]++
			if slices.ContainsFunc(theirs, func(b int32) bool { return b >= 0 && changed.Map.Orig[b] == whole.Map.Orig[a] }) {
				v.agreed[layer]++
			}
		}
	}
}

func (v *trial) result() (Comparison, error) {
	if v.tokens == 0 {
		return Comparison{}, fmt.Errorf("%w: no token follows another", ErrText)
	}
	n := float64(v.tokens)
	c := Comparison{
		Tokens: v.tokens, Whole: math.Exp(v.nats[0] / n), Changed: math.Exp(v.nats[1] / n), KL: max(0, v.kl/n), Greedy: float64(v.greedy) / n,
	}
	for layer, chosen := range v.chosen {
		if chosen > 0 {
			c.Routing = append(c.Routing, LayerShare{layer, float64(v.agreed[layer]) / float64(chosen)})
		}
	}
	return c, nil
}

// logSum is the logarithm of the sum of the exponentials of logits.
func logSum(logits []float32) float64 {
	top, sum := float64(logits[largest(logits)]), 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - top)
	}
	return top + math.Log(sum)
}

// divergence is Kullback and Leibler's, of softmax(b) from softmax(a): the sum of p(a) (log p(a) - log p(b)), in nats. The logSums of both are
// given.
func divergence(a, b []float32, sumA, sumB float64) (kl float64) {
	for i, v := range a {
		logA, logB := float64(v)-sumA, float64(b[i])-sumB
		kl += math.Exp(logA) * (logA - logB)
	}
	return kl
}

// largest is the index of the largest value, the lowest on ties.
func largest(v []float32) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}
