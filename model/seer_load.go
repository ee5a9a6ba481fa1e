package model

import (
	"crypto/sha256"
	"fmt"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// loadedGates are gates on a device.
type loadedGates struct {
	layers []attention.Gate
	print  string // tells apart gates of other values; a part of the selector's fingerprint
}

// of is the gates of some layers; nil where there are none.
func (g *loadedGates) of(layers []int) (gates []attention.Gate) {
	for _, i := range layers {
		if len(g.layers) > 0 {
			gates = append(gates, g.layers[i])
		}
	}
	return gates
}

// gates brings the gates that a selector scores with to the device, once; none for a selector that has none.
func (l *loader) gates(kind GateKind) *loadedGates {
	if kind != SeerPrefill && kind != SeerDecode {
		return &loadedGates{}
	}
	if g := l.gated[kind]; g != nil {
		return g
	}
	g := l.findGates(kind)
	if l.err != nil {
		return nil
	}
	out := &loadedGates{layers: make([]attention.Gate, len(g.Layer))}
	for i := range out.layers {
		for _, s := range g.shapes(i) {
			*s.mat(&out.layers[i]) = l.gate(&s, g.Half)
		}
	}
	if l.c != nil {
		out.print = fmt.Sprintf(",gates=%x", g.sum())
	}
	if l.gated == nil {
		l.gated = map[GateKind]*loadedGates{}
	}
	l.gated[kind] = out
	return out
}

// findGates is those of a kind, with their values unless only their size is asked for.
func (l *loader) findGates(kind GateKind) (found *Gates) {
	for _, g := range l.opt.Gates {
		switch {
		case g.Kind != kind:
		case found != nil:
			l.fail(fmt.Errorf("%w: there are two files of %s gates, %q and %q", ErrSparse, kind, found.File, g.File))
			return nil
		default:
			found = g
		}
	}
	switch {
	case found == nil:
		l.fail(fmt.Errorf("%w: %s scores with trained gates, and gates names no file of %[2]s gates of this model", ErrSparse, kind))
	case l.c != nil && found.File != "":
		g, err := OpenGates(found.File, l.c)
		l.fail(err)
		return g
	}
	return found
}

// gate brings one matrix of a layer to the device.
func (l *loader) gate(s *gateTensorSpec, half bool) tensor.Mat {
	cols, rows, f := s.shape[len(s.shape)-1], 1, quant.F32
	for _, n := range s.shape[:len(s.shape)-1] {
		rows *= n
	}
	if half && rows > 1 {
		f = quant.BF16
	}
	switch {
	case l.c == nil:
		return l.alloc(f, rows, cols)
	case len(*s.values) != rows*cols:
		panic(fmt.Sprintf("winnow: bug: model: a gate of %d values, not %d x %d", len(*s.values), rows, cols))
	}
	raw := make([]byte, rows*cols*f.Bytes)
	f.Encode(raw, *s.values)
	return l.upload(tensor.HostMat("", f, rows, cols, raw))
}

// mat is a tensor's place in a gate.
func (s *gateTensorSpec) mat(g *attention.Gate) *tensor.Mat {
	switch s.part {
	case gateQuery:
		return &g.Query
	case gateKey:
		return &g.Key
	case gateQueryNorm:
		return &g.QueryNorm
	}
	return &g.KeyNorm
}

// sum is a hash of the sizes and the values.
func (g *Gates) sum() []byte {
	h := sha256.New()
	fmt.Fprintln(h, g.Kind, g.Heads, g.Pairs, len(g.Layer))
	for i := range g.Layer {
		for _, s := range g.shapes(i) {
			raw := make([]byte, len(*s.values)*quant.F32.Bytes)
			quant.F32.Encode(raw, *s.values)
			h.Write(raw)
		}
	}
	return h.Sum(nil)[:8]
}
