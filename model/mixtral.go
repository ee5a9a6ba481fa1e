package model

import (
	"fmt"

	"github.com/winnow-llm/winnow/store"
)

// Mixtral: Mistral's attention; experts in every layer, chosen by a softmax and always renormalised. Its GGUF files say llama and an
// expert count: see llama.go.
var _ = register(&architecture{
	name: "mixtral", hf: "mixtral",
	gguf: func(*store.Checkpoint) (Spec, error) {
		return Spec{}, fmt.Errorf("%w: a GGUF file of architecture mixtral; converters write llama", ErrAssumption)
	},
	config: func(c *config) (Spec, error) {
		s, err := c.base()
		if err != nil {
			return s, err
		}
		window := c.number("sliding_window", 0)
		for i := range s.Layers {
			s.Layers[i].Window = window
		}
		router := softmaxRouter(c.expertCount(), c.number("num_experts_per_tok", missing))
		return s, c.experts(&s, router, c.number("intermediate_size", missing))
	},
	names: map[string]string{
		"ffn_gate_inp":         "block_sparse_moe.gate",
		"ffn_gate_exps.weight": "block_sparse_moe.experts.%s.w1.weight",
		"ffn_up_exps.weight":   "block_sparse_moe.experts.%s.w3.weight",
		"ffn_down_exps.weight": "block_sparse_moe.experts.%s.w2.weight",
	},
})
