package model

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
)

// config reads a Hugging Face config.json in both of its dialects: the published one, and that of transformers 5, which nests RoPE
// under rope_parameters. The first bad value sticks; err reports it.
type config struct {
	ModelType string
	fields    map[string]json.RawMessage
	counts    []int // experts by layer, where the file lists them
	err       error
}

func readConfig(b []byte) (*config, error) {
	c := &config{}
	if err := json.Unmarshal(b, &c.fields); err != nil {
		return nil, fmt.Errorf("%w: config.json: %w", ErrSpec, err)
	}
	c.ModelType = c.text("model_type", "")
	if c.err == nil && c.ModelType == "" {
		c.err = fmt.Errorf("%w: config.json: model_type is missing", ErrSpec)
	}
	return c, c.err
}

// value decodes a field; false when it is absent or null.
func value[T any](c *config, key string, dst *T) bool {
	raw, ok := c.fields[key]
	if !ok || string(raw) == "null" {
		return false
	}
	if err := json.Unmarshal(raw, dst); err != nil && c.err == nil {
		c.err = fmt.Errorf("%w: config.json: %s: %w", ErrSpec, key, err)
	}
	return true
}

// number reads an integer, or def when it is absent; def below 0 says that it must be there.
func (c *config) number(key string, def int) int {
	v := def
	if !value(c, key, &v) && def < 0 && c.err == nil {
		c.err = fmt.Errorf("%w: config.json: %s is missing", ErrSpec, key)
	}
	return v
}

func (c *config) float(key string, def float64) float64 {
	value(c, key, &def)
	return def
}

func (c *config) text(key, def string) string {
	value(c, key, &def)
	return def
}

func (c *config) flag(key string) (v bool) {
	value(c, key, &v)
	return v
}

// sub is a nested object; nil when it is absent.
func (c *config) sub(key string) *config {
	s := &config{}
	if !value(c, key, &s.fields) {
		return nil
	}
	return s
}

// missing stands for a number that must be there.
const missing = -1

// base reads what the families share: a decoder of equal layers with RMS norms, grouped attention and a SwiGLU network.
func (c *config) base() (Spec, error) {
	dim, heads := c.number("hidden_size", missing), c.number("num_attention_heads", missing)
	layers := c.number("num_hidden_layers", missing)
	if act := c.text("hidden_act", "silu"); act != "silu" {
		return Spec{}, fmt.Errorf("%w: hidden_act %q", ErrAssumption, act)
	}
	if c.err == nil && (heads < 1 || heads > mostDim || layers < 1 || layers > mostLayers) {
		c.err = fmt.Errorf("%w: config.json: %d heads in %d layers", ErrSpec, heads, layers)
	}
	if c.err != nil {
		return Spec{}, c.err
	}
	l := LayerSpec{
		Heads: heads, KVHeads: c.number("num_key_value_heads", heads), HeadDim: c.number("head_dim", dim/heads),
		QKVBias: c.flag("attention_bias"), OutBias: c.flag("attention_bias"), FFNBias: c.flag("mlp_bias"),
		Width: c.number("intermediate_size", missing),
	}
	l.Scale = scoreScale(l.HeadDim)
	var err error
	if l.Rope, err = c.rope(l.HeadDim); err != nil {
		return Spec{}, err
	}
	return Spec{
		Vocab: c.number("vocab_size", missing), Dim: dim, Context: c.number("max_position_embeddings", missing),
		Eps: float32(c.float("rms_norm_eps", 1e-6)), Tied: c.flag("tie_word_embeddings"), Layers: slices.Repeat([]LayerSpec{l}, layers),
	}, c.err
}

