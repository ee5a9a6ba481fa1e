package serve

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
)

// Sparsity is by which selectors the tokens of prompt and answer read, and how closely.
type Sparsity = model.Sparsity

// The words for which pages are kept, see Sparsity.Pages.
const (
	AllPages = model.AllPages
	FewPages = model.FewPages
)

// SparseUsage is what the tokens of an answer and its prompt read.
type SparseUsage = engine.SparseStats

// Selected is what the selectors of a model's keys did since it was loaded.
type Selected = engine.Selected

// SparsePolicy is what an operator decides about the keys that requests read. The zero value reads everything.
type SparsePolicy struct {
	// Default is how answers are read whose request does not say; it names the selectors that models are loaded with.
	Default Sparsity
	// Limit is how closely a request must read: its budget and recall are the least that it may ask for. nil = as it likes.
	Limit  *Sparsity
	Closed bool // requests may not say how they are read

	Auto     bool                   // Default is as a model's own profile says; all keys where there is none
	Profiles []*model.SparseProfile // of this model and of others
	Gates    []string               // files, likewise
	Heads    []*model.Heads         // patterns of heads, likewise
	own      []*model.Gates         // see Of
	pattern  *model.Heads           // likewise
}

// Of is the policy for a checkpoint, with those of its profiles and gates that are the checkpoint's own. The error wraps model.ErrSparse or is
// of a file.
func (p SparsePolicy) Of(c *store.Checkpoint) (SparsePolicy, error) {
	if len(p.Profiles) > 0 {
		is, err := model.Identity(c)
		if err != nil {
			return p, err
		}
		at := slices.IndexFunc(p.Profiles, func(own *model.SparseProfile) bool { return own.Model == is })
		if at >= 0 {
			if err := p.Profiles[at].Fit(c); err != nil {
				return p, err
			}
			if p.Default.Profile = p.Profiles[at]; p.Auto {
				p.Default = p.Profiles[at].Usual()
			}
		}
	}
	p.own, p.pattern = nil, nil
	for _, h := range p.Heads {
		switch err := h.Fit(c); {
		case errors.Is(err, model.ErrHeads): // of a model of another shape
		case err != nil:
			return p, err
		case p.pattern != nil:
			return p, fmt.Errorf("%w: two patterns of heads are for %s: %s and %s", model.ErrSparse, c.Path, p.pattern.File, h.File)
		default:
			p.pattern = h
		}
	}
	for _, file := range p.Gates {
		g, err := model.DescribeGates(file, c)
		switch {
		case errors.Is(err, model.ErrGates), errors.Is(err, model.ErrAssumption): // another model's, or none of this one can be
		case err != nil:
			return p, err
		default:
			p.own = append(p.own, g)
		}
	}
	return p, nil
}

// Load has a network loaded with the policy's selectors. The policy is one that Of gave.
func (p *SparsePolicy) Load(opt *model.Options) {
	opt.Sparse, opt.Gates, opt.Heads = p.Default.Selections(), p.own, p.pattern
}

// allows says whether a request may ask for x. The error is a *model.ReadingError.
func (p *SparsePolicy) allows(x *Sparsity) error {
	switch {
	case p.Closed:
		return &model.ReadingError{Why: "this server lets no request choose which keys it reads"}
	case p.Limit == nil:
		return nil
	case x.Budget > 0 && x.Budget < p.Limit.Budget:
		return &model.ReadingError{Field: "budget", Why: fmt.Sprintf("is %d, this server allows no less than %d", x.Budget, p.Limit.Budget)}
	case x.Recall > 0 && x.Recall < p.Limit.Recall:
		return &model.ReadingError{Field: "recall", Why: fmt.Sprintf("is %v, this server allows no less than %v", x.Recall, p.Limit.Recall)}
	case x.Threshold != nil:
		return &model.ReadingError{Field: "threshold", Why: "is the operator's to choose on this server"}
	}
	return nil
}

// merged is what a request asks for, with the operator's words where it says nothing. A selector that it names serves it from the first token on.
func (p *SparsePolicy) merged(x *Sparsity) Sparsity {
	all := p.Default
	if x.Prefill != "" {
		all.Prefill, all.PrefillFrom = x.Prefill, new(0)
		if x.Prefill != p.Default.Prefill {
			all.Threshold = nil
		}
	}
	if x.Decode != "" {
		all.Decode, all.DecodeFrom = x.Decode, new(0)
		if x.Decode != p.Default.Decode {
			all.Budget = 0
		}
	}
	if x.Budget > 0 {
		all.Budget = x.Budget
	}
	if x.Recall > 0 {
		all.Recall = x.Recall
	}
	if x.Threshold != nil {
		all.Threshold = x.Threshold
	}
	all.Pages = cmp.Or(x.Pages, all.Pages)
	return all
}

// reading is how a generation is read, in the engine's words, once the model was found to be able to do it and its operator to allow it.
func (m *Model) reading(g *Generation, prompt int) (*model.Reading, error) {
	x := m.sparse.Default
	var err error
	if g.Sparse != nil {
		x, err = m.sparse.merged(g.Sparse), m.sparse.allows(g.Sparse)
	}
	var r *model.Reading
	if err == nil {
		r, err = x.Reading(prompt)
	}
	if err == nil {
		_, err = m.net.Policy(r)
	}
	if err != nil {
		param, why := "sparse", err.Error()
		if e, ok := errors.AsType[*model.ReadingError](err); ok && e.Field != "" {
			param, why = "sparse."+e.Field, e.Why
		}
		return nil, &RequestError{Param: param, Why: why}
	}
	return r, nil
}

// Sparsity is how generations are read whose request does not say.
func (m *Model) Sparsity() Sparsity { return m.sparse.Default }

// readable says whether the network can read as the policy has it, for prompts of any length.
func (m *Model) readable() error {
	for _, prompt := range []int{0, m.context} {
		r, err := m.sparse.Default.Reading(prompt)
		if err == nil {
			_, err = m.net.Policy(r)
		}
		if err != nil {
			return fmt.Errorf("%w: the server's default: %w", model.ErrSparse, err)
		}
	}
	return nil
}
