package compress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// SelectorCalibration is what is asked of CalibrateSelectors.
type SelectorCalibration struct {
	Checkpoint *store.Checkpoint // stays the caller's
	Device     tensor.Device     // where the model is loaded for the time of the calibration
	DType      model.DType
	Text       Text
	Context    int       // tokens of the sequence that is read: the first of the text that is as long
	Recalls    []float32 // shares of the softmax
	Selectors  []string  // in each phase that they serve
	Progress   func(SelectorProgress)
}

// SelectorProgress is told after each selector of each layer.
type SelectorProgress struct {
	Layer, Of int // how many layers are begun
	Selector  string
	Phase     string
	Found     []attention.Turned // by recall
}

// CalibrateSelectors finds for each layer of full attention how far selectors must be turned for the layer's own queries to read a share of the
// softmax with the fewest keys. The model reads densely. Settings depend on the model, the device's kernels and the ids; times on the machine.
// ErrText: no sequence is as long as Context.
func CalibrateSelectors(ctx context.Context, ask SelectorCalibration) (*model.SparseProfile, error) {
	spec, err := model.Describe(ask.Checkpoint)
	if err != nil {
		return nil, err
	}
	p := &model.SparseProfile{Text: ask.Text.SHA256, Context: ask.Context, Layers: len(spec.Layers), Full: spec.FullLayers(), Device: ask.Device.Name()}
	if p.Model, err = model.Identity(ask.Checkpoint); err != nil {
		return nil, err
	}
	if len(p.Full) == 0 {
		return nil, fmt.Errorf("%w: selectors where no layer reads everything", model.ErrAssumption)
	}
	if err := ask.settings(p); err != nil {
		return nil, err
	}
	ids, err := ask.sequence(&spec)
	if err != nil {
		return nil, err
	}
	l := &scout{ask: &ask, ctx: ctx, profile: p, spec: &spec, numbers: map[int]int{}}
	// One step has the whole sequence, so that a layer's queries and keys are there when it attends, and no other's need be kept.
	limits := walkLimits(model.Limits{Rows: ask.Context, Context: ask.Context})
	m, err := model.Load(ask.Checkpoint, model.Placement{Device: tensor.Observed(ask.Device, l.see)}, model.Options{DType: ask.DType, Limits: limits})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := checkSequence(ids, m); err != nil {
		return nil, err
	}
	walk := walk{models: []*model.Model{m}, after: func(*model.Step) error { return l.err }}
	err = walk.feed(ctx, ids)
	if err == nil {
		err = walk.run(ctx)
	}
	if err = cmp.Or(l.err, err); err != nil {
		return nil, err
	}
	return p, nil
}

// settings lays out what is to be found.
func (ask *SelectorCalibration) settings(p *model.SparseProfile) error {
	for _, name := range ask.Selectors {
		k := attention.KindOf(name)
		if k == nil || k.Knob.Name == "" {
			return fmt.Errorf("%w: no selector %q has a knob", model.ErrSparse, name)
		}
		for _, phase := range []string{"prefill", "decode"} {
			if k.Phases&phaseOf(phase) == 0 {
				continue
			}
			for _, recall := range ask.Recalls {
				p.Settings = append(p.Settings, model.SparseSetting{Selector: name, Phase: phase, Recall: recall, Knob: k.Knob.Name})
			}
		}
	}
	return nil
}

func phaseOf(name string) attention.Phases {
	if name == "decode" {
		return attention.Decode
	}
	return attention.Prefill
}

// sequence is the first of the text that is long enough.
func (ask *SelectorCalibration) sequence(s *model.Spec) ([]int32, error) {
	if ask.Context < 4*attention.PageTokens || ask.Context > s.Context {
		return nil, fmt.Errorf("%w: a sequence of %d tokens, want %d to %d", ErrText, ask.Context, 4*attention.PageTokens, s.Context)
	}
	for ids, err := range ask.Text.Sequences {
		if err != nil {
			return nil, err
		}
		if len(ids) >= ask.Context {
			return slices.Clone(ids[:ask.Context]), nil
		}
	}
	return nil, fmt.Errorf("%w: none has %d tokens", ErrText, ask.Context)
}

// scout measures selectors on a layer's inputs when the layer has attended.
type scout struct {
	ask     *SelectorCalibration
	ctx     context.Context
	profile *model.SparseProfile
	spec    *model.Spec
	numbers map[int]int // layers, by where their caches begin
	k, v    []float32   // of the layer: rows x kv heads*dim
	err     error
}

