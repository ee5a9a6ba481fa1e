package model

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/tensor"
)

// ErrSparse is wrapped where a model cannot be served as a setting of its selectors says.
var ErrSparse = errors.New("model: sparse attention")

// Selection is a selector that a model's layers of full attention may be served by, beside reading everything.
type Selection struct {
	Name   string             // of an attention.Kind
	Knobs  []float32          // one for every layer of the model, or one for all; empty = the kind's default
	Params map[string]float64 // those that are not the kind's default
	// Recall is that for which a profile has the knobs: of several selections of a name and phase a request gets the one whose recall is what it
	// asks for, or the next above; 0 = the knobs are of no profile.
	Recall float32
	Phases attention.Phases // that it serves; 0 = all of its kind
}

// check says whether a selection can be meant for so many layers.
func (s *Selection) check(layers int) (*attention.Kind, error) {
	k := attention.KindOf(s.Name)
	if k == nil {
		return nil, fmt.Errorf("%w: there is no selector %q; there are %q", ErrSparse, s.Name, attention.Kinds(attention.Prefill|attention.Decode))
	}
	if n := len(s.Knobs); n > 1 && n != layers {
		return nil, fmt.Errorf("%w: %s has %d numbers of %s for %d layers", ErrSparse, s.Name, n, k.Knob.Name, layers)
	}
	if err := k.Check(attention.Setting{Knobs: s.Knobs, Params: s.Params}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSparse, err)
	}
	return k, nil
}

// sparse is what the layers have in common whose keys selectors choose: those of full attention, all of one shape.
type sparse struct {
	env       *attention.Env
	kinds     []*attention.Kind
	selectors []*attention.Selector // by number; the first one reads everything
	at        []int                 // by layer of the model: its number in the Env; -1 = not among them
}

// sparse prepares a model's selectors; nil where it has none.
func (l *loader) sparse(s *Spec, m *Model) *sparse {
	if len(l.opt.Sparse) == 0 || l.err != nil {
		return nil
	}
	sp, layers := &sparse{at: slices.Repeat([]int{-1}, len(s.Layers))}, s.FullLayers()
	if len(layers) == 0 {
		l.fail(fmt.Errorf("%w: no layer of this model reads everything, so there is nothing to select", ErrSparse))
		return nil
	}
	shape := &s.Layers[layers[0]]
	sc, lay := &m.scratch, &m.batch.Layout
	q, kv := shape.Heads*shape.HeadDim, shape.KVHeads*shape.HeadDim
	sp.env = &attention.Env{
		Device: l.device, Layout: lay, Q: narrow(sc.q, q), K: narrow(sc.k, kv), Heads: shape.Heads, Scale: shape.Scale,
		Pages: l.opt.Limits.Pages, Context: l.opt.Limits.Context, Freq: shape.Rope.Freq, Turn: shape.Rope.Scale, Pairs: shape.Rope.Pairs,
	}
	for n, i := range layers {
		sp.at[i] = n
		sp.env.Caches = append(sp.env.Caches, m.caches[i])
	}
	blocks := sp.env.Blocks()
	sp.env.Plan, l.err = attention.NewPlan(l.device, &lay.Tiles, shape.Heads, blocks, attention.KeyRoom(blocks))
	if l.err != nil {
		return sp
	}
	if m.batch.receipts = l.newReceipts(sp); l.err != nil {
		return sp
	}
	for i, want := range slices.Insert(slices.Clone(l.opt.Sparse), 0, Selection{Name: "full"}) {
		k, err := want.check(len(s.Layers))
		if err != nil {
			l.fail(err)
			return sp
		}
		want, heads := l.heads(want, s, layers)
		gates := l.gates(GateKind(want.Name))
		if l.err != nil {
			return sp
		}
		knobs := want.of(layers)
		if want.Recall > 0 && k.Knob.Name == budgetKnob { // found on longer sequences than there may be here
			for i := range knobs {
				knobs[i] = min(knobs[i], float32(max(attention.PageTokens, l.opt.Limits.Context)))
			}
		}
		sel, err := k.Prepare(sp.env, attention.Setting{Number: i, Knobs: knobs, Params: want.Params, Gates: gates.of(layers), Heads: heads})
		if err != nil {
			l.fail(fmt.Errorf("%w: %s: %w", ErrSparse, want.Name, err))
			return sp
		}
		sel.Caps.Fingerprint += gates.print
		sp.kinds, sp.selectors = append(sp.kinds, k), append(sp.selectors, sel)
		if align := sel.Caps.ChunkAlign; align > l.rows {
			l.fail(fmt.Errorf("%w: %s plans %d tokens of a prompt together, and a step has %d", ErrSparse, want.Name, align, l.rows))
			return sp
		}
	}
	l.lanes(sp, m)
	return sp
}

// of is the knobs of some layers.
func (s *Selection) of(layers []int) (knobs []float32) {
	for _, i := range layers {
		if len(s.Knobs) > 0 {
			knobs = append(knobs, s.Knobs[min(i, len(s.Knobs)-1)])
		}
	}
	return knobs
}

// alike says whether selectors can serve two layers together.
func alike(a, b *LayerSpec) bool {
	return a.Window == b.Window && a.Heads == b.Heads && a.KVHeads == b.KVHeads && a.HeadDim == b.HeadDim && a.Scale == b.Scale &&
		a.Rope.Scale == b.Rope.Scale && a.Rope.Pairs == b.Rope.Pairs && slices.Equal(a.Rope.Freq, b.Rope.Freq)
}

// serves says whether selectors choose a layer's keys.
func (s *sparse) serves(layer int) bool { return s != nil && s.at[layer] >= 0 }

