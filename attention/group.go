package attention

import (
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// Groups is how a selector plans that scores queries of a prompt's aligned runs of positions: a run of Size positions from a multiple of Size
// on is planned as one. At the end of a prompt a run has fewer.
type Groups struct {
	Layout *Layout
	Plan   *Plan
	Cache  *Cache     // of the layer, with the keys of the step; where its pages are pruned, what Unpack makes of them
	Q      tensor.Mat // rows x heads*dim, F32: turned by their positions
	Lane   int        // which page table
	Heads  int        // query heads
	Serves int        // the policy whose tiles are planned
	Size   int        // positions, whole pages
	Scale  float32    // of scores

	unpack *Unpack // into Cache; nil where pages are not pruned
}

// groupsOf is the groups of an Env's layer.
func groupsOf(e *Env, s Setting, layer, size int) Groups {
	g := Groups{
		Layout: e.Layout, Plan: e.Plan, Cache: e.Caches[layer], Q: e.Q, Lane: e.Lane, Heads: e.Heads, Serves: s.Number, Size: size, Scale: e.Scale,
	}
	if g.Cache.Pruned != nil {
		g.unpack = &Unpack{From: g.Cache, To: e.unpackedKeys(), Layout: e.Layout, Lane: e.Lane, Serves: s.Number}
		g.Cache = g.unpack.To
	}
	return g
}

// unpacks is what must run before the groups are planned; nil = nothing.
func (o *Groups) unpacks() *Unpack { return o.unpack }

// visit calls plan for every whole group, and has all other tiles that are served read everything.
func (o *Groups) visit(own float32, plan func(g run)) {
	o.Layout.runs(o.Serves, o.Size, own, func(r run) {
		for i := r.tile * o.Plan.Groups; i < (r.tile+r.tiles)*o.Plan.Groups; i++ {
			o.Plan.Write(i, 0, 0, nil, nil)
		}
		if r.rows == o.Size {
			plan(r)
		}
	})
}

// lists is what a run reads under a head: keys from 0 to ranges[0] and from ranges[1] on, blocks and single keys. Without ranges it is everything.
type lists struct {
	ranges       [2]int
	blocks, keys []int32
}

// led plans every run under each head by the lists that find gives. Of some positions the first run, if it is whole, is asked for the others: where
// it would leave away less than a tenth they read everything, and find is not called. Where there is nothing to leave away, finding that out
// costs little.
func (o *Groups) led(own float32, positions int, find func(r run, head int) lists) {
	var runs [2][]run // those that are asked, and the others
	o.Layout.runs(o.Serves, o.Size, own, func(r run) {
		of := 1
		if r.rows == o.Size && r.pos%positions == 0 {
			of = 0
		}
		runs[of] = append(runs[of], r)
	})
	type asked struct{ seq, at, head int }
	whole := map[asked]bool{}
	for of, some := range runs {
		for _, r := range some {
			for h := range o.Plan.Groups {
				var l lists
				about := asked{r.seq, r.pos / positions, h}
				if !whole[about] {
					l = find(r, h)
				}
				o.Plan.writeRun(r, h, l.ranges, l.blocks, l.keys)
				if of == 0 {
					whole[about] = 10*r.reads(l.ranges, l.blocks, l.keys) >= 9*r.pos
				}
			}
		}
	}
}

// sight is the attention of some of a group's last queries to all keys: sums over the queries.
type sight struct {
	columns   []float32 // by key
	diagonals []float32 // by distance, the largest first: that of the last query to the first key, then down to 0
}

// look sums the attention of n queries of a group under a head: of the last one, and those before it that lie apart by step.
func (o *Groups) look(g run, head, n, step int) sight {
	end := g.end()
	s := sight{make([]float32, end), make([]float32, end)}
	score, row := o.scores(g, head), make([]float32, end)
	for i := o.Size - 1 - (n-1)*step; i < o.Size; i += step {
		seen := row[:g.pos+i+1]
		for k := range seen {
			seen[k] = score(i, k)
		}
		soften(seen)
		for k, p := range seen {
			s.columns[k] += p
			s.diagonals[k+end-len(seen)] += p
		}
	}
	return s
}

// scores gives the score of a group's i-th query with a key.
func (o *Groups) scores(g run, head int) func(i, key int) float32 {
	q, key := o.Q.F32(), o.keys(g, head)
	return func(i, k int) float32 {
		var sum float32
		for d := range o.Cache.Dim {
			sum += q[((g.row+i)*o.Heads+head)*o.Cache.Dim+d] * key(k, d)
		}
		return sum * o.Scale
	}
}

// keys reads the keys that a head of a group sees.
func (o *Groups) keys(g run, head int) func(key, d int) float32 {
	pages, at := &o.Layout.Pages[o.Lane], o.Cache.key()
	table := pages.I32()[g.seq*pages.Cols:]
	return func(k, d int) float32 {
		return at(o.Cache.Tile(table[k/PageTokens], head*o.Cache.Heads/o.Heads), k%PageTokens, d)
	}
}

// soften turns scores into shares of their exponentials.
func soften(scores []float32) {
	top := float32(math.Inf(-1))
	for _, s := range scores {
		top = max(top, s)
	}
	var sum float32
	for i, s := range scores {
		scores[i] = float32(math.Exp(float64(s - top)))
		sum += scores[i]
	}
	for i := range scores {
		scores[i] *= 1 / sum
	}
}

// operands lists the layout, the queries and the keys, then the plan.
func (o *Groups) operands() (in, out []*tensor.Mat) {
	in = append(append(o.Layout.Tiles.operands(), o.Layout.operands(o.Lane)...), &o.Q, &o.Cache.K)
	return in, o.Plan.parts()
}

// cost counts a step that is one group after as much again: scores of the last n queries with all its keys.
func (o *Groups) cost(n int) (bytes, flops int64) {
	keys := int64(2 * o.Size)
	return o.Cache.stored(keys * int64(o.Cache.Heads)), 2 * keys * int64(n*o.Heads*o.Cache.Dim)
}
