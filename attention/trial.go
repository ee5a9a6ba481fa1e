package attention

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Trial runs selectors over one layer's inputs without a model, step by step, beside attention that reads everything. It is for a device
// whose memory the host reaches.
type Trial struct {
	Env   *Env
	Dense *Plan // one range, all heads together

	in       *Inputs
	queue    tensor.Queue
	keys     *Append
	attend   *Attend
	probe    *Probe
	count    *Count
	values   tensor.Mat // rows x kv heads*dim, F32
	width    int        // pages of a sequence
	runs     []Run      // of the step
	owned    []tensor.Buffer
	fromHost []float32 // scratch
}

// Run is a step's rows of one sequence: positions From to To, To excluded.
type Run struct{ Seq, From, To int }

// policy is the number of the one selector of a trial.
const policy = 1

// ErrNeedsModel is returned for a selector that a layer's inputs alone do not suffice for: it needs gates or a pattern of heads.
var ErrNeedsModel = errors.New("attention: the selector cannot be made without a model")

// TrialSize says what a trial has room for.
type TrialSize struct {
	Rows      int           // rows a step
	Sequences int           // each of the same inputs, in pages of its own
	Phase     Phases        // in Decode each row is a tile
	Format    *quant.Format // of the cache
}

// NewTrial allocates a trial. In its plan a row has room for all blocks and for as many single keys as a model's has, in Decode for all.
func NewTrial(d tensor.Device, in *Inputs, s TrialSize) (*Trial, error) {
	t := &Trial{in: in, queue: d.Queue(), width: (in.Keys() + PageTokens - 1) / PageTokens}
	if err := t.alloc(d, s); err != nil {
		t.Free()
		return nil, fmt.Errorf("trial of %d keys: %w", in.Keys(), err)
	}
	return t, nil
}

// NewTrialOf is a trial of a kind of selector. Its steps have as many more rows as it takes to plan a prompt by whole chunks.
func NewTrialOf(k *Kind, d tensor.Device, in *Inputs, s TrialSize) (*Trial, *Selector, error) {
	for {
		t, err := NewTrial(d, in, s)
		if err != nil {
			return nil, nil, err
		}
		set := Setting{Number: policy, Params: map[string]float64{}}
		for _, p := range k.Params {
			if p.Name == "dense_layers" { // the layer stands for those that are not
				set.Params[p.Name] = 0
			}
		}
		if k.Knob.Default > float64(in.Keys()) { // what counts keys needs no room for more than there are
			set.Knobs = []float32{float32(k.Knob.Turn(1, in.Keys()))}
		}
		sel, err := k.New(k, t.Env, set)
		if err != nil {
			t.Free()
			if errors.Is(err, ErrNoGates) || errors.Is(err, ErrNoPattern) {
				err = fmt.Errorf("%w: %w", ErrNeedsModel, err)
			}
			return nil, nil, err
		}
		chunk := sel.Caps.Chunk()
		if s.Phase == Decode || s.Rows%chunk == 0 {
			return t, sel, nil
		}
		sel.Free(d)
		t.Free()
		s.Rows = (s.Rows + chunk - 1) / chunk * chunk
	}
}

// Chunk is the least number of a prompt's tokens that makes whole pages and is planned together.
func (c Caps) Chunk() int {
	n := PageTokens
	for n%c.ChunkAlign != 0 {
		n += PageTokens
	}
	return n
}

