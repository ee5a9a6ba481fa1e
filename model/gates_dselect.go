package model

import (
	"fmt"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
)

// Layout, of which there is no standard, of k selectors of n experts, whose numbers have m bits, in a GGUF file whose expert_router_type is
// "dselect". k is expert_used_count, n expert_count.
//
//	blk.N.ffn_gate_digit.weight  F32 [km, d]  row jm+b is bit b of selector j, the highest bit first
//	blk.N.ffn_gate_digit.bias    F32 [km]     may be absent
//	blk.N.ffn_gate_share.weight  F32 [k, d]   row j scores selector j
//	blk.N.ffn_gate_share.bias    F32 [k]      may be absent
//
// Keys are expert_dselect_gamma and expert_dselect_eps. moe.RouteDSelect is the meaning.
const (
	byDSelect   = "dselect"
	digitTensor = "ffn_gate_digit.weight"
	shareTensor = "ffn_gate_share.weight"
)

// selectors reads the numbers of a router of k selectors. A row may take up to twice as many experts as there are; of more the heaviest stay.
func (m *metadata) selectors(l *LayerSpec, i, k int) error {
	s := &moe.DSelectSpec{
		Experts: l.Router.Experts, Selectors: k,
		Gamma: float32(m.float("expert_dselect_gamma", 0)), Cut: float32(m.float("expert_dselect_eps", moe.TreeCut)),
	}
	if m.err != nil {
		return m.err
	}
	if err := s.Check(); err != nil {
		return fmt.Errorf("%w: layer %d, keys %q: %w", ErrSpec, i, m.prefix+"expert_dselect_*", err)
	}
	if s.Experts < 2 {
		return fmt.Errorf("%w: layer %d: selectors of %d experts", ErrSpec, i, s.Experts)
	}
	l.DSelect, l.Router.K = s, min(l.Map.Live(), 2*k, moe.MostActive)
	return nil
}

// dselect brings selectors to the device, once they have shown on random rows that they choose few experts.
func (l *loader) dselect(s *LayerSpec, dim int, name func(string) string) *moe.RouteDSelect {
	d := s.DSelect
	vector := func(part string, n int) tensor.Mat {
		if !l.c.Has(name(part)) {
			return tensor.Mat{}
		}
		return widened(l.host(name(part), 1, n))
	}
	rows := d.Selectors * d.Bits()
	o := &moe.RouteDSelect{
		Digits: widened(l.host(name(digitTensor), rows, dim)), DigitBias: vector("ffn_gate_digit.bias", rows),
		Share: widened(l.host(name(shareTensor), d.Selectors, dim)), ShareBias: vector("ffn_gate_share.bias", d.Selectors),
		Phys: tensor.FromI32(1, d.Experts, moe.EveryExpert(d.Experts).Phys), Spec: *d,
	}
	if l.err != nil {
		return o
	}
	host := *o
	host.X, host.IDs, host.Weights, host.Active, host.N = l.random(dim, s.Router.K, name)
	if l.err != nil {
		return o
	}
	host.Reference()
	if err := host.Saturated(); err != nil {
		l.fail(fmt.Errorf("%w: tensor %q: %w", ErrAssumption, name(digitTensor), err))
		return o
	}
	for _, m := range []*tensor.Mat{&o.Digits, &o.DigitBias, &o.Share, &o.ShareBias} {
		if m.Present() {
			*m = l.upload(*m)
		}
	}
	return o
}
