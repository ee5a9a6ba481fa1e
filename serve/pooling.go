package serve

import (
	"encoding/json"
	"fmt"

	"github.com/winnow-llm/winnow/store"
)

// poolingFile is where a Hugging Face folder made by sentence-transformers says how it pools.
const poolingFile = "1_Pooling/config.json"

// ggufPooling are the numbers of a GGUF's pooling_type.
var ggufPooling = map[int64]Pooling{0: "", 1: MeanPooling, 2: "cls", 3: LastPooling, 4: "rank"}

// declaredPooling reads how a model's own files say to pool, "" where they do not. It may be a way that nobody here knows.
func declaredPooling(c *store.Checkpoint, arch string) (Pooling, error) {
	if c.Kind == store.GGUF {
		n, err := c.Meta.Int(arch+".pooling_type", 0)
		if p, known := ggufPooling[n]; known {
			return p, err
		}
		return Pooling(fmt.Sprintf("number %d", n)), err
	}
	raw := c.Files[poolingFile]
	if raw == nil {
		return "", nil
	}
	modes := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &modes); err != nil {
		return "", fmt.Errorf("%s: %w: %w", poolingFile, store.ErrFormat, err)
	}
	var on []Pooling
	for _, mode := range []struct {
		key  string
		name Pooling
	}{
		{"pooling_mode_mean_tokens", MeanPooling}, {"pooling_mode_lasttoken", LastPooling}, {"pooling_mode_cls_token", "cls"},
		{"pooling_mode_max_tokens", "max"}, {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len"},
		{"pooling_mode_weightedmean_tokens", "weightedmean"},
	} {
		if string(modes[mode.key]) == "true" {
			on = append(on, mode.name)
		}
	}
	switch len(on) {
	case 0:
		return "", nil
	case 1:
		return on[0], nil
	}
	return Pooling(fmt.Sprintf("several at once, %v", on)), nil
}
