package serve

import (
	"fmt"

	"github.com/winnow-llm/winnow/model"
)

// ExpertPolicy is what an operator decides about experts of requests. The zero value lets requests ask for anything, and those that do not ask
// take all that the model does.
type ExpertPolicy struct {
	// Default is with how few experts answers make do whose request does not say. A single number of TopK above a layer's own stands for that;
	// models without experts pass it over.
	Default model.Experts
	// Limit is how far a request may go in each field; what is not in it may not be asked for. TopK is one number at most. nil = as far as it likes.
	Limit  *model.Experts
	Closed bool // requests may not say anything about experts
	Secret bool // requests may not ask for ids
}

// usual is Default for a model; nil where it asks for nothing of it. The error is a *model.ExpertsError.
func (p *ExpertPolicy) usual(s *model.Spec) (*model.Experts, error) {
	x := p.Default
	if s.ExpertLayers() == 0 {
		return nil, nil
	}
	if len(x.TopK) == 1 {
		k := x.TopK[0]
		x.TopK = nil
		for _, l := range s.Layers {
			if l.Router != nil {
				x.TopK = append(x.TopK, min(k, l.Router.K))
			}
		}
	}
	if line, err := s.Wish(&x); line == nil {
		return nil, err
	}
	return &x, nil
}

// allows says whether a request may ask for x, which the model can do. The error is a *model.ExpertsError.
func (p *ExpertPolicy) allows(x *Experts, s *model.Spec) error {
	switch {
	case p.Closed:
		return &model.ExpertsError{Why: "this server lets no request choose its experts"}
	case p.Secret && x.ReturnIDs:
		return &model.ExpertsError{Field: "return_ids", Why: "this server does not tell"}
	case p.Limit == nil:
		return nil
	}
	if err := p.allowsTopK(x, s); err != nil {
		return err
	}
	least := p.Limit.Mass
	if least == 0 {
		least = 1
	}
	if x.Mass > 0 && x.Mass < least {
		return &model.ExpertsError{Field: "mass", Why: fmt.Sprintf("is %v, this server allows no less than %v", x.Mass, least)}
	}
	for _, f := range []struct {
		name      string
		got, most float32
	}{{"min_p", x.MinP, p.Limit.MinP}, {"skip_beta", x.SkipBeta, p.Limit.SkipBeta}} {
		if f.got > f.most {
			return &model.ExpertsError{Field: f.name, Why: fmt.Sprintf("is %v, this server allows no more than %v", f.got, f.most)}
		}
	}
	return nil
}

// allowsTopK holds each layer to its own number or the limit, whichever is less.
func (p *ExpertPolicy) allowsTopK(x *Experts, s *model.Spec) error {
	if len(x.TopK) == 0 {
		return nil
	}
	at := 0
	for i, l := range s.Layers {
		if l.Router == nil {
			continue
		}
		least := l.Router.K
		if len(p.Limit.TopK) > 0 {
			least = min(least, p.Limit.TopK[0])
		}
		k := x.TopK[0]
		if len(x.TopK) > 1 {
			k = x.TopK[at]
		}
		if k > 0 && k < least {
			return &model.ExpertsError{Field: "top_k", Why: fmt.Sprintf("is %d for layer %d, this server allows no less than %d", k, i, least)}
		}
		at++
	}
	return nil
}
