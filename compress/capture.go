package compress

import (
	"context"
	"fmt"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// mostCaptured is the most bytes of rows that are kept of all layers together.
const mostCaptured = 4 << 30

// Listening is what is asked of Capture.
type Listening struct {
	Checkpoint *store.Checkpoint // stays the caller's
	Device     tensor.Device     // where the model is loaded for the time of the capture
	Options    model.Options     // as in Study
	Text       Text
	Tokens     int64              // of the text; ErrText where what these take is too much to keep
	Held       func(seq int) bool // sequences, counted from 0, whose rows are kept apart; nil = none
	Progress   func(tokens int64) // told how many tokens were read, after each step; may be nil
}

// Captured is what a layer's router read, rows x dim in the order of the text, and its biases.
type Captured struct {
	Rows, Held   []float32
	Bias, Select []float32 // see moe.Route; nil = none
}

// plain says whether a layer chooses experts by its K best.
func plain(l *model.LayerSpec) bool {
	return l.Router != nil && l.Tree == nil && l.DSelect == nil && !l.Hash && l.Shortlist == 0
}

// Capture runs a model over a text and keeps, by layer, the inputs of those routers that choose by their K best. ErrText as of Observe.
func Capture(ctx context.Context, s Listening) (map[int]*Captured, error) {
	spec, err := model.Describe(s.Checkpoint)
	if err != nil {
		return nil, err
	}
	lim := &s.Options.Limits
	if lim.Context < 1 || lim.Context > spec.Context {
		return nil, fmt.Errorf("%w: sequences of %d tokens, the model was made for 1 to %d", ErrText, lim.Context, spec.Context)
	}
	*lim = walkLimits(*lim)
	l := &listener{layers: map[int]*Captured{}}
	for i, ls := range spec.Layers {
		if plain(&ls) {
			l.layers[i] = &Captured{}
		}
	}
	if each := 4 * int64(spec.Dim) * int64(len(l.layers)); each > 0 && s.Tokens > mostCaptured/each {
		return nil, fmt.Errorf("%w: %d tokens are %d bytes each in %d layers, at most %d tokens are kept", ErrText, s.Tokens, each, len(l.layers), mostCaptured/each)
	}
	m, err := model.Load(s.Checkpoint, model.Placement{Device: tensor.Observed(s.Device, l.see)}, s.Options)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	passed := int64(0)
	w := walk{models: []*model.Model{m}, after: func(step *model.Step) error {
		if passed += int64(len(step.IDs)); s.Progress != nil {
			s.Progress(passed)
		}
		return nil
	}}
	seq := 0
	for ids, err := range s.Text.Sequences {
		held := s.Held != nil && s.Held(seq)
		seq++
		if err == nil {
			err = checkSequence(ids, m)
		}
		if err == nil && (held != l.held || !w.fits(len(ids))) {
			err = w.run(ctx)
		}
		l.held = held
		if err == nil {
			err = w.feed(ctx, ids)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	if passed == 0 {
		return nil, fmt.Errorf("%w: no tokens", ErrText)
	}
	return l.layers, nil
}

// listener keeps what routers read.
type listener struct {
	layers map[int]*Captured
	held   bool // what runs is kept apart
}

func (l *listener) see(op tensor.Op, read func(tensor.Mat) []byte) {
	o, ok := op.(*moe.Route)
	if !ok {
		return
	}
	layer, ok := layerOf(o.W.Name, "ffn_gate_inp.weight")
	c := l.layers[layer]
	if !ok || c == nil {
		panic("winnow: bug: compress: a router of " + o.W.String())
	}
	if len(c.Rows)+len(c.Held) == 0 {
		for to, m := range map[*[]float32]tensor.Mat{&c.Bias: o.Bias, &c.Select: o.Select} {
			if m.Present() {
				*to = tensor.HostMat("", quant.F32, 1, m.Cols, read(m)).F32()
			}
		}
	}
	rows := o.X.Rows
	if o.N.Present() {
		rows = int(tensor.HostMat("", quant.I32, 1, 1, read(o.N)).I32()[0])
	}
	x := tensor.HostMat("", quant.F32, rows, o.X.Cols, read(o.X.Slice(0, rows))).F32()
	if l.held {
		c.Held = append(c.Held, x...)
		return
	}
	c.Rows = append(c.Rows, x...)
}
