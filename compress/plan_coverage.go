package compress

import (
	"fmt"
	"math"
	"strings"

	"github.com/winnow-llm/winnow/model"
)

// thinTokens is how many tokens an expert must have seen before its mean is more than noise.
const thinTokens = 256

// Thin lists the experts of a layer that some tokens chose, but too few for a mean to be trusted. Those that no token chose are not among
// them: that they are never chosen is itself what was seen.
func (l LayerProfile) Thin() []int {
	var out []int
	for e, n := range l.Usage {
		if n > 0 && n < thinTokens {
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
		if share := lp.Tokens * int64(lp.K) / int64(len(lp.Usage)); share < thinTokens {
			return fmt.Errorf("%w: layer %d: %d tokens are %d an expert, want %d: %s; a longer text helps, --force goes on",
				ErrCoverage, l, lp.Tokens, share, thinTokens, lp.named(thinnest(lp)))
		}
		if thin := lp.Thin(); 10*len(thin) > len(lp.Usage) {
			return fmt.Errorf("%w: layer %d: fewer than %d tokens chose %s; a longer or wider text helps, --force goes on",
				ErrCoverage, l, thinTokens, lp.named(thin))
		}
	}
	return nil
}

// thinnest lists who saw too few tokens, those that saw none included.
func thinnest(l LayerProfile) []int {
	var out []int
	for e, n := range l.Usage {
		if n < thinTokens {
			out = append(out, e)
		}
	}
	return out
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

// fits refuses a profile of another model, and numbers that no observation gives.
func (p *Profile) fits(s model.Spec) error {
	if len(p.Layers) != len(s.Layers) {
		return fmt.Errorf("%w: a profile of %d layers for a model of %d", ErrPlan, len(p.Layers), len(s.Layers))
	}
	for i, ls := range s.Layers {
		if ls.Router == nil {
			continue
		}
		if err := p.Layers[i].fits(ls.Router.Experts); err != nil {
			return fmt.Errorf("%w: the profile's layer %d: %w", ErrPlan, i, err)
		}
	}
	return nil
}

func (l LayerProfile) fits(n int) error {
	if l.Tokens < 0 || l.Tokens > math.MaxInt64/1024 || l.K < 1 || l.K > n {
		return fmt.Errorf("%d of %d experts for each of %d tokens", l.K, n, l.Tokens)
	}
	if len(l.Usage) != n || len(l.Saliency) != n || len(l.Largest) != n {
		return fmt.Errorf("usage of %d experts, saliency of %d, largest outputs of %d, want %d", len(l.Usage), len(l.Saliency), len(l.Largest), n)
	}
	for e := range n {
		if l.Usage[e] < 0 || l.Usage[e] > l.Tokens {
			return fmt.Errorf("%d of %d tokens chose expert %d", l.Usage[e], l.Tokens, e)
		}
		for _, v := range []float64{l.Saliency[e], l.Largest[e]} {
			if !(v >= 0 && v <= math.MaxFloat64) {
				return fmt.Errorf("expert %d has saliency %v and a largest output of %v", e, l.Saliency[e], l.Largest[e])
			}
		}
	}
	if l.Together != nil && len(l.Together) != n {
		return fmt.Errorf("coactivation of %d experts, want %d", len(l.Together), n)
	}
	for e, row := range l.Together {
		if len(row) != n {
			return fmt.Errorf("coactivation of expert %d with %d others, want %d", e, len(row), n)
		}
		for f, v := range row {
			if v < 0 || v > l.Tokens || v != l.Together[f][e] && len(l.Together[f]) == n {
				return fmt.Errorf("experts %d and %d were chosen together %d times of %d", e, f, v, l.Tokens)
			}
		}
	}
	return nil
}
