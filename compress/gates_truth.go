package compress

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/winnow-llm/winnow/model"
)

// truth is what attention really does in the rows of a gate's head: rows x blocks, of which a row has values in the blocks before its own (and
// in its own, of SeerPrefill).
type truth struct {
	peak []float32 // the most that a key of a block gets of a query, over the row's queries, each row summing to 1
	mass []float32 // the part of a query's attention that goes to a block, mean over the row's queries

	untrained [][]float32 // scores of blocks that need no gate, by UntrainedOf
}

// taught is what gates learn.
func (t *truth) taught(target GateTarget) []float32 {
	if target == Mass {
		return t.mass
	}
	return t.peak
}

// row is the n values of a row that begin at some place.
func (t *truth) row(at, n int) truth {
	r := truth{peak: t.peak[at : at+n], mass: t.mass[at : at+n]}
	for _, scores := range t.untrained {
		r.untrained = append(r.untrained, scores[at:at+n])
	}
	return r
}

// attended is a layer's attention over one sequence, behind RoPE.
type attended struct {
	q, k             []float32 // as in reading
	size             model.GateHeads
	scale            float32
	means, low, high []float32 // blocks x kv heads*dim: of the keys, and the bounds of their values
}

// attend turns what a layer read.
func (r *reading) attend(size model.GateHeads, scale float32, to *turns) *attended {
	a := &attended{q: slices.Clone(r.q), k: slices.Clone(r.k), size: size, scale: scale}
	for at := 0; at < len(a.q); at += size.Dim {
		to.turn(a.q[at:at+size.Dim], at/(size.Query*size.Dim))
	}
	for at := 0; at < len(a.k); at += size.Dim {
		to.turn(a.k[at:at+size.Dim], at/(size.KV*size.Dim))
	}
	width := size.KV * size.Dim
	blocks := r.tokens / blockTokens
	a.means, a.low, a.high = zeros(blocks*width), zeros(blocks*width), zeros(blocks*width)
	for t := range blocks * blockTokens {
		key, at := a.k[t*width:(t+1)*width], t/blockTokens*width
		axpy(a.means[at:at+width], key, 1.0/blockTokens)
		for d, v := range key {
			if t%blockTokens == 0 {
				a.low[at+d], a.high[at+d] = v, v
			}
			a.low[at+d], a.high[at+d] = min(a.low[at+d], v), max(a.high[at+d], v)
		}
	}
	return a
}

// group is how many query heads read a head of keys.
func (a *attended) group() int { return a.size.Query / a.size.KV }

// key is a token's turned key that a query head reads.
func (a *attended) key(token, head int) []float32 {
	return a.k[(token*a.size.KV+head/a.group())*a.size.Dim:][:a.size.Dim]
}

// queries calls visit for each query of a row of a gate's head.
func (a *attended) queries(kind model.GateKind, head, r int, visit func(token, head int)) {
	if kind == model.SeerDecode {
		for m := range a.group() {
			visit(r, head*a.group()+m)
		}
		return
	}
	for t := r * blockTokens; t < (r+1)*blockTokens; t++ {
		visit(t, head)
	}
}

// query is a token's turned query.
func (a *attended) query(token, head int) []float32 {
	return a.q[(token*a.size.Query+head)*a.size.Dim:][:a.size.Dim]
}

// look adds to a row what one query does: blocks are those that the row has. p is scratch, as long as the sequence.
func (a *attended) look(token, head int, row truth, p []float32) {
	q := a.query(token, head)
	p = p[:token+1]
	for t := range p {
		p[t] = a.scale * inner(q, a.key(t, head))
	}
	softmax(p)
	for b := range row.peak {
		var sum float32
		for _, v := range p[b*blockTokens : min((b+1)*blockTokens, len(p))] {
			row.peak[b] = max(row.peak[b], v)
			sum += v
		}
		row.mass[b] += sum
	}
}

