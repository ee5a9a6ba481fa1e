package compress

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
)

// Errors of planning, by when they happen. The wrapping names what is missing or out of range, and in which layer.
var (
	ErrPlan     = errors.New("compress: no plan")                         // a request that no plan can meet
	ErrCoverage = errors.New("compress: the profile has seen too little") // a plan from it would be noise
)

// Plan is which experts of a model stay.
type Plan struct {
	Overlay moe.Overlay
	// Average lists, by layer, clusters of router rows, the survivor first, for whoever rewrites the model: the weights and the router row
	// of the survivor become the mean of its cluster's. The overlay, which cannot change weights, drops all but the survivors.
	Average map[int][][]int
}

// Merged is the overlay with the clusters of Average merged in place of dropped: a writer that averages what is merged makes their means; where
// the overlay is applied at load, all rows of a cluster lead to its survivor.
func (p Plan) Merged() moe.Overlay {
	o := p.Overlay
	o.Layers = maps.Clone(o.Layers)
	for l, sets := range p.Average {
		ol := o.Layers[l]
		ol.Merge = slices.Clone(sets)
		merged := slices.Concat(sets...)
		ol.Drop = slices.DeleteFunc(slices.Clone(ol.Drop), func(e int) bool { return slices.Contains(merged, e) })
		if len(ol.Drop) == 0 {
			ol.Drop = nil
		}
		o.Layers[l] = ol
	}
	return o
}

// In is what a plan is made of. A method reads what it needs and refuses when that is missing.
type In struct {
	Spec    model.Spec      // of the model as its file has it, whose experts are all there
	Weights *Weights        // STUN's and the hybrid's
	Profile *Profile        // nil = nothing was observed
	Samples map[int]*Sample // NAEE's, by layer
	Model   string          // fingerprint that the overlay is made out to; "" = any model

	Keep   float64 // share of experts that stay, above 0, at most 1
	Floor  int     // fewest experts of a layer; never fewer than a token takes
	Ragged bool    // layers may end with different counts; STUN's always may
	Force  bool    // plans from a profile that has seen too little
	Seed   uint64  // of the random method

	Lambda [2]float64 // STUN and hybrid: weights of router distance and of coactivation; both 0 = {1, 0}
	Kappa  int        // STUN: layers of fewer clusters are averaged; 0 = 3
}

// Method plans which experts stay: a pure function, so that the same input gives the same plan.
type Method func(In) (Plan, error)

var methods = map[string]Method{}

func registerMethod(name string, m Method) Method {
	if methods[name] != nil {
		panic("winnow: bug: compress: method " + name + " is registered twice")
	}
	methods[name] = m
	return m
}

// MethodByName finds a method; ErrPlan when there is none.
func MethodByName(name string) (Method, error) {
	if m := methods[name]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("%w: method %q, want one of %s", ErrPlan, name, strings.Join(MethodNames(), ", "))
}

// MethodNames lists the methods in alphabetical order.
func MethodNames() []string {
	names := make([]string, 0, len(methods))
	for n := range methods {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// layers lists the layers of experts, and refuses what no method plans for.
func (in In) layers() ([]int, error) {
	if !(in.Keep > 0 && in.Keep <= 1) {
		return nil, fmt.Errorf("%w: keep %v of the experts, want a share above 0, at most 1", ErrPlan, in.Keep)
	}
	var out []int
	for l, ls := range in.Spec.Layers {
		if ls.Router == nil {
			continue
		}
		if !slices.Equal(ls.Map.Phys, moe.EveryExpert(ls.Router.Experts).Phys) {
			return nil, fmt.Errorf("%w: layer %d has experts left out, merged or moved already: plan for the model without an overlay", ErrPlan, l)
		}
		out = append(out, l)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: a %s model without experts", ErrPlan, in.Spec.Arch)
	}
	if in.Profile != nil {
		if err := in.Profile.fits(in.Spec); err != nil {
			return nil, err
		}
		if of := in.Profile.Model; of != "" && in.Model != "" && of != in.Model && !in.Force {
			return nil, fmt.Errorf("%w: the profile is of model %.12s, this is %.12s; --force takes it all the same", ErrPlan, of, in.Model)
		}
	}
	return out, nil
}

// groups is how many groups of neighbours a router's rows fall into, at least 1.
func groups(r *moe.RouterSpec) int { return max(r.Groups, 1) }

// fewest is how few experts a layer may end with, a multiple of its groups: as many as a token takes, also out of the groups kept.
func (in In) fewest(r *moe.RouterSpec) int {
	g := groups(r)
	least := max(r.K, in.Floor, 1)
	each := (least + g - 1) / g
	if g > 1 {
		each = max(each, (r.K+r.GroupsKept-1)/r.GroupsKept)
	}
	return min(each*g, r.Experts)
}

// staying is how many of n experts stay: the share, rounded up. The slack takes back what 0.9 of 10 gains in binary.
func (in In) staying(n int) int {
	return min(n, int(math.Ceil(float64(n)*in.Keep-1e-9)))
}

// plan makes the overlay of who goes, by layer.
func (in In) plan(method string, gone map[int][]int) Plan {
	o := moe.Overlay{Format: 1, Model: in.Model, Method: method, Keep: in.Keep, Layers: map[int]moe.OverlayLayer{}}
	if in.Profile != nil {
		seen := in.Profile.Calibration
		o.Calibration = &seen
	}
	for l, drop := range gone {
		if len(drop) > 0 {
			slices.Sort(drop)
			o.Layers[l] = moe.OverlayLayer{Drop: drop}
		}
	}
	return Plan{Overlay: o}
}
