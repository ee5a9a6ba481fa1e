package model

import (
	"math"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Of the tokens that selectors serve some are probed: what they read is compared with what reading everything would weigh. Of a prompt it is
// one in promptProbes, of what is generated the first one and then one in answerProbes. Which ones follows from their positions, so it is the
// same however a sequence is computed.
const (
	promptProbes = 1024
	answerProbes = 256
)

// probed says whether a token is probed.
func (p *Policy) probed(pos, prompt int) bool {
	selector, _ := p.at(pos, prompt)
	switch {
	case selector == 0, p.Kept != nil && pos >= p.KeptFrom: // the rest may not be there any more
		return false
	case pos < prompt:
		return pos%promptProbes == promptProbes-1
	}
	return (pos-max(prompt, p.From))%answerProbes == 0
}

// receipts are the batch's part of what selectors read, as the device counts it.
type receipts struct {
	counts tensor.Mat // sequences x 2, F32: keys read and keys visible, of all layers that ran since fill
	rows   tensor.Mat // probes x 1, I32: rows that are probed
	n      tensor.Mat // 1 x 1, I32: probes in use
	mass   tensor.Mat // layers*probes x heads, F32: of the softmax over all keys, the share of those that were read

	probes []int32   // scratch of fill and of Receipts, as all below
	values []float32 // of counts
	shares []float32 // of mass
}

// mostProbes is how many rows of a step are probed at most: one generated token a sequence, and the prompts' share.
func mostProbes(lim Limits) int { return 2*lim.Sequences + lim.Rows/promptProbes + 1 }

// newReceipts allocates what selectors of so many layers are asked for.
func (l *loader) newReceipts(sp *sparse) (r receipts) {
	lim := l.opt.Limits
	most := mostProbes(lim)
	return receipts{
		counts: l.alloc(quant.F32, lim.Sequences, 2), rows: l.alloc(quant.I32, most, 1), n: l.alloc(quant.I32, 1, 1),
		mass: l.alloc(quant.F32, len(sp.env.Caches)*most, sp.env.Heads),
	}
}

// ops are what a layer of the Env is asked once its keys are chosen.
func (r *receipts) ops(sp *sparse, at int) []tensor.Op {
	e, most := sp.env, r.rows.Rows
	return []tensor.Op{
		&attention.Count{Y: r.counts, Plan: e.Plan, Layout: e.Layout, Heads: e.Heads},
		&attention.Probe{
			Q: e.Q, Rows: r.rows, N: r.n, Y: r.mass.Slice(at*most, (at+1)*most), Cache: e.Caches[at], Plan: e.Plan, Layout: e.Layout,
			Lane: e.Lane, Heads: e.Heads, Scale: e.Scale,
		},
	}
}

// fill writes which rows of a step are probed, and forgets what was counted.
func (r *receipts) fill(q tensor.Queue, s *Step, pos []int32) {
	if !r.rows.Present() || len(s.Policies) == 0 {
		return
	}
	r.probes = r.probes[:0]
	for i, p := range s.Policies {
		for row := s.Start[i]; p != nil && row < s.Start[i+1]; row++ {
			if p.probed(int(pos[row]), int(s.Prompts[i])) {
				r.probes = append(r.probes, row)
			}
		}
	}
	r.values = append(r.values[:0], make([]float32, 2*len(s.Past))...)
	write(q, r.counts, r.values)
	write(q, r.rows, r.probes)
	write(q, r.n, []int32{int32(len(r.probes))})
}

// Receipt is what a sequence of a step read.
type Receipt struct {
	Read, Visible float64 // keys, summed over tokens, heads and layers
	Probes        []Proof
}

// Proof is a probed token: of the softmax over all of its keys, the share of those that it read, summed over Of heads and layers.
type Proof struct {
	Position int
	Mass     float64
	Of       int
}

// Receipts is what the sequences of a step read in blocks from to to of the network, and nil where no selector served it. It waits for the
// device.
func (m *Model) Receipts(s *Step, from, to int) ([]Receipt, error) {
	r := &m.batch.receipts
	if len(m.batch.tiles.in) < 2 {
		return nil, nil
	}
	most := r.rows.Rows
	r.shares = append(r.shares[:0], make([]float32, r.mass.Rows*r.mass.Cols)...)
	ReadF32(m.queue, r.counts, r.values)
	if len(r.probes) > 0 {
		ReadF32(m.queue, r.mass, r.shares)
	}
	if err := m.queue.Sync(); err != nil {
		return nil, err
	}
	out := make([]Receipt, len(s.Past))
	for i := range out {
		out[i] = Receipt{Read: float64(r.values[2*i]), Visible: float64(r.values[2*i+1])}
	}
	seq := 0
	for n, row := range r.probes {
		for row >= s.Start[seq+1] {
			seq++
		}
		proof := Proof{Position: int(s.Past[seq] + row - s.Start[seq])}
		for layer, at := range m.sparse.at {
			if at < 0 || 2*layer < from || 2*layer >= to {
				continue
			}
			for _, share := range r.shares[(at*most+n)*r.mass.Cols:][:r.mass.Cols] {
				proof.Mass += math.Min(1, float64(share))
				proof.Of++
			}
		}
		out[seq].Probes = append(out[seq].Probes, proof)
	}
	return out, nil
}