// of is what a head of a gate should say in its rows.
func (a *attended) of(kind model.GateKind, head int, rows, sees []int, blocks int) truth {
	n := len(rows) * blocks
	out := truth{peak: zeros(n), mass: zeros(n)}
	for range UntrainedOf(kind) {
		out.untrained = append(out.untrained, zeros(n))
	}
	p := make([]float32, len(a.k)/(a.size.KV*a.size.Dim))
	for i, r := range rows {
		row, queries := out.row(i*blocks, sees[i]), 0
		a.queries(kind, head, r, func(token, head int) {
			a.look(token, head, row, p)
			queries++
		})
		a.guess(kind, head, r, row)
		var sum float32
		for _, v := range row.peak {
			sum += v
		}
		for b := range row.peak {
			row.peak[b] /= sum + 1e-9
			row.mass[b] /= float32(queries)
		}
	}
	return out
}

// choose picks rows of a sequence to learn from: at most n queries of its second half, or blocks of as many queries behind its first quarter;
// n = 0 means all of them. sees is how many blocks each may read.
func choose(kind model.GateKind, tokens, n int, random *rand.Rand) (rows, sees []int) {
	lo, hi := tokens/2, tokens
	if kind == model.SeerPrefill {
		lo, hi = tokens/blockTokens/4, tokens/blockTokens
		if n > 0 {
			n = max(1, n/blockTokens)
		}
	}
	for r := lo; r < hi; r++ {
		rows = append(rows, r)
	}
	if n > 0 && n < len(rows) {
		random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		rows = rows[:n]
		slices.Sort(rows)
	}
	for _, r := range rows {
		if kind == model.SeerPrefill {
			sees = append(sees, r+1)
		} else {
			sees = append(sees, r/blockTokens)
		}
	}
	return rows, sees
}

// gateRecall adds up how much of the attention to earlier blocks those would read that a score puts first: the gate's, what is really there, the
// peaks, and what needs no gate.
type gateRecall struct {
	gate, best, peak, all [len(gateDensities)]float64

	untrained [][len(gateDensities)]float64
}

// gateDensities are the parts of a row's earlier blocks that recall is told for.
var gateDensities = [3]float64{0.125, 0.25, 0.5}

// add counts the rows of a head. A row's own block, which is always read, does not count.
func (g *gateRecall) add(kind model.GateKind, j *judged, t truth, sees []int) {
	for r, n := range sees {
		if kind == model.SeerPrefill {
			n--
		}
		if n < 1 {
			continue
		}
		g.grow(len(t.untrained))
		at := r * j.blocks
		mass := t.mass[at : at+n]
		for i, d := range gateDensities {
			k := max(1, int(d*float64(n)+0.5))
			g.gate[i] += found(mass, j.share[at:at+n], k)
			g.best[i] += found(mass, mass, k)
			g.peak[i] += found(mass, t.peak[at:at+n], k)
			g.all[i] += found(mass, mass, n)
			for u, scores := range t.untrained {
				g.untrained[u][i] += found(mass, scores[at:at+n], k)
			}
		}
	}
}

// grow makes room for n scores that need no gate.
func (g *gateRecall) grow(n int) {
	for len(g.untrained) < n {
		g.untrained = append(g.untrained, [len(gateDensities)]float64{})
	}
}

func (g *gateRecall) join(o *gateRecall) {
	g.grow(len(o.untrained))
	for i := range g.all {
		g.gate[i] += o.gate[i]
		g.best[i] += o.best[i]
		g.peak[i] += o.peak[i]
		g.all[i] += o.all[i]
		for u := range o.untrained {
			g.untrained[u][i] += o.untrained[u][i]
		}
	}
}

// told is the recall at a density.
func (g *gateRecall) told(i int) GateRecall {
	r := GateRecall{Density: gateDensities[i], Gate: share(g.gate[i], g.all[i]), Best: share(g.best[i], g.all[i]), Peak: share(g.peak[i], g.all[i])}
	for _, by := range g.untrained {
		r.Untrained = append(r.Untrained, share(by[i], g.all[i]))
	}
	return r
}

// found is the mass of the k blocks that score highest, of equal ones the first.
func found(mass, score []float32, k int) float64 {
	order := make([]int, len(score))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case score[a] > score[b]:
			return -1
		case score[a] < score[b]:
			return 1
		}
		return 0
	})
	sum := 0.0
	for _, b := range order[:k] {
		sum += float64(mass[b])
	}
	return sum
}

// share is a part of a sum, 0 of nothing.
func share(part, all float64) float64 {
	if all == 0 || math.IsNaN(all) {
		return 0
	}
	return part / all
}
