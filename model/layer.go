package model

import (
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// layer is one layer's operations, prepared: built once, run every step.
type layer struct {
	attnNorm tensor.Norm
	q, k, v  tensor.Linear
	turn     []tensor.Op   // head norms and RoPE
	keep     []tensor.Op   // keys and values into the cache, sidecars beside them
	choose   [][]tensor.Op // which keys, by number of the selector that serves
	receipts []tensor.Op   // of what selectors chose
	attend   attention.Attend
	attnOut  tensor.Linear
	addAttn  tensor.Add
	ffnNorm  tensor.Norm
	ffn      []tensor.Op // the dense network; or router, dispatch and experts
	addFFN   tensor.Add

	waves *waves // runs the experts after ffn, where not all are loaded; else nil
}

// scratch is the memory that layers share, since they run in order: each matrix is as wide as the widest layer needs.
type scratch struct {
	x    tensor.Mat // rows x dim: the residual stream
	h    tensor.Mat // rows x dim: normed
	y    tensor.Mat // rows x dim: a branch's output
	q    tensor.Mat // rows x heads*headDim: queries
	k    tensor.Mat // rows x kvHeads*headDim: keys
	v    tensor.Mat // rows x kvHeads*headDim: values
	att  tensor.Mat // rows x heads*headDim: what the heads read
	gate tensor.Mat // rows x width
	up   tensor.Mat // rows x width

	logits  tensor.Mat // rows x experts: the router's
	routing routing
	weights tensor.Mat // rows x K
	active  tensor.Mat // rows x 2, I32: of trees, selectors and shortlists
	hidden  tensor.Mat // rows*K x expert width
	out     tensor.Mat // rows*K x dim
	plan    *moe.DispatchPlan
}

// scratch allocates what the layers of a spec share.
func (l *loader) scratch(s *Spec) (sc scratch) {
	var q, kv, width, experts, k, expertWidth, physical int
	for _, ls := range s.Layers {
		q, kv, width = max(q, ls.Heads*ls.HeadDim), max(kv, ls.KVHeads*ls.HeadDim), max(width, ls.Width)
		if ls.Router != nil {
			experts, k = max(experts, ls.Router.Experts), max(k, ls.Router.K)
			expertWidth, physical = max(expertWidth, ls.ExpertWidth), max(physical, ls.Map.Physical())
		}
	}
	f32 := func(rows, cols int) tensor.Mat { return l.alloc(quant.F32, rows, cols) }
	sc = scratch{
		x: f32(l.rows, s.Dim), h: f32(l.rows, s.Dim), y: f32(l.rows, s.Dim),
		q: f32(l.rows, q), k: f32(l.rows, kv), v: f32(l.rows, kv), att: f32(l.rows, q),
	}
	if width > 0 {
		sc.gate, sc.up = f32(l.rows, width), f32(l.rows, width)
	}
	if experts > 0 {
		sc.logits, sc.routing, sc.weights = f32(l.rows, experts), l.routing(s, experts, k), f32(l.rows, k)
		sc.active = l.alloc(quant.I32, l.rows, 2)
		sc.hidden, sc.out = f32(l.rows*k, expertWidth), f32(l.rows*k, s.Dim)
		if l.err == nil {
			sc.plan, l.err = moe.NewDispatchPlan(l.device, moe.Extent{Rows: l.rows, K: k, Experts: physical})
		}
	}
	return sc
}

// narrow is a scratch matrix as a layer of its own width sees it: the same memory, fewer columns.
func narrow(m tensor.Mat, cols int) tensor.Mat {
	m.Cols = cols
	return m
}

// layer prepares layer i.
func (l *loader) layer(i int, s *LayerSpec, m *Model) (out layer) {
	sc, n := &m.scratch, m.batch.Layout.Rows
	name := func(part string) string { return fmt.Sprintf("%s.%d.%s", l.blocks, i, part) }
	norm := func(part string) tensor.Norm {
		return tensor.Norm{X: sc.x, W: l.vector(name(part), sc.x.Cols), Y: sc.h, N: n, Groups: 1, Eps: m.spec.Eps}
	}
	out.attnNorm = norm("attn_norm.weight")
	l.attention(s, m, &out, name)
	out.addAttn = tensor.Add{X: sc.y, Y: sc.x, N: n}
	out.ffnNorm = norm("ffn_norm.weight")
	if s.Router != nil {
		l.experts(s, m, &out, name)
	} else {
		out.ffn = l.dense(s, m, name)
	}
	out.addFFN = tensor.Add{X: sc.y, Y: sc.x, N: n}
	return out
}

func (l *loader) attention(s *LayerSpec, m *Model, out *layer, name func(string) string) {
	sc, lay, dim := &m.scratch, &m.batch.Layout, m.spec.Dim
	width, kvWidth := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	q, k, v, att := narrow(sc.q, width), narrow(sc.k, kvWidth), narrow(sc.v, kvWidth), narrow(sc.att, width)
	linear := func(part string, x, y tensor.Mat, biased bool) tensor.Linear {
		op := tensor.Linear{X: x, W: l.weight(name(part+".weight"), y.Cols, x.Cols), Y: y, N: lay.Rows}
		if biased {
			op.B = l.vector(name(part+".bias"), y.Cols)
		}
		return op
	}
	out.q = linear("attn_q", sc.h, q, s.QKVBias)
	out.k = linear("attn_k", sc.h, k, s.QKVBias)
	out.v = linear("attn_v", sc.h, v, s.QKVBias)
	out.attnOut = linear("attn_output", att, narrow(sc.y, dim), s.OutBias)
	if l.err != nil {
		return
	}
	qHeads, kHeads := q.Reshape(l.rows*s.Heads, s.HeadDim), k.Reshape(l.rows*s.KVHeads, s.HeadDim)
	norm := func(part string, x tensor.Mat, groups int) *tensor.Norm {
		return &tensor.Norm{X: x, W: l.vector(name(part), x.Cols), Y: x, N: lay.Rows, Groups: groups, Eps: m.spec.Eps}
	}
	switch {
	case s.QKNorm && s.WholeNorm:
		out.turn = append(out.turn, norm("attn_q_norm.weight", q, 1), norm("attn_k_norm.weight", k, 1))
	case s.QKNorm:
		out.turn = append(out.turn, norm("attn_q_norm.weight", qHeads, s.Heads), norm("attn_k_norm.weight", kHeads, s.KVHeads))
	}
	i := len(m.layers)
	reads := l.reads(i, s, m)
	if l.err != nil {
		return
	}
	out.turn = append(out.turn, reads.observe...)
	angles := l.angles(s.Rope, m)
	out.turn = append(out.turn,
		&tensor.Rope{X: qHeads, Angles: angles, N: lay.Rows, Heads: s.Heads, Pairs: s.Rope.Pairs},
		&tensor.Rope{X: kHeads, Angles: angles, N: lay.Rows, Heads: s.KVHeads, Pairs: s.Rope.Pairs})
	cache := m.caches[i]
	out.keep = []tensor.Op{&attention.Append{K: k, V: v, Cache: cache, Layout: lay}}
	if cache.Pruned != nil {
		out.keep = append(out.keep, &attention.Prune{Cache: cache, Layout: lay})
	}
	out.keep = append(out.keep, reads.keep...)
	out.choose, out.receipts = reads.choose, reads.receipts
	out.attend = attention.Attend{
		Q: q, Y: att, Cache: cache, Plan: reads.plan, Layout: lay, Heads: s.Heads, Scale: s.Scale,
	}
}

// leave prepares what follows the last layer: the norm and the output matrix of the wanted rows, and sums.
func (l *loader) leave(m *Model, norm, table tensor.Mat) {
	b := m.batch
	wanted := l.alloc(m.scratch.x.Format, l.opt.Limits.Wanted, m.spec.Dim)
	m.pick = tensor.Gather{X: m.scratch.x, Rows: b.Want, Y: wanted, N: b.Wanted}
	m.norm = tensor.Norm{X: wanted, W: norm, Y: wanted, N: b.Wanted, Groups: 1, Eps: m.spec.Eps}
	m.output = tensor.Linear{X: wanted, W: table, Y: b.Logits, N: b.Wanted}
	m.pool = b.Pooled.ops(m.scratch.x, m.scratch.h, m.norm)
}

// angles is the table of a kind of RoPE: layers that turn alike share one.
func (l *loader) angles(r Rope, m *Model) tensor.Mat {
	freq := tensor.FromF32(1, len(r.Freq), r.Freq)
	for i, a := range m.angles {
		if a.Scale == r.Scale && slices.Equal(m.freqs[i], r.Freq) {
			return a.Y
		}
	}
	lay := &m.batch.Layout
	a := &tensor.Angles{Pos: lay.Pos, Freq: l.upload(freq), Y: l.alloc(quant.F32, l.rows, 2*len(r.Freq)), N: lay.Rows, Scale: r.Scale}
	m.angles, m.freqs = append(m.angles, a), append(m.freqs, r.Freq)
	return a.Y
}

// caches are those of all layers.
func (l *loader) caches(s *Spec) (out []*attention.Cache) {
	layers, err := l.opt.shapes(s)
	if err != nil {
		l.fail(err)
		return nil
	}
	pages := l.opt.Limits.Pages
	if layers[0].Keep > 0 {
		pages = l.opt.Limits.dense()
	}
	out, err = attention.NewCaches(l.device, pages, layers)
	if err != nil {
		l.fail(err)
		return nil
	}
	l.owned = append(l.owned, out[0].K.Buf)
	if layers[0].Keep > 0 {
		buf, err := attention.AddPruned(l.device, l.opt.Limits.Pages, layers, out)
		if err != nil {
			l.fail(err)
			return nil
		}
		l.owned = append(l.owned, buf)
	}
	return out
}

// reads is how a layer's keys are chosen.
type reads struct {
	plan          *attention.Plan
	observe, keep []tensor.Op   // sidecars
	choose        [][]tensor.Op // by number of the selector that serves
	receipts      []tensor.Op
}

// reads prepares the choice of keys of layer i: by the selectors that requests ask for, or as the layer was trained.
func (l *loader) reads(i int, s *LayerSpec, m *Model) (r reads) {
	r.choose = make([][]tensor.Op, 1+len(l.opt.Sparse))
	if !m.sparse.serves(i) {
		selector := l.selector(s.Window, m)
		if l.err == nil {
			r.plan, r.choose[0] = selector.Plan, selector.At(i).Select
		}
		return r
	}
	r.plan, r.receipts = m.sparse.env.Plan, m.batch.receipts.ops(m.sparse, m.sparse.at[i])
	for n, selector := range m.sparse.selectors {
		steps := selector.At(m.sparse.at[i])
		r.observe, r.keep, r.choose[n] = append(r.observe, steps.Observe...), append(r.keep, steps.Append...), steps.Select
	}
	return r
}

// selector is the one that layers of a window share.
func (l *loader) selector(window int, m *Model) *attention.Selector {
	if s := m.selectors[window]; s != nil || l.err != nil {
		return s
	}
	var s *attention.Selector
	var err error
	if window == 0 {
		s, err = attention.NewFull(l.device, l.rows)
	} else {
		s, err = attention.NewWindow(l.device, &m.batch.Layout, l.rows, window)
	}
	if err != nil {
		l.fail(err)
		return nil
	}
	m.selectors[window] = s
	return s
}

// dense prepares a SwiGLU network: down(silu(gate x) * up x).
func (l *loader) dense(s *LayerSpec, m *Model, name func(string) string) []tensor.Op {
	sc, n := &m.scratch, m.batch.Layout.Rows
	gate, up := narrow(sc.gate, s.Width), narrow(sc.up, s.Width)
	linear := func(part string, x, y tensor.Mat) *tensor.Linear {
		op := &tensor.Linear{X: x, W: l.weight(name(part+".weight"), y.Cols, x.Cols), Y: y, N: n}
		if s.FFNBias {
			op.B = l.vector(name(part+".bias"), y.Cols)
		}
		return op
	}
	return []tensor.Op{
		linear("ffn_gate", sc.h, gate), linear("ffn_up", sc.h, up),
		&tensor.GLU{Gate: gate, Up: up, Y: gate, N: n}, linear("ffn_down", gate, sc.y),
	}
}

// experts prepares router, counts, dispatch and expert network.
func (l *loader) experts(s *LayerSpec, m *Model, out *layer, name func(string) string) {
	sc, n, dim, width, r := &m.scratch, m.batch.Layout.Rows, m.spec.Dim, s.ExpertWidth, *s.Router
	if l.err != nil {
		return
	}
	count := s.Map.Physical()
	phys := l.upload(tensor.FromI32(1, r.Experts, s.Map.Phys))
	at := m.expertLayers
	m.expertLayers++
	ids, mass, counts := sc.routing.layer(at, &r)
	logits, weights := narrow(sc.logits, r.Experts), narrow(sc.weights, r.K)
	counted := logits
	if s.Tree != nil || s.DSelect != nil || s.Shortlist > 0 { // which write none
		counted = tensor.Mat{}
	}
	out.ffn = []tensor.Op{
		l.router(s, m, name, choice{phys: phys, ids: ids, logits: logits, weights: weights, mass: mass, at: at}),
		&moe.Tally{IDs: ids, Logits: counted, Counts: counts, N: n},
		&moe.Dispatch{IDs: ids, Weights: weights, Phys: phys, Plan: sc.plan.For(r.K), N: n, Experts: count},
	}
	ffn := &moe.FFN{X: sc.h, Y: sc.y, Hidden: narrow(sc.hidden, width), Out: sc.out, Plan: sc.plan.For(r.K), N: n}
	if l.resident != nil {
		out.waves = l.resident.layer(at, ffn, out.ffn[0])
		return
	}
	ffn.Banks = l.banks(s, dim, name)
	out.ffn = append(out.ffn, ffn)
}
