package serve

import (
	"errors"
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/model"
)

// ErrProfile is wrapped where a profile of experts is not of the model that it is to be compared with.
var ErrProfile = errors.New("profile of another model")

// ExpertProfile is how experts of a model were chosen for the text that somebody profiled it with, to compare with how they are chosen now.
type ExpertProfile struct {
	Model string    // fingerprint of the checkpoint, see store.Checkpoint.Fingerprint
	Usage [][]int64 // by layer of the network, by router row: tokens that chose the expert; nil for a layer without experts
}

// check says whether a profile can be one of a model with this spec; the error wraps ErrProfile.
func (p *ExpertProfile) check(s *model.Spec) error {
	if len(p.Usage) != len(s.Layers) {
		return fmt.Errorf("%w: it has %d layers, the model %d", ErrProfile, len(p.Usage), len(s.Layers))
	}
	for i, l := range s.Layers {
		experts := 0
		if l.Router != nil {
			experts = l.Router.Experts
		}
		if n := len(p.Usage[i]); n != experts {
			return fmt.Errorf("%w: it has %d experts in layer %d, the model %d", ErrProfile, n, i, experts)
		}
	}
	return nil
}

// profileOf is the profile of a checkpoint among several; nil = there is none.
func profileOf(all []ExpertProfile, fingerprint string, s *model.Spec) (*ExpertProfile, error) {
	for i := range all {
		if all[i].Model == fingerprint {
			return &all[i], all[i].check(s)
		}
	}
	return nil, nil
}

// Drift says how far the choices of a layer's last tokens are from those of the model's profile, as ExpertCounts.Drift does; nil where there is
// no profile, or nothing to compare.
func (l *Listing) Drift(c *ExpertCounts) *float64 {
	if l.Profile == nil {
		return nil
	}
	if d := c.Drift(l.Profile.Usage[c.Layer]); !math.IsNaN(d) {
		return &d
	}
	return nil
}

// Profile is how its experts were chosen when it was profiled; nil = nobody says.
func (m *Model) Profile() *ExpertProfile { return m.profile }
