package model

import (
	"fmt"

	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// MiMo: Qwen2's network, and a layer of the same shape that foretells the token after next (multi-token prediction). Its input_proj reads the hidden
// state first and the token's embedding behind it, where others have them the other way round. GGUF files of it have no place for that layer.
var _ = register(&architecture{
	name: "mimo", hf: "mimo",
	gguf: func(c *store.Checkpoint) (Spec, error) { return readMetadata(c).base(tensor.Halves) },
	config: func(c *config) (Spec, error) {
		s, err := c.qwen2()
		if err != nil {
			return s, err
		}
		return s, c.predicts(&s, 1)
	},
	names: map[string]string{
		"mtp_token_norm": "token_layernorm", "mtp_hidden_norm": "hidden_layernorm", "mtp_input": "input_proj", "mtp_norm": "final_layernorm",
	},
	mtp: "model.mtp_layers.",
})

// predicts reads how many layers foretell further tokens, which have the shape of the last one.
func (c *config) predicts(s *Spec, most int) error {
	const key = "num_nextn_predict_layers"
	switch n := c.number(key, 0); {
	case c.err != nil:
		return c.err
	case n < 0 || n > mostLayers:
		return fmt.Errorf("%w: config.json: %s is %d, want 0 to %d", ErrSpec, key, n, most)
	case n > most:
		return fmt.Errorf("%w: config.json: %s is %d, want at most %d", ErrAssumption, key, n, most)
	default:
		for range n {
			s.MTP = append(s.MTP, s.Layers[len(s.Layers)-1])
		}
	}
	return nil
}
