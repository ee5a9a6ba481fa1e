package serve

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/store"
)

// Where a Hugging Face folder made by sentence-transformers says how it pools, and what stands before and behind.
const (
	poolingFile = "1_Pooling/config.json"
	modulesFile = "modules.json"
)

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
	modules, err := otherModules(c.Files[modulesFile])
	if err != nil {
		return "", err
	}
	var ways []string
	if raw := c.Files[poolingFile]; raw != nil {
		if ways, err = poolingModes(raw); err != nil {
			return "", err
		}
	}
	return Pooling(strings.Join(append(ways, modules...), " with ")), nil
}

// poolingModes lists the modes that a pooling module has on; several are laid side by side.
func poolingModes(file []byte) (on []string, err error) {
	modes := map[string]json.RawMessage{}
	if err := json.Unmarshal(file, &modes); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", poolingFile, store.ErrFormat, err)
	}
	for _, mode := range []struct{ key, name string }{
		{"mean_tokens", string(MeanPooling)}, {"lasttoken", string(LastPooling)}, {"cls_token", "cls"}, {"max_tokens", "max"},
		{"mean_sqrt_len_tokens", "mean_sqrt_len"}, {"weightedmean_tokens", "weightedmean"},
	} {
		if string(modes["pooling_mode_"+mode.key]) == "true" {
			on = append(on, mode.name)
		}
	}
	return on, nil
}

// otherModules lists what an embedding goes through besides the network, the pooling and the scaling to length 1.
func otherModules(file []byte) (others []string, err error) {
	if file == nil {
		return nil, nil
	}
	var modules []struct {
		Type string `json:"type"` // "sentence_transformers.models.Dense"
	}
	if err := json.Unmarshal(file, &modules); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", modulesFile, store.ErrFormat, err)
	}
	for _, m := range modules {
		name := m.Type[strings.LastIndexByte(m.Type, '.')+1:]
		if !slices.Contains([]string{"Transformer", "Pooling", "Normalize"}, name) {
			others = append(others, fmt.Sprintf("module %.40q", name))
		}
	}
	return others, nil
}