func (c *config) rope(headDim int) (Rope, error) {
	s := c.sub("rope_parameters")
	if s == nil {
		if s = c.sub("rope_scaling"); s == nil {
			s = &config{}
		}
	}
	share := s.float("partial_rotary_factor", c.float("partial_rotary_factor", 1))
	if !(share > 0 && share <= 1) {
		return Rope{}, fmt.Errorf("%w: config.json: partial_rotary_factor %v", ErrSpec, share)
	}
	r := ropeSpec{
		kind: s.text("rope_type", s.text("type", "")), base: s.float("rope_theta", c.float("rope_theta", 10000)),
		dims: int(share * float64(headDim)), pairs: tensor.Halves,
		factor: s.float("factor", 1), original: s.float("original_max_position_embeddings", c.float("max_position_embeddings", 0)),
		low: s.float("low_freq_factor", 1), high: s.float("high_freq_factor", 4),
		slow: s.float("beta_slow", 1), fast: s.float("beta_fast", 32), attention: s.float("attention_factor", 0),
	}
	truncate := true
	value(s, "truncate", &truncate)
	r.exact = !truncate
	if s.err != nil {
		return Rope{}, s.err
	}
	if whole := c.float("max_position_embeddings", 0); r.kind == "dynamic" && r.original < whole {
		// Within the original context dynamic scaling does nothing. Beyond it the base would grow with each sequence.
		c.err = fmt.Errorf("%w: RoPE scaling dynamic from a context of %v to one of %v", ErrAssumption, r.original, whole)
	}
	if c.err != nil {
		return Rope{}, c.err
	}
	return r.work()
}

// windows sets the sliding windows: by layer_types where the file lists them, else on the layers from first on.
func (c *config) windows(s *Spec, first int) error {
	if !c.flag("use_sliding_window") {
		return c.err
	}
	width := c.number("sliding_window", 0)
	var kinds []string
	if value(c, "layer_types", &kinds) && c.err == nil && len(kinds) != len(s.Layers) {
		c.err = fmt.Errorf("%w: config.json: layer_types has %d entries for %d layers", ErrSpec, len(kinds), len(s.Layers))
	}
	if c.err != nil {
		return c.err
	}
	for i := range s.Layers {
		if kinds != nil && kinds[i] == "sliding_attention" || kinds == nil && i >= first {
			s.Layers[i].Window = width
		}
	}
	return nil
}

// expertCount is the number of experts of a layer, or of the layer with the most where they are listed, as tools that prune experts do it.
// Transformers 5 writes for every family what Mixtral called it.
func (c *config) expertCount() int {
	key := "num_experts"
	if _, ok := c.fields["num_local_experts"]; ok {
		key = "num_local_experts"
	}
	if raw := c.fields[key]; len(raw) == 0 || raw[0] != '[' {
		return c.number(key, missing)
	}
	if value(c, key, &c.counts); c.err != nil || len(c.counts) == 0 {
		return 0
	}
	return slices.Max(c.counts)
}

// experts turns the layers that the config names into layers of experts, as wide as width says.
func (c *config) experts(s *Spec, router moe.RouterSpec, width int) error {
	var dense []int
	value(c, "mlp_only_layers", &dense)
	step := c.number("decoder_sparse_step", 1)
	if c.err != nil {
		return c.err
	}
	if err := router.Check(); err != nil {
		return fmt.Errorf("%w: config.json: %w", ErrSpec, err)
	}
	if step < 1 {
		return fmt.Errorf("%w: config.json: decoder_sparse_step %d", ErrSpec, step)
	}
	if c.counts != nil && len(c.counts) != len(s.Layers) {
		return fmt.Errorf("%w: config.json: experts of %d layers are listed, there are %d", ErrSpec, len(c.counts), len(s.Layers))
	}
	for i := range s.Layers {
		if slices.Contains(dense, i) || (i+1)%step != 0 {
			continue
		}
		r := router
		if c.counts != nil {
			r.Experts = c.counts[i]
			r.K = min(r.K, r.Experts)
		}
		if err := r.Check(); err != nil {
			return fmt.Errorf("%w: config.json: layer %d: %w", ErrSpec, i, err)
		}
		l := &s.Layers[i]
		l.Width, l.Router, l.ExpertWidth, l.Map, l.Stored = 0, &r, width, moe.EveryExpert(r.Experts), Separate
	}
	return nil
}