// free gives the selectors' memory back.
func (s *sparse) free(d tensor.Device) {
	if s == nil {
		return
	}
	for _, sel := range s.selectors {
		sel.Free(d)
	}
	if s.env != nil {
		s.env.Free()
		if s.env.Plan != nil {
			s.env.Plan.Free(d)
		}
	}
}

// Reading is which keys a request's tokens read, by the names of selectors. The zero value reads everything.
type Reading struct {
	Prefill, Decode         string   // "" = full
	PrefillKnob, DecodeKnob *float32 // nil = the selector's own
	// DecodeFrom is the position from which on generated tokens read by Decode; those before read everything.
	DecodeFrom int
	Recall     float32 // share of the softmax that is meant to be read; 0 = nobody says
	Whole      bool    // keep all pages, also those that no row is to read any more: then what was left out can be looked at
}

// ReadingError says what of a Reading a model cannot do.
type ReadingError struct {
	Field string // in the words of the wire: "prefill"; "" = nothing of it
	Why   string
}

func (e *ReadingError) Error() string {
	if e.Field == "" {
		return e.Why
	}
	return e.Field + " " + e.Why
}

// Policy is a Reading in a model's own numbers, one a sequence of a step.
type Policy struct {
	Prefill, Decode int     // selectors; 0 reads everything
	Knob            float32 // of Prefill; NaN = the selector's own
	Turns           []Turn  // of Decode's knob, by position; none = the selector's own
	From            int     // see Reading.DecodeFrom

	Tail   int    // so many tokens at the prompt's end are planned otherwise than where the prompt goes on
	Align  int    // how many neighbouring tokens of a prompt are planned together
	Cached string // tells apart sequences whose prompts leave other values in the cache; "" = everything is read

	Kept     *attention.Retention // what is kept of the past, see Model.Retained; nil = everything
	KeptFrom int                  // once so many tokens are computed
}

// Turn is what a knob is turned to from a position on.
type Turn struct {
	From int
	Knob float32
}

// Reads are the names of the selectors that a request may ask for: full, and those that the model was loaded with.
func (m *Model) Reads() []string {
	names := []string{"full"}
	if m.sparse != nil {
		for _, s := range m.opt.Sparse {
			if !slices.Contains(names, s.Name) {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

// Policy finds a Reading's selectors. The error is a *ReadingError.
func (m *Model) Policy(r *Reading) (Policy, error) {
	p := Policy{Align: 1, Knob: float32(math.NaN()), From: r.DecodeFrom}
	var err error
	if p.Prefill, err = m.reader(asked{"prefill", r.Prefill, attention.Prefill, r.PrefillKnob}, r); err != nil {
		return p, err
	}
	if p.Decode, err = m.reader(asked{"decode", r.Decode, attention.Decode, r.DecodeKnob}, r); err != nil {
		return p, err
	}
	if r.PrefillKnob != nil && p.Prefill > 0 {
		p.Knob = *r.PrefillKnob
	}
	if r.DecodeKnob != nil && p.Decode > 0 {
		p.Turns = []Turn{{0, *r.DecodeKnob}}
	}
	if p.Prefill > 0 {
		caps := m.sparse.selectors[p.Prefill].Caps
		p.Align, p.Tail, p.Cached = caps.ChunkAlign, caps.Tail, caps.Fingerprint
		if p.Knob == p.Knob {
			p.Cached += fmt.Sprint(" knob=", p.Knob)
		}
	}
	return p, nil
}

// asked is the selector that a Reading names for a phase.
type asked struct {
	field, name string
	phase       attention.Phases
	knob        *float32 // nil = the selector's own
}

// reader is the number of a selector that is to serve a phase.
func (m *Model) reader(a asked, r *Reading) (int, error) {
	if a.name == "" || a.name == "full" {
		return 0, nil
	}
	if !slices.Contains(m.Reads(), a.name) {
		return 0, &ReadingError{a.field, fmt.Sprintf("is %q, this model is served with %q", a.name, m.Reads())}
	}
	k := attention.KindOf(a.name)
	if k.Phases&a.phase == 0 {
		return 0, &ReadingError{a.field, fmt.Sprintf("is %q, which is not for it", a.name)}
	}
	if a.knob != nil {
		if err := k.Knob.Check(float64(*a.knob)); err != nil {
			return 0, &ReadingError{"", err.Error()}
		}
	}
	i, err := m.variant(a, r.Recall)
	if err == nil && i == 0 {
		err = &ReadingError{a.field, fmt.Sprintf("is %q, which this model is not served with for it", a.name)}
	}
	return i, err
}

// Budget is how many keys a policy's decode selector keeps; 0 where it has no such knob.
func (m *Model) Budget(p *Policy) float32 {
	if p.Decode == 0 || m.sparse.kinds[p.Decode].Knob.Name != budgetKnob {
		return 0
	}
	for _, t := range p.Turns {
		return t.Knob
	}
	if knobs := m.opt.Sparse[p.Decode-1].Knobs; len(knobs) > 0 {
		return slices.Max(knobs)
	}
	return float32(m.sparse.kinds[p.Decode].Knob.Default)
}

// at is the selector of a token and what its knob is turned to.
func (p *Policy) at(pos, prompt int) (selector int, knob float32) {
	own := float32(math.NaN())
	switch {
	case pos < prompt:
		return p.Prefill, p.Knob
	case p.Decode == 0 || pos < p.From:
		return 0, own
	}
	for _, t := range p.Turns {
		if t.From <= pos {
			own = t.Knob
		}
	}
	return p.Decode, own
}

// Alone says whether a generated token at a position is a tile by itself, so that no step has two of them of one sequence.
func (p *Policy) Alone(pos int) bool { return p.Decode > 0 && pos >= p.From }