// see takes keys and values as they are cached, and queries as they are read with.
func (l *scout) see(op tensor.Op, read func(tensor.Mat) []byte) {
	if l.err != nil {
		return
	}
	take := func(m tensor.Mat) []float32 {
		rows := l.ask.Context
		return tensor.HostMat("", quant.F32, rows, m.Cols, read(m.Slice(0, rows))).F32()
	}
	switch op := op.(type) {
	case *attention.Append:
		if at := op.Cache.K.Off; l.numbers[at] == 0 {
			l.numbers[at] = len(l.numbers) + 1
		}
		l.k, l.v = take(op.K), take(op.V)
	case *attention.Attend:
		layer := l.numbers[op.Cache.K.Off] - 1
		if at := slices.Index(l.profile.Full, layer); at >= 0 {
			l.err = l.measure(at, &l.spec.Layers[layer], take(op.Q))
		}
	}
}

// measure adds a layer to all settings.
func (l *scout) measure(at int, s *model.LayerSpec, q []float32) error {
	if by := s.Scale * float32(math.Sqrt(float64(s.HeadDim))); by != 1 { // a trial divides scores by the root
		for i := range q {
			q[i] *= by
		}
	}
	in := &attention.Inputs{
		Q: headwise(q, s.Heads, s.HeadDim), K: headwise(l.k, s.KVHeads, s.HeadDim), V: headwise(l.v, s.KVHeads, s.HeadDim), Heads: s.Heads, KV: s.KVHeads,
	}
	for first := 0; first < len(l.profile.Settings); first += len(l.ask.Recalls) {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		some := l.profile.Settings[first : first+len(l.ask.Recalls)]
		found, err := l.turn(in, some)
		if err != nil {
			return fmt.Errorf("%s in layer %d: %w", some[0].Selector, l.profile.Full[at], err)
		}
		if l.ask.Progress != nil {
			l.ask.Progress(SelectorProgress{at + 1, len(l.profile.Full), some[0].Selector, some[0].Phase, found})
		}
	}
	return nil
}

// headwise is rows x heads*dim as heads*rows x dim.
func headwise(v []float32, heads, dim int) tensor.Mat {
	rows := len(v) / (heads * dim)
	out := make([]float32, len(v))
	for r := range rows {
		for h := range heads {
			copy(out[(h*rows+r)*dim:][:dim], v[(r*heads+h)*dim:])
		}
	}
	return tensor.FromF32(heads*rows, dim, out)
}

// turn finds the settings of one selector on one layer's inputs.
func (l *scout) turn(in *attention.Inputs, some []model.SparseSetting) (found []attention.Turned, err error) {
	const rows = 512 // of a step: as many as a prompt has, or whole groups of the selector
	kind, size := attention.KindOf(some[0].Selector), attention.TrialSize{Rows: rows, Sequences: 1, Phase: phaseOf(some[0].Phase), Format: quant.F16}
	if size.Phase == attention.Decode {
		size.Rows = attention.PageTokens
	}
	trial, selector, err := attention.NewTrialOf(kind, l.ask.Device, in, size)
	if err != nil {
		return nil, err
	}
	defer trial.Free()
	defer selector.Free(l.ask.Device)
	search := attention.NewSearch(kind, trial, selector, size.Phase)
	if err := search.Fill(0); err != nil {
		return nil, err
	}
	for i := range some {
		best, err := search.Turn(float64(some[i].Recall))
		if err != nil {
			return nil, err
		}
		sparse, dense, err := timed(search)
		if err != nil {
			return nil, err
		}
		s := &some[i]
		s.Knobs, s.Recalls, s.Densities = append(s.Knobs, float32(best.Value)), append(s.Recalls, float32(best.Recall)), append(s.Densities, float32(best.Density))
		s.Ms, s.MsDense = s.Ms+milliseconds(sparse), s.MsDense+milliseconds(dense)
		found = append(found, best)
	}
	return found, nil
}

func milliseconds(d time.Duration) float32 { return float32(d.Seconds() * 1e3) }

// timed is how long the sequence's last step takes: to choose keys and read them, and to read all. The least of some times counts, since others
// work on the machine too.
func timed(s *attention.Search) (sparse, dense time.Duration, err error) {
	run, times, t := attention.Run{From: s.Keys() - 1, To: s.Keys()}, 9, s.Trial
	if s.Phase == attention.Prefill {
		run.From, times = (s.Keys()-1)/s.Align*s.Align, 3
		if whole := s.Keys() / s.Align * s.Align; whole < s.Keys() && whole > 0 { // the last part may be a row
			run.From, run.To = whole-s.Align, whole
		}
	}
	sparse, dense = math.MaxInt64, math.MaxInt64
	for range times {
		t.Step(s.Phase, s.Setting, run)
		started := time.Now()
		err := t.Observe(s.Selector)
		took := time.Since(started)
		err = errors.Join(err, t.Keep())
		started = time.Now()
		err = errors.Join(err, t.Append(s.Selector), t.Select(s.Selector), t.Attend(s.Selector.Plan))
		sparse = min(sparse, took+time.Since(started))
		started = time.Now()
		err = errors.Join(err, t.Attend(t.Dense))
		dense = min(dense, time.Since(started))
		if err != nil {
			return 0, 0, err
		}
	}
	return sparse, dense, nil
}
