package model

import (
	"fmt"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/tensor"
)

// Model is a network on a device, ready to step. One goroutine steps it.
type Model struct {
	spec      Spec
	opt       Options
	device    tensor.Device
	queue     tensor.Queue
	batch     *Batch
	scratch   scratch
	enter     []tensor.Op      // what gives the first layer its input
	angles    []*tensor.Angles // one a kind of RoPE
	freqs     [][]float32      // theirs
	table     tensor.Mat       // of embeddings
	layers    []layer
	pick      tensor.Gather // the wanted rows
	norm      tensor.Norm
	output    tensor.Linear
	pool      []tensor.Op                 // sums of hidden states
	selectors map[int]*attention.Selector // by window
	sparse    *sparse                     // selectors that requests may ask for; nil where there are none
	lanes     lanes                       // where they leave tiles of pages that are freed
	proofs    *failing                    // the queue, where plans are proved, see Prove; else nil
	caches    []*attention.Cache          // one a layer
	loader    *loader

	expertLayers int // layers of experts that are prepared
}

// Forward runs the network on the batch that Fill wrote, adds to its sums of hidden states, and returns its logits, one row a wanted row.
func (m *Model) Forward(b *Batch) tensor.Mat {
	m.Part(b, 0, nil)
	return b.Logits
}

// Blocks is how many parts a network has that only the Residual joins: two a layer, attention and then what follows it.
func (m *Model) Blocks() int { return 2 * len(m.layers) }

// Part runs blocks from one on, with what comes before the first and after the last, and gives the one before which it ended: the first of
// which more, if there is such a func, is asked whether to go on with it and says no. Block from is run in any case. A network may so be run
// in parts, and other batches between them, if the batch is filled again for each part and its Residual restored.
func (m *Model) Part(b *Batch, from int, more func(next int) bool) (to int) {
	q := m.queue
	if from == 0 {
		each(q, m.enter)
	}
	for _, a := range m.angles {
		q.Run(a)
	}
	for to = from; to < m.Blocks(); to++ {
		if to > from && more != nil && !more(to) {
			return to
		}
		l := &m.layers[to/2]
		if to%2 == 0 {
			q.Run(&l.attnNorm)
			q.Run(&l.q)
			q.Run(&l.k)
			q.Run(&l.v)
			each(q, l.turn)
			each(q, l.keep)
			for _, s := range b.tiles.in {
				each(q, l.choose[s])
			}
			if !m.proved(to / 2) {
				return m.Blocks() // the queue's next Sync says why
			}
			if len(b.tiles.in) > 1 {
				each(q, l.receipts)
			}
			q.Run(&l.attend)
			q.Run(&l.attnOut)
			q.Run(&l.addAttn)
		} else {
			q.Run(&l.ffnNorm)
			each(q, l.ffn)
			if l.waves != nil {
				l.waves.run(q)
			}
			q.Run(&l.addFFN)
		}
	}
	q.Run(&m.pick)
	q.Run(&m.norm)
	q.Run(&m.output)
	each(q, m.pool)
	return to
}

// Residual is all that passes from a block to the next: rows x dim, F32.
func (m *Model) Residual(rows int) tensor.Mat { return m.scratch.x.Slice(0, rows) }

func each(q tensor.Queue, ops []tensor.Op) {
	for _, op := range ops {
		q.Run(op)
	}
}

// model prepares the whole network.
func (l *loader) model(s Spec) *Model {
	l.queue = l.device.Queue()
	m := &Model{spec: s, opt: l.opt, device: l.device, queue: l.queue, loader: l, selectors: map[int]*attention.Selector{}}
	if l.verify(&s); l.err != nil {
		return m
	}
	m.batch, l.err = newBatch(l.device, &l.opt, &s)
	m.scratch = l.scratch(&s)
	if l.err != nil {
		return m
	}
	if m.caches = l.caches(&s); l.err != nil {
		return m
	}
	if m.sparse = l.sparse(&s, m); l.err != nil {
		return m
	}
	lay, table := &m.batch.Layout, l.weight("token_embd.weight", s.Vocab, s.Dim)
	if l.resident = l.reside(&s, m); l.resident != nil {
		m.queue = l.resident.queue
	}
	m.table = table
	m.enter = []tensor.Op{&tensor.Embed{IDs: m.batch.IDs, Table: table, Y: m.scratch.x, N: lay.Rows}}
	for i := range s.Layers {
		m.layers = append(m.layers, l.layer(i, &s.Layers[i], m))
	}
	norm := l.vector("output_norm.weight", s.Dim)
	if !s.Tied {
		table = l.weight("output.weight", s.Vocab, s.Dim)
	}
	l.leave(m, norm, table)
	return m
}

// Spec is what the model is.
func (m *Model) Spec() *Spec { return &m.spec }

// Limits are the sizes that its buffers were made for.
func (m *Model) Limits() Limits { return m.opt.Limits }

// Batch is where a step is written, at fixed addresses.
func (m *Model) Batch() *Batch { return m.batch }

// Queue is where the model's steps run.
func (m *Model) Queue() tensor.Queue { return m.queue }

// Fingerprint tells apart models whose caches differ for the same tokens: by architecture, by what selects keys where a request asks for
// nothing else, by how keys and values are stored, by which experts are there and by how keys are turned.
func (m *Model) Fingerprint() string {
	print := m.spec.Arch
	for i, l := range m.spec.Layers {
		if m.sparse.serves(i) {
			print += " full"
			continue
		}
		print += " " + m.selectors[l.Window].Caps.Fingerprint
	}
	print += " kv:" + m.kv().String()
	if o := m.opt.Overlay.Fingerprint(); o != "" {
		print += " experts:" + o
	}
	if r := m.opt.Rope.String(); r != "" {
		print += fmt.Sprintf(" rope:%s, up to %d", r, m.opt.Limits.Context)
	}
	return print
}

// Close gives the model's memory back to its device. It must not be stepping.
func (m *Model) Close() {
	for _, s := range m.selectors {
		s.Plan.Free(m.device)
	}
	m.sparse.free(m.device)
	if m.scratch.plan != nil {
		m.scratch.plan.Free(m.device)
	}
	if m.batch != nil {
		m.batch.free(m.device)
	}
	for _, b := range m.loader.owned {
		m.device.Free(b)
	}
	if r := m.loader.resident; r != nil {
		r.free()
	}
	m.caches, m.selectors, m.sparse, m.scratch, m.batch, m.loader.owned = nil, nil, nil, scratch{}, nil, nil
}
