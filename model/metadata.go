package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// metadata reads a GGUF file's numbers under its architecture's prefix. The first bad value sticks; err reports it.
type metadata struct {
	c      *store.Checkpoint
	prefix string
	err    error
}

func readMetadata(c *store.Checkpoint) *metadata {
	m := &metadata{c: c}
	m.prefix, m.err = c.Meta.String("general.architecture", "")
	m.prefix += "."
	return m
}

func (m *metadata) keep(err error) {
	if m.err == nil && err != nil {
		m.err = fmt.Errorf("%w: %w", ErrSpec, err)
	}
}

// number reads an integer, or def when it is absent; def below 0 says that it must be there.
func (m *metadata) number(key string, def int) int {
	if def < 0 && !m.c.Meta.Has(m.prefix+key) {
		m.keep(fmt.Errorf("key %q is missing", m.prefix+key))
		return 0
	}
	v, err := m.c.Meta.Int(m.prefix+key, int64(def))
	m.keep(err)
	if v < 0 || v > math.MaxInt32 {
		m.keep(fmt.Errorf("key %q is %d", m.prefix+key, v))
		return 0
	}
	return int(v)
}

func (m *metadata) float(key string, def float64) float64 {
	v, err := m.c.Meta.Float(m.prefix+key, def)
	m.keep(err)
	return v
}

func (m *metadata) text(key, def string) string {
	v, err := m.c.Meta.String(m.prefix+key, def)
	m.keep(err)
	return v
}

// perLayer reads a number that a file may give once or by layer.
func (m *metadata) perLayer(key string, layers, def int) []int {
	out := slices.Repeat([]int{def}, layers)
	v, err := m.c.Meta.Ints(m.prefix + key)
	m.keep(err)
	if len(v) > 1 && len(v) != layers {
		m.keep(fmt.Errorf("key %q has %d entries for %d layers", m.prefix+key, len(v), layers))
		return out
	}
	for i := range out {
		if len(v) > 0 {
			n := v[min(i, len(v)-1)]
			if n < 0 || n > math.MaxInt32 {
				m.keep(fmt.Errorf("key %q is %d", m.prefix+key, n))
				return out
			}
			out[i] = int(n)
		}
	}
	return out
}

