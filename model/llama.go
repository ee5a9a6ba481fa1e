package model

import (
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Llama 1 to 3 and the many models of that shape (SmolLM2, stories260K): grouped attention, SwiGLU, no biases unless the file has them.
// In GGUF the rows of q and k are permuted so that neighbours turn together; published checkpoints turn halves. GGUF files that say
// llama and count experts are Mixtral's: as wide as a dense network, renormalised.
var _ = register(&architecture{
	name: "llama", hf: "llama",
	gguf: func(c *store.Checkpoint) (Spec, error) {
		m := readMetadata(c)
		s, err := m.base(tensor.Neighbours)
		if n := m.number("expert_count", 0); err == nil && n > 0 {
			err = m.experts(&s, softmaxRouter(n, m.number("expert_used_count", missing)))
		}
		return s, err
	},
	config: (*config).base,
})
