package model

import (
	"fmt"

	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Llama 1 to 3 and the many models of that shape (SmolLM2, stories260K): grouped attention, SwiGLU, no biases unless the file has them.
// In GGUF the rows of q and k are permuted so that neighbours turn together; published checkpoints turn halves.
var _ = register(&architecture{
	name: "llama", hf: "llama",
	gguf: func(c *store.Checkpoint) (Spec, error) {
		m := readMetadata(c)
		if n := m.number("expert_count", 0); n > 0 {
			return Spec{}, fmt.Errorf("%w: a llama file of %d experts (Mixtral)", ErrAssumption, n)
		}
		return m.base(tensor.Neighbours)
	},
	config: (*config).base,
})
