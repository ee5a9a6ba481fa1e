package model

import (
	"fmt"

	"github.com/winnow-llm/winnow/store"
)

// Mistral: llama's shape with a sliding window on all layers, where the file has one. GGUF files of it say llama and have lost the
// window.
var _ = register(&architecture{
	name: "mistral", hf: "mistral",
	gguf: func(*store.Checkpoint) (Spec, error) {
		return Spec{}, fmt.Errorf("%w: a GGUF file of architecture mistral; converters write llama", ErrAssumption)
	},
	config: func(c *config) (Spec, error) {
		s, err := c.base()
		if err != nil {
			return s, err
		}
		width := c.number("sliding_window", 0)
		for i := range s.Layers {
			s.Layers[i].Window = width
		}
		return s, c.err
	},
})