// base reads what the families share; q and k rows are in the order that pairs says.
func (m *metadata) base(pairs tensor.Pairing) (Spec, error) {
	layers, dim := m.number("block_count", missing), m.number("embedding_length", missing)
	if layers < 1 || layers > mostLayers {
		m.keep(fmt.Errorf("key %q is %d, want 1 to %d", m.prefix+"block_count", layers, mostLayers))
	}
	if m.err != nil {
		return Spec{}, m.err
	}
	embed, err := m.c.Tensor("token_embd.weight")
	if err != nil {
		return Spec{}, err
	}
	if len(embed.Shape) != 2 || embed.Shape[1] != dim {
		return Spec{}, fmt.Errorf("%w: tensor \"token_embd.weight\" is %v, want a vocabulary by %d", ErrSpec, embed.Shape, dim)
	}
	s := Spec{
		Vocab: embed.Shape[0], Dim: dim, Context: m.number("context_length", missing),
		Eps: float32(m.float("attention.layer_norm_rms_epsilon", 1e-6)), Tied: !m.c.Has("output.weight"), Layers: make([]LayerSpec, layers),
	}
	heads := m.perLayer("attention.head_count", layers, 0)
	kv := m.perLayer("attention.head_count_kv", layers, 0)
	width := m.perLayer("feed_forward_length", layers, 0)
	for i := range s.Layers {
		if err := m.layer(&s, i, [3]int{heads[i], kv[i], width[i]}); err != nil {
			return Spec{}, fmt.Errorf("layer %d: %w", i, err)
		}
		if s.Layers[i].HeadDim == 0 && heads[i] > 0 {
			s.Layers[i].HeadDim = dim / heads[i]
		}
		l := &s.Layers[i]
		l.Scale = scoreScale(l.HeadDim)
		if l.Rope, err = m.rope(&s, l.HeadDim, pairs); err != nil {
			return Spec{}, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return s, m.err
}

// layer reads layer i's numbers: counts are query heads, key-value heads (0 = as many) and hidden width (0 = as its tensors say).
func (m *metadata) layer(s *Spec, i int, counts [3]int) error {
	l, prefix := &s.Layers[i], fmt.Sprintf("blk.%d.", i)
	l.Heads, l.KVHeads, l.Width = counts[0], counts[1], counts[2]
	if l.Width == 0 {
		l.Width = m.denseWidth(s, i)
	}
	if l.KVHeads == 0 {
		l.KVHeads = l.Heads
	}
	l.HeadDim = m.number("attention.key_length", 0)
	if v := m.number("attention.value_length", l.HeadDim); v != l.HeadDim {
		return fmt.Errorf("%w: values of %d beside keys of %d", ErrAssumption, v, l.HeadDim)
	}
	l.QKVBias, l.OutBias = m.c.Has(prefix+"attn_q.bias"), m.hasPart(s, prefix+"attn_output.bias")
	l.FFNBias = m.c.Has(prefix + "ffn_up.bias")
	m.hasPart(s, prefix+"attn_output.weight")
	return m.err
}

func (m *metadata) rope(s *Spec, headDim int, pairs tensor.Pairing) (Rope, error) {
	r := ropeSpec{
		kind: m.text("rope.scaling.type", ""), base: m.float("rope.freq_base", 10000),
		dims: m.number("rope.dimension_count", headDim), pairs: pairs,
		factor: m.float("rope.scaling.factor", 1), original: float64(m.number("rope.scaling.original_context_length", 0)),
		slow: m.float("rope.scaling.yarn_beta_slow", 1), fast: m.float("rope.scaling.yarn_beta_fast", 32),
		attention: m.float("rope.scaling.attn_factor", 0),
	}
	if r.kind == "" && m.c.Meta.Has(m.prefix+"rope.scale_linear") {
		r.kind, r.factor = "linear", m.float("rope.scale_linear", 1)
	}
	if r.kind == "yarn" && r.original == 0 {
		r.original = float64(s.Context)
		s.repaired("YaRN from a context of %d, as key %q is missing", s.Context, m.prefix+"rope.scaling.original_context_length")
	}
	if m.err != nil {
		return Rope{}, m.err
	}
	if m.c.Has("rope_freqs.weight") {
		t, err := m.c.Tensor("rope_freqs.weight")
		if err != nil {
			return Rope{}, err
		}
		if len(t.Shape) != 1 || t.Shape[0] != r.dims/2 || t.Format.Decode == nil {
			return Rope{}, fmt.Errorf("%w: tensor \"rope_freqs.weight\" is %s %v, want %d divisors", ErrSpec, t.Format, t.Shape, r.dims/2)
		}
		r.divisors = make([]float32, t.Shape[0])
		t.Format.Decode(r.divisors, t.Data)
	}
	return r.work()
}

// experts turns every layer that has a router's tensor into a layer of experts; the tensors, not the numbers, say which, and how many.
func (m *metadata) experts(s *Spec, router moe.RouterSpec) error {
	width := m.number("expert_feed_forward_length", 0)
	counts := m.sliced(len(s.Layers))
	if m.err != nil {
		return m.err
	}
	for i := range s.Layers {
		name := m.gate(i)
		if !m.c.Has(name) {
			continue
		}
		t, err := m.c.Tensor(name)
		if err != nil {
			return err
		}
		r := router
		if len(t.Shape) == 2 {
			r.Experts = gateExperts(name, t.Shape[0], r)
		}
		if counts != nil {
			if counts[i] != int64(r.Experts) {
				return fmt.Errorf("%w: tensor %q has %d rows, key %q says %d experts", ErrSpec, name, r.Experts, keyCounts, counts[i])
			}
			r.K = min(r.K, r.Experts)
		}
		if err := r.Check(); err != nil {
			return fmt.Errorf("%w: tensor %q: %w", ErrSpec, name, err)
		}
		l := &s.Layers[i]
		if err := m.placed(l, i, r.Experts); err != nil {
			return err
		}
		if l.Banks != nil {
			r.K = min(r.K, l.Map.Live())
		}
		l.Router, l.ExpertWidth = &r, width
		if width == 0 { // early files give experts the width of a dense network, ollama's may give another
			l.ExpertWidth = cmp.Or(m.width(l, i), l.Width)
			if l.ExpertWidth != l.Width {
				s.repaired("experts of width %d by their tensors, as key %q is missing", l.ExpertWidth, m.prefix+"expert_feed_forward_length")
			}
		}
		l.Width = 0
		if err := m.routed(l, i, router.K); err != nil {
			return err
		}
		if err := m.fits(l, i, s.Dim); err != nil {
			return err
		}
	}
	return nil
}

// scoreScale is the factor of attention scores that most models use: 1/sqrt(headDim).
func scoreScale(headDim int) float32 { return float32(1 / math.Sqrt(float64(headDim))) }
