package model

import (
	"fmt"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Experts is with how few experts the tokens of a sequence make do. The zero value takes all that the model does.
type Experts struct {
	TopK     []int   // most experts a token: one number for all layers, or one for each layer of experts; 0 or none = the model's own
	MinP     float32 // least factor of an expert beside the heaviest one's; 0 = any
	Mass     float32 // the fewest experts whose share of the factors reaches it; 0 and 1 = all
	SkipBeta float32 // least factor of an expert beside the first one's; 0 = any
}

// ExpertsError says what of Experts a model cannot do.
type ExpertsError struct {
	Field string // in the words of the wire: "top_k"; "" = the model has no experts
	Why   string
}

func (e *ExpertsError) Error() string {
	if e.Field == "" {
		return e.Why
	}
	return e.Field + " " + e.Why
}

// ExpertLayers is how many layers have experts.
func (s *Spec) ExpertLayers() (n int) {
	for _, l := range s.Layers {
		if l.Router != nil {
			n++
		}
	}
	return n
}

// Wish is what Experts asks of the model, as a line of Step.Wishes; nil where it asks for nothing but the model's own. Sequences with equal
// lines compute the same. The error is an *ExpertsError.
func (s *Spec) Wish(x *Experts) ([]float32, error) {
	layers := s.ExpertLayers()
	if layers == 0 {
		return nil, &ExpertsError{"", "this model has no experts"}
	}
	if n := len(x.TopK); n > 1 && n != layers {
		return nil, &ExpertsError{"top_k", fmt.Sprintf("has %d numbers, the model has %d layers of experts", n, layers)}
	}
	line := make([]float32, moe.WishK+layers)
	for _, f := range []struct {
		name   string
		column int
		v      float32
	}{{"min_p", moe.WishMinP, x.MinP}, {"mass", moe.WishMass, x.Mass}, {"skip_beta", moe.WishSkip, x.SkipBeta}} {
		if !(f.v >= 0 && f.v <= 1) {
			return nil, &ExpertsError{f.name, fmt.Sprintf("is %v, want 0 to 1", f.v)}
		}
		line[f.column] = f.v
	}
	if x.Mass == 1 {
		line[moe.WishMass] = 0
	}
	at := 0
	for i, l := range s.Layers {
		if l.Router == nil {
			continue
		}
		if k := x.topK(at); k < 0 || k > l.Router.K {
			return nil, &ExpertsError{"top_k", fmt.Sprintf("is %d for layer %d, which takes 1 to %d of its %d experts", k, i, l.Router.K, l.Router.Experts)}
		} else if k < l.Router.K {
			line[moe.WishK+at] = float32(k)
		}
		at++
	}
	if !slices.ContainsFunc(line, func(v float32) bool { return v != 0 }) {
		return nil, nil
	}
	return line, nil
}

// topK is what is asked of a layer of experts.
func (x *Experts) topK(at int) int {
	switch len(x.TopK) {
	case 0:
		return 0
	case 1:
		return x.TopK[0]
	}
	return x.TopK[at]
}

// wishes are the batch's part of Experts.
type wishes struct {
	lines tensor.Mat // sequences x moe.WishK+layers, F32
	of    tensor.Mat // rows x 1, I32: line of each row, counted from 1; 0 = the model's own
	said  int        // leading rows that may not be 0
	rows  []int32    // scratch of fill
}

// newWishes allocates the columns; a model without experts has none.
func newWishes(d tensor.Device, lim Limits, spec *Spec) (w wishes, err error) {
	layers := spec.ExpertLayers()
	if layers == 0 {
		return w, nil
	}
	if w.lines, err = tensor.NewMat(d, quant.F32, lim.Sequences, moe.WishK+layers); err == nil {
		w.of, err = tensor.NewMat(d, quant.I32, lim.Rows, 1)
	}
	if err != nil {
		w.free(d)
		return w, fmt.Errorf("batch: %w", err)
	}
	return w, nil
}

// fill writes the wishes of a step. Where nobody has one, now as before, there is nothing to write.
func (w *wishes) fill(q tensor.Queue, s *Step) {
	if !w.of.Present() {
		return
	}
	w.rows = w.rows[:0]
	lines := 0
	for i, line := range s.Wishes {
		of := int32(0)
		if line != nil {
			write(q, w.lines.Slice(lines, lines+1), line)
			lines++
			of = int32(lines)
		}
		for range s.Start[i+1] - s.Start[i] {
			w.rows = append(w.rows, of)
		}
	}
	if lines == 0 {
		w.rows = append(w.rows[:0], make([]int32, w.said)...)
		w.said = 0
	}
	write(q, w.of, w.rows)
	if lines > 0 {
		w.said = max(w.said, len(w.rows))
	}
}

func (w *wishes) free(d tensor.Device) {
	for _, m := range []tensor.Mat{w.lines, w.of} {
		if m.Present() {
			d.Free(m.Buf)
		}
	}
}

// routing is what the layers of experts leave behind of a step, and count for ever.
type routing struct {
	ids    tensor.Mat // layers*rows x K, I32: router rows chosen, K of the layer that takes most
	mass   tensor.Mat // layers*rows x 1, F32: what share of the factors wishes left
	counts tensor.Mat // layers x most experts+moe.TallyColumns, I32: see moe.Tally
	rows   int        // of a step
	read   []int32    // scratch: counts as they were read last
	totals []ExpertCounts
}

// routing allocates what the layers of experts of a spec write, experts and k being the most of any.
func (l *loader) routing(s *Spec, experts, k int) routing {
	layers := s.ExpertLayers()
	r := routing{
		ids: l.alloc(quant.I32, layers*l.rows, k), mass: l.alloc(quant.F32, layers*l.rows, 1),
		counts: l.alloc(quant.I32, layers, experts+moe.TallyColumns), rows: l.rows, read: make([]int32, layers*(experts+moe.TallyColumns)),
	}
	for i, ls := range s.Layers {
		if ls.Router != nil {
			r.totals = append(r.totals, ExpertCounts{
				Layer: i, Map: ls.Map, Chosen: make([]int64, ls.Router.Experts), Recent: make([]float64, ls.Router.Experts),
			})
		}
	}
	return r
}

// layer is what layer at of experts writes. Only the memory is its own that its K and its experts need.
func (r *routing) layer(at int, spec *moe.RouterSpec) (ids, mass, counts tensor.Mat) {
	lo, hi := at*r.rows, (at+1)*r.rows
	return narrow(r.ids.Slice(lo, hi), spec.K), r.mass.Slice(lo, hi), narrow(r.counts.Slice(at, at+1), spec.Experts+moe.TallyColumns)
}

// Routed is what a layer of experts did with rows of the last step, or of the last Part that ran it.
type Routed struct {
	IDs  []int32   // rows x K: router rows in the order of choice, then -1; replaced
	Mass []float32 // rows: what share of the K experts' factors a wish left, 1 without one; replaced
}

// Routed reads what layer at of experts did with rows lo to hi, and waits for it. Only who steps the model may call it.
func (m *Model) Routed(at, lo, hi int, out *Routed) {
	r := &m.scratch.routing
	k := m.spec.Layers[r.totals[at].Layer].Router.K
	ids, mass, _ := r.layer(at, m.spec.Layers[r.totals[at].Layer].Router)
	out.IDs, out.Mass = slices.Grow(out.IDs[:0], (hi-lo)*k)[:(hi-lo)*k], slices.Grow(out.Mass[:0], hi-lo)[:hi-lo]
	for i := range out.IDs {
		out.IDs[i] = -1 // as a queue that failed leaves them
	}
	clear(out.Mass)
	read(m.queue, ids.Slice(lo, hi), out.IDs)
	read(m.queue, mass.Slice(lo, hi), out.Mass)
}

// ExpertCounts is which experts of a layer were chosen since the model was loaded.
type ExpertCounts struct {
	Layer  int           // of the network
	Map    moe.ExpertMap // which of them exist; shared and never changed
	Rows   int64         // tokens that came by
	NaN    int64         // of their logits, those that were no numbers
	Chosen []int64       // by router row
	// Distinct is how many experts steps chose, each counted once a step, and Steps how many steps these are.
	Distinct, Steps int64
	// Recent is Chosen of the last tokens, where one that n tokens came after counts by a factor of e^(-n/RecentTokens); RecentRows counts them so.
	Recent                      []float64
	RecentRows                  float64
	RecentDistinct, RecentSteps float64 // likewise

	Traffic *ExpertTraffic // nil where all experts are loaded; shared and never changed
}

// Unique is how many different experts a step chose lately, the mean; NaN before the first.
func (c *ExpertCounts) Unique() float64 { return c.RecentDistinct / c.RecentSteps }

// RecentTokens is how many tokens ExpertCounts.Recent looks back on.
const RecentTokens = 1 << 14

// Variation says how unevenly the experts that exist are chosen: the standard deviation of their counts beside the mean; 0 is evenly, or not at all.
func (c *ExpertCounts) Variation() float64 {
	var n, sum, squares float64
	for e, v := range c.Chosen {
		if c.Map.Phys[e] >= 0 {
			n, sum, squares = n+1, sum+float64(v), squares+float64(v)*float64(v)
		}
	}
	if sum == 0 {
		return 0
	}
	mean := sum / n
	return math.Sqrt(max(0, squares/n-mean*mean)) / mean
}

// Drift says how far the last tokens' choices are from others of the layer, which usage counts by router row: the total variation, or which share
// of the choices would have to be of another expert for both to be alike. Experts that do not exist do not count. It is NaN where either has none.
func (c *ExpertCounts) Drift(usage []int64) float64 {
	var ours, theirs, apart float64
	for e, v := range c.Recent {
		if c.Map.Phys[e] >= 0 {
			ours, theirs = ours+v, theirs+float64(usage[e])
		}
	}
	for e, v := range c.Recent {
		if c.Map.Phys[e] >= 0 {
			apart += math.Abs(v/ours - float64(usage[e])/theirs)
		}
	}
	return apart / 2
}

// ExpertCounts reads the counts of all layers of experts; the slices are the caller's. Only who steps the model may call it, and counts are right
// if he does once in 2^32 rows or more often. What fails shows at the queue's next Sync.
func (m *Model) ExpertCounts() []ExpertCounts {
	r := &m.scratch.routing
	if len(r.totals) == 0 {
		return nil
	}
	now := slices.Clone(r.read) // which a queue that failed leaves as it is
	read(m.queue, r.counts, now)
	out := make([]ExpertCounts, len(r.totals))
	for i := range r.totals {
		t := &r.totals[i]
		grown := func(column int) int64 {
			at := i*r.counts.Cols + column
			return int64(uint32(now[at]) - uint32(r.read[at]))
		}
		rows := grown(len(t.Chosen) + moe.TallyRows)
		decay := math.Exp(-float64(rows) / RecentTokens)
		for e := range t.Chosen {
			t.Chosen[e] += grown(e)
			t.Recent[e] = t.Recent[e]*decay + float64(grown(e))
		}
		distinct, steps := grown(len(t.Chosen)+moe.TallyDistinct), grown(len(t.Chosen)+moe.TallySteps)
		t.Rows, t.RecentRows = t.Rows+rows, t.RecentRows*decay+float64(rows)
		t.Distinct, t.RecentDistinct = t.Distinct+distinct, t.RecentDistinct*decay+float64(distinct)
		t.Steps, t.RecentSteps = t.Steps+steps, t.RecentSteps*decay+float64(steps)
		t.NaN += grown(len(t.Chosen) + moe.TallyNaN)
		out[i] = *t
		out[i].Chosen, out[i].Recent = slices.Clone(t.Chosen), slices.Clone(t.Recent)
	}
	for i, traffic := range m.ExpertTraffic() {
		out[i].Traffic = &traffic
	}
	r.read = now
	return out
}
