package compress

import (
	"math"

	"github.com/winnow-llm/winnow/model"
)

// Untrained is a way to score blocks that needs no gate. Selectors score so.
type Untrained string

const (
	MeanKey    Untrained = "mean key"   // by the mean of a block's keys
	Quest      Untrained = "quest"      // by what a key within the bounds of a block's keys could have at most
	Nearest    Untrained = "nearest"    // the first block, then the last ones
	Anchor     Untrained = "anchor"     // by how close a key comes, with the mean of 32 queries, to their largest score nearby
	XAttention Untrained = "xattention" // by the scores of antidiagonals four apart with the mean of 32 queries
)

// UntrainedOf are those that gates of a kind are measured beside. What judges many queries together is for prompts.
func UntrainedOf(kind model.GateKind) []Untrained {
	if kind == model.SeerDecode {
		return []Untrained{MeanKey, Quest, Nearest}
	}
	return []Untrained{MeanKey, Quest, Nearest, Anchor, XAttention}
}

// judgedTogether is how many queries of a block anchor and xattention take the mean of; antidiagonal is how many keys one of them meets.
const (
	judgedTogether = 32
	antidiagonal   = 4
)

// guess sets what needs no gate says of a row of a gate's head.
func (a *attended) guess(kind model.GateKind, head, r int, row truth) {
	for i, by := range UntrainedOf(kind) {
		scores := row.untrained[i]
		switch by {
		case MeanKey, Quest:
			a.queries(kind, head, r, func(token, head int) { a.rank(by, a.query(token, head), head/a.group(), scores) })
		case Nearest:
			for b := range scores {
				scores[b] = float32(b)
			}
			if len(scores) > 0 {
				scores[0] = float32(len(scores))
			}
		case Anchor:
			a.anchor(head, r, scores)
		case XAttention:
			a.antidiagonals(head, r, scores)
		}
	}
}

// rank adds to blocks what one query makes of their mean keys, or of the bounds of their keys.
func (a *attended) rank(by Untrained, q []float32, kv int, scores []float32) {
	width, dim := a.size.KV*a.size.Dim, a.size.Dim
	for b := range scores {
		at := b*width + kv*dim
		if by == MeanKey {
			scores[b] += inner(q, a.means[at:at+dim])
			continue
		}
		for d, v := range q {
			scores[b] += max(v*a.low[at+d], v*a.high[at+d])
		}
	}
}

// meanQuery is the mean of the queries of every step-th token, n of them.
func (a *attended) meanQuery(from, step, n, head int) []float32 {
	sum := make([]float32, a.size.Dim)
	for t := from; t < from+step*n; t += step {
		axpy(sum, a.query(t, head), 1/float32(n))
	}
	return sum
}

// anchor scores blocks of a prompt as AnchorAttention does. The first block, a row's own and that before it are always read.
func (a *attended) anchor(head, r int, scores []float32) {
	for b := range scores {
		scores[b] = float32(math.Inf(-1))
		if b == 0 || b >= r-1 {
			scores[b] = float32(math.Inf(1))
		}
	}
	for from := r * blockTokens; from < (r+1)*blockTokens; from += judgedTogether {
		q, anchor := a.meanQuery(from, 1, judgedTogether, head), float32(0)
		for t := from; t < from+judgedTogether; t++ {
			top := float32(math.Inf(-1))
			for s := range t + 1 {
				if b := s / blockTokens; b == 0 || b >= r-1 {
					top = max(top, a.scale*inner(a.query(t, head), a.key(s, head)))
				}
			}
			anchor += top / judgedTogether
		}
		for b := 1; b < r-1; b++ {
			for s := b * blockTokens; s < (b+1)*blockTokens; s++ {
				scores[b] = max(scores[b], a.scale*inner(q, a.key(s, head))-anchor)
			}
		}
	}
}

// antidiagonals scores blocks of a prompt as XAttention does.
func (a *attended) antidiagonals(head, r int, scores []float32) {
	for from := r * blockTokens; from < (r+1)*blockTokens; from += judgedTogether {
		var q [antidiagonal][]float32
		for s := range q {
			q[s] = a.meanQuery(from+antidiagonal-1-s, antidiagonal, judgedTogether/antidiagonal, head)
		}
		masses := make([]float32, (from+judgedTogether)/antidiagonal)
		for j := range masses {
			for s := range q {
				masses[j] += a.scale / antidiagonal * inner(q[s], a.key(j*antidiagonal+s, head))
			}
		}
		softmax(masses)
		for j, m := range masses {
			if b := j * antidiagonal / blockTokens; b < len(scores) {
				scores[b] += m
			}
		}
	}
}
