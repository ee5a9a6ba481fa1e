package model

import (
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Qwen3-MoE: Qwen3's attention; a softmax over all experts, the K best, renormalised if the file says so. GGUF files do not say
// and mean yes, unless they carry expert_weights_norm. A window, where one is switched on, covers all layers.
var _ = register(&architecture{
	name: "qwen3moe", hf: "qwen3_moe",
	gguf: func(c *store.Checkpoint) (Spec, error) {
		m := readMetadata(c)
		s, err := m.base(tensor.Halves)
		if err != nil {
			return s, err
		}
		s.normHeads()
		router := softmaxRouter(m.number("expert_count", missing), m.number("expert_used_count", missing))
		for _, key := range []string{ollamaNorm, "expert_weights_norm"} { // the last one counts
			if c.Meta.Has(m.prefix + key) {
				router.Norm, err = c.Meta.Bool(m.prefix + key)
				m.keep(err)
			}
		}
		if c.Meta.Has(m.prefix + ollamaNorm) {
			s.repaired("key %q is read as expert_weights_norm", m.prefix+ollamaNorm)
		}
		if scale := m.float("expert_weights_scale", 0); scale != 0 {
			router.Scale = float32(scale)
		}
		return s, m.experts(&s, router)
	},
	config: func(c *config) (Spec, error) {
		s, err := c.base()
		if err != nil {
			return s, err
		}
		s.normHeads()
		if err := c.windows(&s, 0); err != nil {
			return s, err
		}
		router := softmaxRouter(c.expertCount(), c.number("num_experts_per_tok", missing))
		router.Norm = c.flag("norm_topk_prob")
		return s, c.experts(&s, router, c.number("moe_intermediate_size", missing))
	},
})

// softmaxRouter is the router of Mixtral, Qwen3 and their kin: k of n experts by softmax, renormalised.
func softmaxRouter(n, k int) moe.RouterSpec {
	return moe.RouterSpec{Experts: n, K: k, Score: moe.Softmax, Weight: moe.FromScore, Norm: true, NormMinK: 1, Scale: 1}
}
