package model

import (
	"fmt"

	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// OLMoE: llama's shape with an RMS norm over all query heads at once, and over all key heads; a softmax over all experts, the K best, not
// renormalised unless the file says so. Files that clamp q, k and v are refused.
var _ = register(&architecture{
	name: "olmoe", hf: "olmoe",
	gguf: func(c *store.Checkpoint) (Spec, error) {
		m := readMetadata(c)
		s, err := m.base(tensor.Halves)
		if err != nil {
			return s, err
		}
		if clip := m.float("attention.clamp_kqv", 0); clip != 0 {
			return s, fmt.Errorf("%w: q, k and v clamped to %v", ErrAssumption, clip)
		}
		s.normWhole()
		router := softmaxRouter(m.number("expert_count", missing), m.number("expert_used_count", missing))
		router.Norm, err = c.Meta.Bool(m.prefix + "expert_weights_norm")
		m.keep(err)
		return s, m.experts(&s, router)
	},
	config: func(c *config) (Spec, error) {
		s, err := c.base()
		if err != nil {
			return s, err
		}
		if clip := c.float("clip_qkv", 0); clip != 0 {
			return s, fmt.Errorf("%w: clip_qkv %v", ErrAssumption, clip)
		}
		s.normWhole()
		router := softmaxRouter(c.expertCount(), c.number("num_experts_per_tok", missing))
		router.Norm = c.flag("norm_topk_prob")
		return s, c.experts(&s, router, c.number("intermediate_size", missing))
	},
})

// normWhole has every layer norm its queries and keys as a whole.
func (s *Spec) normWhole() {
	for i := range s.Layers {
		s.Layers[i].QKNorm, s.Layers[i].WholeNorm = true, true
	}
}
