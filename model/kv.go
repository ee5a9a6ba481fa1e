package model

import (
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
)

// kvTypes are the formats in which keys and values are cached, by what options call them.
var kvTypes = []*quant.Format{quant.F32, quant.F16, quant.Q8_0, quant.Q4_0}

// KV is the format in which keys and values of a model are cached: what KVType names, or where that is auto F16, or F32 with Float32.
func (o *Options) KV() (*quant.Format, error) {
	if o.KVType == "" || o.KVType == "auto" {
		if o.DType == Float32 {
			return quant.F32, nil
		}
		return quant.F16, nil
	}
	for _, f := range kvTypes {
		if o.KVType == strings.ToLower(f.Name) {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%w: kv_type %q, want one of auto, f32, f16, q8_0 and q4_0", ErrAssumption, o.KVType)
}

// shapes are those of the caches of all layers.
func (o *Options) shapes(s *Spec) (out []attention.Shape, err error) {
	kv, err := o.KV()
	if err != nil {
		return nil, err
	}
	for i, l := range s.Layers {
		shape := attention.Shape{Heads: l.KVHeads, Dim: l.HeadDim, Format: kv}
		if err := shape.Check(); err != nil {
			return nil, fmt.Errorf("%w: kv_type %q: layer %d: %w", ErrAssumption, o.KVType, i, err)
		}
		out = append(out, shape)
	}
	return out, nil
}
