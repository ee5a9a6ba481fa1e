package compress

import (
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/model"
)

// thin lists the experts of a layer that some tokens chose, but too few for a mean to be trusted. Those that no token chose are not among
// them: that they are never chosen is itself what was seen.
func (l LayerProfile) thin() []int {
	return l.below(1)
}

// below lists the experts that saw fewer tokens than they should have, but at least so many.
func (l LayerProfile) below(least int64) []int {
	var out []int
	for e, n := range l.Usage {
		if n >= least && n < LeastTokens {
			out = append(out, e)
		}
	}
	return out
}

// covered refuses a profile whose text was too short to give every expert its share, and one that leaves over a tenth of a layer's
// experts thin.
func (p *Profile) covered(layers []int) error {
	for _, l := range layers {
		lp := p.Layers[l]
		if share := lp.Tokens * int64(lp.K) / int64(len(lp.Usage)); share < LeastTokens {
			return fmt.Errorf("%w: layer %d: %d tokens are %d an expert, want %d: %s; a longer text helps, --force goes on",
				ErrCoverage, l, lp.Tokens, share, LeastTokens, lp.named(lp.below(0)))
		}
		if thin := lp.thin(); 10*len(thin) > len(lp.Usage) {
			return fmt.Errorf("%w: layer %d: fewer than %d tokens chose %s; a longer or wider text helps, --force goes on",
				ErrCoverage, l, LeastTokens, lp.named(thin))
		}
	}
	return nil
}

// named writes experts with what they saw: "expert 4 (12 tokens), 17 (0 tokens)", the first eight of them.
func (l LayerProfile) named(experts []int) string {
	var b strings.Builder
	for i, e := range experts {
		switch i {
		case 0:
			b.WriteString("expert ")
		case 8:
			fmt.Fprintf(&b, " and %d more", len(experts)-8)
			return b.String()
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d (%d tokens)", e, l.Usage[e])
	}
	return b.String()
}

// fits refuses a profile of a model of another shape, and with ErrProfile numbers that no observation gives.
func (p *Profile) fits(s model.Spec) error {
	if len(p.Layers) != len(s.Layers) {
		return fmt.Errorf("%w: a profile of %d layers for a model of %d", ErrPlan, len(p.Layers), len(s.Layers))
	}
	for i, ls := range s.Layers {
		if ls.Router == nil {
			continue
		}
		if got := len(p.Layers[i].Usage); got != ls.Router.Experts {
			return fmt.Errorf("%w: layer %d: a profile of %d experts, the model has %d", ErrPlan, i, got, ls.Router.Experts)
		}
		if err := p.Layers[i].check(i); err != nil {
			return err
		}
	}
	return nil
}
