package model

import (
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Qwen3: llama's shape with an RMS norm over each query and key head before RoPE, which turns halves in both containers.
var _ = register(&architecture{
	name: "qwen3", hf: "qwen3",
	gguf: func(c *store.Checkpoint) (Spec, error) {
		s, err := readMetadata(c).base(tensor.Halves)
		s.normHeads()
		return s, err
	},
	config: func(c *config) (Spec, error) {
		s, err := c.base()
		if err != nil {
			return s, err
		}
		s.normHeads()
		return s, c.windows(&s, c.number("max_window_layers", 0))
	},
})

// normHeads has every layer norm its query and key heads.
func (s *Spec) normHeads() {
	for i := range s.Layers {
		s.Layers[i].QKNorm = true
	}
}
