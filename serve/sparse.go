package serve

import (
	"errors"
	"fmt"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
)

// Sparsity is by which selectors the tokens of prompt and answer read, and how closely.
type Sparsity = model.Sparsity

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
