package compress

import (
	"math"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
)

// blockTokens is how many keys a gate scores as one.
const blockTokens = attention.PageTokens

// reading is what the attention of a layer read of one sequence, before RoPE.
type reading struct {
	tokens int
	q      []float32 // tokens x heads*dim
	k      []float32 // tokens x key-value heads*dim
}

// pooled are the inputs of a key-value head's block keys: blocks x 3*dim, the max, min and mean of each channel over a block's tokens.
func (r *reading) pooled(kv int, s model.GateHeads) []float32 {
	blocks, dim, stride := r.tokens/blockTokens, s.Dim, s.KV*s.Dim
	out := make([]float32, blocks*3*dim)
	for b := range blocks {
		most, least, mean := out[b*3*dim:][:dim], out[b*3*dim+dim:][:dim], out[b*3*dim+2*dim:][:dim]
		for t := b * blockTokens; t < (b+1)*blockTokens; t++ {
			for i, v := range r.k[t*stride+kv*dim:][:dim] {
				if t == b*blockTokens {
					most[i], least[i] = v, v
				}
				most[i], least[i] = max(most[i], v), min(least[i], v)
				mean[i] += v
			}
		}
		for i := range mean {
			mean[i] /= blockTokens
		}
	}
	return out
}

// tokensOf are the inputs of queries of a decode gate: rows x group*dim, and their positions are the rows.
func (r *reading) tokensOf(kv int, rows []int, s model.GateHeads) []float32 {
	width := s.Query / s.KV * s.Dim
	out := make([]float32, 0, len(rows)*width)
	for _, t := range rows {
		out = append(out, r.q[(t*s.KV+kv)*width:][:width]...)
	}
	return out
}

// meansOf are the queries of a prefill gate: rows x dim, means of a query head over the tokens of blocks.
func (r *reading) meansOf(head int, rows []int, s model.GateHeads) []float32 {
	out := make([]float32, len(rows)*s.Dim)
	for i, b := range rows {
		mean := out[i*s.Dim : (i+1)*s.Dim]
		for t := b * blockTokens; t < (b+1)*blockTokens; t++ {
			axpy(mean, r.q[(t*s.Query+head)*s.Dim:][:s.Dim], 1.0/blockTokens)
		}
	}
	return out
}

// gateHead is one head of a gate.
type gateHead struct {
	query, key side
	width      int
}

// headOf is a head of a layer's gate; it shares the weights.
func headOf(g *model.Gates, layer, head int, to *turns) *gateHead {
	l := &g.Layer[layer]
	h := &gateHead{width: g.Heads.Width, query: side{to: to, norm: l.QueryNorm}, key: side{to: to, norm: l.KeyNorm}}
	h.key.w = nth(l.Key, head, g.KeyHeads())
	if l.Query != nil {
		h.query.w = nth(l.Query, head, g.KeyHeads())
	}
	return h
}

// nth is one of n equal parts.
func nth(v []float32, i, n int) []float32 {
	size := len(v) / n
	return v[i*size : (i+1)*size : (i+1)*size]
}

// judged is what a head makes of some rows of a sequence.
type judged struct {
	q, k   *passed
	share  []float32 // rows x blocks: the head's guess of each block's part, 0 where a row may not look
	blocks int
}

// judge scores blocks for rows: row i may read the first sees[i] of them.
func (h *gateHead) judge(in *gateInput) *judged {
	j := &judged{blocks: len(in.pools) / (len(h.key.w) / h.width)}
	at := make([]int, j.blocks)
	for b := range at {
		at[b] = b * blockTokens
	}
	j.q, j.k = h.query.forward(in.queries, in.pos, h.width), h.key.forward(in.pools, at, h.width)
	j.share = make([]float32, len(in.pos)*j.blocks)
	scale := float32(1 / math.Sqrt(float64(h.width)))
	for r := range in.pos {
		row := j.share[r*j.blocks:][:in.sees[r]]
		for b := range row {
			row[b] = scale * inner(j.q.out[r*h.width:(r+1)*h.width], j.k.out[b*h.width:(b+1)*h.width])
		}
		softmax(row)
	}
	return j
}

// gateInput is what a head of a gate is shown of a sequence.
type gateInput struct {
	queries []float32 // rows x inputs
	pos     []int     // by row: where its query is turned to
	sees    []int     // by row: how many blocks it may read
	pools   []float32 // blocks x 3*dim
}

// loss is how far the shares are from the truth, rows x blocks: the mean over rows of KL(truth, shares). It adds its gradient to that of the
// head's weights, times weight.
func (h *gateHead) loss(j *judged, truth []float32, in *gateInput, into *gateGrad, weight float32) float64 {
	rows := len(in.pos)
	dq, dk := make([]float32, rows*h.width), make([]float32, j.blocks*h.width)
	scale := float32(1/math.Sqrt(float64(h.width))) * weight / float32(rows)
	total := 0.0
	for r := range rows {
		share, true1 := j.share[r*j.blocks:][:in.sees[r]], truth[r*j.blocks:][:in.sees[r]]
		var sum float32
		for b, p := range true1 {
			sum += p
			if p > 0 {
				total += float64(p) * (math.Log(float64(p)) - math.Log(max(float64(share[b]), 1e-30)))
			}
		}
		for b, s := range share {
			g := scale * (s*sum - true1[b])
			axpy(dq[r*h.width:(r+1)*h.width], j.k.out[b*h.width:(b+1)*h.width], g)
			axpy(dk[b*h.width:(b+1)*h.width], j.q.out[r*h.width:(r+1)*h.width], g)
		}
	}
	if into != nil {
		h.query.backward(j.q, dq, into.query, into.queryNorm)
		h.key.backward(j.k, dk, into.key, into.keyNorm)
	}
	return total / float64(rows)
}

// gateGrad is the gradient of a head's weights; what a gate does not have is nil.
type gateGrad struct{ query, key, queryNorm, keyNorm []float32 }

// softmax turns scores into shares, in place.
func softmax(v []float32) {
	if len(v) == 0 {
		return
	}
	most := v[0]
	for _, x := range v {
		most = max(most, x)
	}
	var sum float32
	for i, x := range v {
		v[i] = float32(math.Exp(float64(x - most)))
		sum += v[i]
	}
	for i := range v {
		v[i] /= sum
	}
}