func (t *Trial) alloc(d tensor.Device, s TrialSize) error {
	in, l, dim := t.in, &Layout{Pages: make([]tensor.Mat, 1)}, t.in.Q.Cols
	tiles := s.Rows/PageTokens + 2*s.Sequences
	if s.Phase == Decode {
		tiles = s.Rows
	}
	e := &Env{
		Device: d, Layout: l, Heads: in.Heads, Scale: float32(1 / math.Sqrt(float64(dim))), Pages: s.Sequences * t.width, Context: in.Keys(),
	}
	t.Env, t.probe, t.count = e, &Probe{Layout: l, Heads: e.Heads}, &Count{Layout: l, Heads: e.Heads}
	t.keys, t.attend = &Append{Layout: l}, &Attend{Layout: l}
	for _, m := range []struct {
		mat        *tensor.Mat
		format     *quant.Format
		rows, cols int
	}{
		{&l.Start, quant.I32, s.Sequences + 1, 1}, {&l.Past, quant.I32, s.Sequences, 1}, {&l.Prompt, quant.I32, s.Sequences, 1},
		{&l.Pages[0], quant.I32, s.Sequences, t.width},
		{&l.Seq, quant.I32, s.Rows, 1}, {&l.Pos, quant.I32, s.Rows, 1}, {&l.Rows, quant.I32, 1, 1},
		{&l.Tiles.Of, quant.I32, s.Rows, 1}, {&l.Tiles.First, quant.I32, tiles + 1, 1}, {&l.Tiles.N, quant.I32, 1, 1},
		{&l.Tiles.Policy, quant.I32, tiles, 1}, {&l.Tiles.Knob, quant.F32, tiles, 1},
		{&e.Q, quant.F32, s.Rows, in.Heads * dim}, {&e.K, quant.F32, s.Rows, in.KV * dim}, {&t.values, quant.F32, s.Rows, in.KV * dim},
		{&t.attend.Y, quant.F32, s.Rows, in.Heads * dim},
		{&t.probe.Rows, quant.I32, s.Rows, 1}, {&t.probe.N, quant.I32, 1, 1}, {&t.probe.Y, quant.F32, s.Rows, in.Heads},
		{&t.count.Y, quant.F32, s.Sequences, 2},
	} {
		var err error
		if *m.mat, err = tensor.NewMat(d, m.format, m.rows, m.cols); err != nil {
			return err
		}
		t.owned = append(t.owned, m.mat.Buf)
	}
	var err error
	if e.Caches, err = NewCaches(d, e.Pages, []Shape{{Heads: in.KV, Dim: dim, Format: s.Format}}); err != nil {
		return err
	}
	t.owned = append(t.owned, e.Caches[0].K.Buf)
	room := KeyRoom(e.Blocks())
	if s.Phase == Decode {
		room = max(4096, e.Context) // a budget may be spent on single keys
	}
	if e.Plan, err = NewPlan(d, &l.Tiles, in.Heads, e.Blocks(), room); err != nil {
		return err
	}
	if t.Dense, err = NewRangePlan(d, s.Rows); err != nil {
		return err
	}
	c := e.Caches[0]
	t.keys.K, t.keys.V, t.keys.Cache = e.K, t.values, c
	t.attend.Q, t.attend.Cache, t.attend.Heads, t.attend.Scale = e.Q, c, e.Heads, e.Scale
	t.probe.Q, t.probe.Cache, t.probe.Scale = e.Q, c, e.Scale
	return nil
}

// Free gives the trial's memory back; its selectors are freed before.
func (t *Trial) Free() {
	d := t.Env.Device
	for _, p := range []*Plan{t.Env.Plan, t.Dense} {
		if p != nil {
			p.Free(d)
		}
	}
	for _, b := range t.owned {
		d.Free(b)
	}
}

// Step lays out a step and writes its queries, keys and values, for a selector whose knob is turned to knob; NaN = its own. In Decode rows are
// tiles by themselves, and generated; in Prefill they belong to a prompt as long as the inputs.
func (t *Trial) Step(phase Phases, knob float32, runs ...Run) {
	t.runs = runs
	start, past, prompt, table := []int32{0}, []int32(nil), []int32(nil), []int32(nil)
	var seqs, positions, of, first, policies []int32
	var knobs []float32
	for s, r := range runs {
		past, prompt = append(past, int32(r.From)), append(prompt, int32(t.in.Keys()))
		if phase == Decode {
			prompt[s] = int32(r.From)
		}
		for p := range t.width {
			table = append(table, int32(r.Seq*t.width+p))
		}
		for pos := r.From; pos < r.To; pos++ {
			if pos == r.From || pos%PageTokens == 0 || phase == Decode {
				first, policies, knobs = append(first, int32(len(seqs))), append(policies, policy), append(knobs, knob)
			}
			seqs, positions, of = append(seqs, int32(s)), append(positions, int32(pos)), append(of, int32(len(first)-1))
		}
		start = append(start, int32(len(seqs)))
	}
	l := t.Env.Layout
	put(t.queue, l.Start, start)
	put(t.queue, l.Past, past)
	put(t.queue, l.Prompt, prompt)
	put(t.queue, l.Pages[0], table)
	put(t.queue, l.Seq, seqs)
	put(t.queue, l.Pos, positions)
	put(t.queue, l.Rows, []int32{int32(len(seqs))})
	put(t.queue, l.Tiles.Of, of)
	put(t.queue, l.Tiles.First, append(first, int32(len(seqs))))
	put(t.queue, l.Tiles.N, []int32{int32(len(policies))})
	put(t.queue, l.Tiles.Policy, policies)
	put(t.queue, l.Tiles.Knob, knobs)
	t.put(t.Env.Q, t.in.Q, t.in.Heads, positions)
	t.put(t.Env.K, t.in.K, t.in.KV, positions)
	t.put(t.values, t.in.V, t.in.KV, positions)
}

