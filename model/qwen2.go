package model

import (
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Qwen2 and Qwen2.5: llama's shape with biases on q, k and v and none on the output, whatever attention_bias says. A window, where
// one is switched on, covers the layers from max_window_layers on.
var _ = register(&architecture{
	name: "qwen2", hf: "qwen2",
	gguf:   func(c *store.Checkpoint) (Spec, error) { return readMetadata(c).base(tensor.Halves) },
	config: (*config).qwen2,
})

func (c *config) qwen2() (Spec, error) {
	s, err := c.base()
	if err != nil {
		return s, err
	}
	for i := range s.Layers {
		s.Layers[i].QKVBias, s.Layers[i].OutBias = true, false
	}
	return s, c.windows(&s, c.number("max_window_layers", 0))
}
