package serve

import (
	"errors"
	"fmt"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
)

// Experts is with how few experts the tokens of prompt and answer make do. The zero value takes all that the model does, and asks what they did.
type Experts struct {
	TopK      []int   // most experts a token: one number for all layers, or one for each layer of experts; 0 or none = the model's own
	MinP      float32 // least factor of an expert beside the heaviest one's; 0 = any
	Mass      float32 // the fewest experts whose share of the factors reaches it; 0 and 1 = all
	SkipBeta  float32 // least factor of an expert beside the first one's; 0 = any
	ReturnIDs bool    // Usage.Experts has the ids of the experts of every token
}

// ExpertUsage is what experts did for an answer and its prompt.
type ExpertUsage = engine.ExpertStats

// ExpertCounts is which experts of a layer were chosen since a model was loaded.
type ExpertCounts = model.ExpertCounts

// ExpertTraffic is what such a layer has read whose experts are not all in memory.
type ExpertTraffic = model.ExpertTraffic

// NoExpert stands in ExpertUsage.IDs for a place that no expert has.
const NoExpert = engine.NoExpert

// Experts is which experts of each layer were chosen since the model was loaded, a second ago or later; nil where there are none or nothing ran.
func (m *Model) Experts() []ExpertCounts { return m.engine.Experts() }

// experts is with how few experts a generation makes do, in the engine's words, once the model was found to be able to do it and its operator to
// allow it: as the generation says, else as the operator does.
func (m *Model) experts(g *Generation) (*model.Experts, error) {
	if g.Experts == nil {
		return m.usual, nil
	}
	x := &model.Experts{TopK: g.Experts.TopK, MinP: g.Experts.MinP, Mass: g.Experts.Mass, SkipBeta: g.Experts.SkipBeta}
	spec := m.net.Spec()
	_, err := spec.Wish(x)
	if err == nil {
		err = m.policy.allows(g.Experts, spec)
	}
	if err != nil {
		param, why := "moe", err.Error()
		if e, ok := errors.AsType[*model.ExpertsError](err); ok && e.Field != "" {
			param, why = "moe."+e.Field, e.Why
		}
		return nil, &RequestError{Param: param, Why: why}
	}
	return x, nil
}

// refusedRoutes is an error of the engine; that ids of experts would be too many is the request's.
func refusedRoutes(err error) error {
	if errors.Is(err, engine.ErrRoutes) {
		return &RequestError{Param: "moe.return_ids", Why: fmt.Sprintf("would be too many: %v; a lower max_tokens makes them fewer", err)}
	}
	return err
}