// put writes the rows at positions.
func (t *Trial) put(to, from tensor.Mat, heads int, positions []int32) {
	t.fromHost = append(t.fromHost[:0], make([]float32, len(positions)*to.Cols)...)
	const part = 256 // rows that a goroutine decodes
	var all sync.WaitGroup
	for lo := 0; lo < len(positions); lo += part {
		all.Go(func() {
			for i := lo; i < min(lo+part, len(positions)); i++ {
				row(t.fromHost[i*to.Cols:(i+1)*to.Cols], from, heads, int(positions[i]))
			}
		})
	}
	all.Wait()
	put(t.queue, to, t.fromHost)
}

func put[T int32 | float32](q tensor.Queue, m tensor.Mat, v []T) {
	if len(v) > 0 {
		q.Write(m.Buf, m.Off, unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v)))
	}
}

// run runs ops and waits for them.
func (t *Trial) run(ops ...tensor.Op) error {
	for _, o := range ops {
		t.queue.Run(o)
	}
	return t.queue.Sync()
}

// Observe and Append are the selector's ops of these names, and Keep stores the step's keys and values between them.
func (t *Trial) Observe(s *Selector) error { return t.run(s.At(0).Observe...) }

// Keep stores the step's keys and values in the cache.
func (t *Trial) Keep() error { return t.run(t.keys) }

// Append brings a selector's sidecars up to date.
func (t *Trial) Append(s *Selector) error { return t.run(s.At(0).Append...) }

// Select fills the selector's plan for the step.
func (t *Trial) Select(s *Selector) error { return t.run(s.At(0).Select...) }

// Attend reads what a plan lists.
func (t *Trial) Attend(p *Plan) error {
	t.attend.Plan = p
	return t.run(t.attend)
}

// Output is what Attend gave for a row of the step: heads*dim values, valid until the next one.
func (t *Trial) Output(row int) []float32 {
	return t.attend.Y.F32()[row*t.attend.Y.Cols:][:t.attend.Y.Cols]
}

// Receipt is what a plan is worth to one row in one head.
type Receipt struct {
	Recall        float64 // share of the softmax that lies on what is read
	Read, Visible int64   // keys
	Single        int     // keys among them that are no part of a range or block
}

// Density is the share of the visible keys that is read.
func (r Receipt) Density() float64 { return float64(r.Read) / float64(r.Visible) }

// Probe gives the receipts of some rows of the step, in every head, and reports an invariant that the plan breaks.
func (t *Trial) Probe(p *Plan, rows []int) ([]Receipt, error) {
	var list []int32
	for _, r := range rows {
		list = append(list, int32(r))
	}
	put(t.queue, t.probe.Rows, list)
	put(t.queue, t.probe.N, []int32{int32(len(rows))})
	t.probe.Plan = p
	if err := t.run(t.probe); err != nil {
		return nil, err
	}
	if p != t.Dense {
		if err := p.Check(t.Env.Layout, t.Env.Heads); err != nil {
			return nil, err
		}
	}
	var all []Receipt
	for i, r := range rows {
		pos := int(t.Env.Layout.Pos.I32()[r])
		for h := range t.Env.Heads {
			at := p.row(r, h, t.Env.Heads)
			all = append(all, Receipt{
				float64(t.probe.Y.F32()[i*t.Env.Heads+h]), p.count(at, pos), int64(pos) + 1, len(p.single(at)),
			})
		}
	}
	return all, nil
}

// Count is how many keys a plan reads and how many are visible, over all rows and heads of the step.
func (t *Trial) Count(p *Plan) (read, visible float64, err error) {
	put(t.queue, t.count.Y, make([]float32, t.count.Y.Rows*2))
	t.count.Plan = p
	if err := t.run(t.count); err != nil {
		return 0, 0, err
	}
	for s := range t.runs {
		read, visible = read+float64(t.count.Y.F32()[2*s]), visible+float64(t.count.Y.F32()[2*s+1])
	}
	return read, visible, nil
}
