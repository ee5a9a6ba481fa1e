package model

import (
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
)

// kvTypes are the formats in which keys and values are cached, by what options call them.
var kvTypes = []*quant.Format{quant.F32, quant.F16, quant.Q8_0, quant.Q4_0}

// prunings are the cache types whose full pages are pruned, by how many percent of the numbers they lose.
var prunings = map[string]int{"mustafar-50": 50, "mustafar-70": 70}

// KV is how keys and values are cached.
type KV struct {
	Format *quant.Format
	Pruned int // percent of the numbers of a token that are dropped in full pages
}

// KV is how keys and values of a model are cached: as KVType says, or where that is auto in F16, or in F32 with Float32.
func (o *Options) KV() (KV, error) {
	if o.KVType == "" || o.KVType == "auto" {
		if o.DType == Float32 {
			return KV{Format: quant.F32}, nil
		}
		return KV{Format: quant.F16}, nil
	}
	for _, f := range kvTypes {
		if o.KVType == strings.ToLower(f.Name) {
			return KV{Format: f}, nil
		}
	}
	if percent := prunings[o.KVType]; percent > 0 {
		return KV{quant.F16, percent}, nil
	}
	return KV{}, fmt.Errorf("%w: kv_type %q, want one of auto, f32, f16, q8_0, q4_0, mustafar-50 and mustafar-70", ErrAssumption, o.KVType)
}

// String is the name of the format, with what is pruned.
func (kv KV) String() string {
	if kv.Pruned > 0 {
		return fmt.Sprintf("%s pruned by %d%%", kv.Format, kv.Pruned)
	}
	return kv.Format.Name
}

// shape is that of a layer's cache. What is kept of a token is a multiple of 4 numbers.
func (kv KV) shape(l *LayerSpec) attention.Shape {
	s := attention.Shape{Heads: l.KVHeads, Dim: l.HeadDim, Format: kv.Format}
	if kv.Pruned > 0 {
		s.Keep = min((s.Dim*(100-kv.Pruned)+399)/400*4, s.Dim)
	}
	return s
}

// dense is how many pages of a cache that prunes full pages are not: those of the rows of two steps, since one may be computed in parts beside
// others, and one more of each sequence's beginning and end.
func (lim Limits) dense() int { return 2*(lim.Rows/attention.PageTokens+1) + 4*lim.Sequences }

// shapes are those of the caches of all layers.
func (o *Options) shapes(s *Spec) (out []attention.Shape, err error) {
	kv, err := o.KV()
	if err != nil {
		return nil, err
	}
	for i, l := range s.Layers {
		shape := kv.shape(&l)
		if err := shape.Check(); err != nil {
			return nil, fmt.Errorf("%w: kv_type %q: layer %d: %w", ErrAssumption, o.KVType, i, err)
		}
		out = append(out, shape)
	}
	return out, nil
}

// DensePages is how many pages the cache has that are not pruned, where it prunes full pages; else 0.
func (m *Model) DensePages() int {
	if m.kv().Pruned == 0 {
		return 0
	}
	return m.opt.Limits.dense()
}

// kv is how keys and values are cached, which Load checked.
func (m *Model) kv() KV {
	kv, err := m.opt.KV()
	if err != nil {
		panic("winnow: bug: model: " + err.Error())
	}
	return kv
}
