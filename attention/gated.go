package attention

import (
	"errors"
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// gated is what selectors with gates share.
type gated struct {
	*Selector
	env     *Env
	setting Setting
	kind    string
	model   Rotation // of the cached keys
	gate    Rotation
	width   int
	queries tensor.Mat // tiles*query heads x width, F32: scratch of one layer at a time, with room for more heads than the gate may have
}

// ErrNoGates is returned where a selector needs trained gates and not all layers have them. The wrapping says which.
var ErrNoGates = errors.New("attention: no trained gates")

// newGated checks that there are gates of one width, and uploads the rotations.
func newGated(k *Kind, e *Env, s Setting, caps Caps) (*gated, error) {
	if len(s.Gates) != len(e.Caches) {
		return nil, fmt.Errorf("%w: %s: %d layers have trained gates, want all %d", ErrNoGates, k.Name, len(s.Gates), len(e.Caches))
	}
	g := &gated{Selector: &Selector{Caps: caps, Plan: e.Plan}, env: e, setting: s, kind: k.Name}
	width := s.Gates[0].Key.Cols
	g.width = width
	for i := range s.Gates {
		if m := &s.Gates[i].Key; !m.Present() || m.Cols != width {
			return nil, fmt.Errorf("%s: the gate of layer %d has no key projection of width %d", k.Name, i, width)
		}
	}
	freq, err := gateFreq(e, width)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Name, err)
	}
	g.gate, g.model = Rotation{Scale: e.Turn, Pairs: e.Pairs}, Rotation{Scale: e.Turn, Pairs: e.Pairs}
	for _, r := range []struct {
		to   *tensor.Mat
		from []float32
	}{{&g.gate.Freq, freq}, {&g.model.Freq, e.Freq}} {
		if *r.to, err = g.upload(r.from); err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
	}
	tiles := e.Layout.Tiles.Policy.Rows
	if g.queries, err = g.own(e.Device, tensor.Mat{Rows: tiles * e.Heads, Cols: width, Format: quant.F32}); err != nil {
		return nil, fmt.Errorf("%s: %w", k.Name, err)
	}
	return g, nil
}

// gateShape is the rows of a gate's projections, 0 = it has none, and the heads of its queries and keys.
type gateShape struct{ query, key, queries, keys int }

// ops are those that make a layer's gate keys and queries.
func (g *gated) ops(layer int, s gateShape) (*GateQueries, *GateKeys, error) {
	e, gate, lay := g.env, &g.setting.Gates[layer], g.env.Layout
	err := g.check(layer, "key projection", &gate.Key, s.key)
	if err == nil && s.query > 0 {
		err = g.check(layer, "query projection", &gate.Query, s.query)
	}
	for _, m := range []*tensor.Mat{&gate.QueryNorm, &gate.KeyNorm} {
		if err == nil && m.Present() {
			err = g.check(layer, "norm", m, 1)
		}
	}
	if err != nil {
		g.Free(e.Device)
		return nil, nil, err
	}
	keys, err := g.own(e.Device, tensor.Mat{Rows: e.Pages * s.keys, Cols: g.width, Format: quant.F16})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", g.kind, err)
	}
	g.Sidecars = append(g.Sidecars, Sidecar{Mat: keys, Rows: s.keys, By: []tensor.Mat{gate.Key, gate.KeyNorm}})
	q := &GateQueries{Q: e.Q, Norm: gate.QueryNorm, Y: g.queries, Gate: g.gate, Layout: lay, Serves: g.setting.Number, Heads: s.queries, Whole: 1}
	if s.query > 0 {
		q.W = gate.Query
	}
	return q, &GateKeys{Cache: e.Caches[layer], W: gate.Key, Norm: gate.KeyNorm, Keys: keys, Model: g.model, Gate: g.gate,
		Layout: lay, Lane: e.Lane, Serves: g.setting.Number}, nil
}

// check says what is wrong with a matrix of a layer's gate.
func (g *gated) check(layer int, what string, m *tensor.Mat, rows int) error {
	switch {
	case !m.Present():
		return fmt.Errorf("%s: the gate of layer %d has no %s", g.kind, layer, what)
	case m.Rows != rows || m.Cols != g.width:
		return fmt.Errorf("%s: the gate's %s of layer %d is %s, want %d x %d", g.kind, what, layer, m, rows, g.width)
	case m.Format != quant.F32 && (m.Format != quant.BF16 || rows == 1):
		return fmt.Errorf("%s: the gate's %s of layer %d is in %s", g.kind, what, layer, m.Format)
	}
	return nil
}

// upload brings frequencies to the device; none make an absent matrix.
func (g *gated) upload(v []float32) (tensor.Mat, error) {
	if len(v) == 0 {
		return tensor.Mat{}, nil
	}
	host := tensor.FromF32(1, len(v), v)
	m, err := g.own(g.env.Device, tensor.Mat{Rows: 1, Cols: len(v), Format: quant.F32})
	if err != nil {
		return m, err
	}
	q := g.env.Device.Queue()
	q.Write(m.Buf, 0, host.Raw())
	return m, q.Sync()
}

// gateFreq are the frequencies of gates of a width: the model's own where heads are as wide, else those of the model's base. Frequencies
// that are no powers of a base cannot be told for another width.
func gateFreq(e *Env, width int) ([]float32, error) {
	f := e.Freq
	if width == e.Dim() || len(f) == 0 {
		return f, nil
	}
	if len(f) < 2 || 2*len(f) != e.Dim() || width%2 != 0 || f[0] != 1 {
		return nil, fmt.Errorf("gates of width %d for heads of %d: the frequencies of RoPE follow no base", width, e.Dim())
	}
	step := math.Log(float64(f[1])) * float64(len(f)) // -log of the base
	for i, v := range f {
		if math.Abs(math.Log(float64(v))-step*float64(i)/float64(len(f))) > 1e-3 {
			return nil, fmt.Errorf("gates of width %d for heads of %d: the frequencies of RoPE follow no base", width, e.Dim())
		}
	}
	out := make([]float32, width/2)
	for i := range out {
		out[i] = float32(math.Exp(step * float64(i) / float64(len(out))))
	}
	return out, nil
}
