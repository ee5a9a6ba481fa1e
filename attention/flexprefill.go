package attention

import (
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// A pattern by head and prompt (FlexPrefill, Lai et al. 2025, arXiv 2502.20766, algorithms 1 to 4, and the authors' library): where
// the mean query of the last block foretells what that block looks at, the means of all blocks of queries and keys say which blocks are read;
// elsewhere, columns and slashes of blocks. Both read the fewest that hold a share of the attention. The paper looks once at a whole prompt,
// this looks at every group of it.
var _ = register(Kind{
	Name: "flexprefill", Phases: Prefill,
	Knob: Knob{Name: "gamma", Default: 0.95, Min: 0, Max: 1, What: "the share of the estimated attention that is read"},
	Params: []Knob{
		{Name: "tau", Default: 0.1, Min: 0, Max: 1, What: "how far, by Jensen and Shannon, the mean query may be from its block's queries to be trusted"},
		{Name: "budget", Default: 1024, Min: 0, Max: 1 << 20, What: "how many keys a query reads at least by columns, and by slashes, rounded up to blocks of 128"},
		{Name: "group", Default: 2048, Min: 128, Max: 1 << 16, What: "how many positions are planned as one, rounded up to blocks of 128"},
	},
	New: func(k *Kind, e *Env, s Setting) (*Selector, error) {
		size := flexBlocks(k.param(s, "group")) * flexBlock
		return prepared(e, Caps{ChunkAlign: size, Fingerprint: k.fingerprint(s)}, func(layer int) tensor.Op {
			return &SelectFlexPrefill{
				Groups: groupsOf(e, s, layer, size), Least: max(1, flexBlocks(k.param(s, "budget"))), Tau: k.float(s, "tau"), Gamma: k.knob(s, layer),
			}
		}), nil
	},
})

const (
	flexBlock   = 128 // keys or queries of a block, two pages
	flexQueries = 64  // of a group's last block that are looked at: every second one, which sees as much for half the time
)

func flexBlocks(keys int) int { return (keys + flexBlock - 1) / flexBlock }

// SelectFlexPrefill plans whole groups. A tile reads its own page, and before it the blocks of 128 keys that its block of 128 queries reads.
type SelectFlexPrefill struct {
	Groups
	Least int     // blocks of columns, and of slashes, at least 1
	Tau   float32 // largest square root of a divergence at which mean queries are trusted
	Gamma float32 // the share that is read, where the request says nothing
}

// Reference works group by group and head by head.
func (o *SelectFlexPrefill) Reference() {
	o.visit(o.Gamma, func(g run) {
		for h := range o.Plan.Groups {
			o.plan(g, h, o.blocks(g, h*o.Heads/o.Plan.Groups))
		}
	})
}

// plan writes a group's plan rows: read says whether a block of queries, counted from the group's first, reads a block of keys.
func (o *SelectFlexPrefill) plan(g run, h int, read func(query, key int) bool) {
	for i := range o.Size / PageTokens {
		page := g.pos/PageTokens + i
		var blocks []int32
		for b := range page {
			if read(i/2, b/2) {
				blocks = append(blocks, int32(b))
			}
		}
		o.Plan.Write((g.tile+i)*o.Plan.Groups+h, 0, page*PageTokens, blocks, nil)
	}
}

// blocks is what blocks of queries read under a head.
func (o *SelectFlexPrefill) blocks(g run, head int) func(query, key int) bool {
	s, first, n := o.look(g, head, flexQueries, flexBlock/flexQueries), g.pos/flexBlock, g.end()/flexBlock
	columns, slashes := pooled(s.columns), pooled(s.diagonals)
	score := o.means(g, head)
	column, slash, chosen := o.Least, o.Least, make([]bool, o.Size/flexBlock*n)
	if guess := score(o.Size/flexBlock-1, n); divergence(guess, columns) < o.Tau*o.Tau {
		var all []float32
		for q := range o.Size / flexBlock {
			all = append(all, score(q, first+q+1)...)
			all = append(all, make([]float32, n-first-q-1)...)
		}
		for _, at := range cover(all, g.knob) {
			chosen[at] = true
		}
	} else {
		column = max(column, len(cover(s.columns, g.knob))/flexBlock+1)
		slash = max(slash, len(cover(s.diagonals, g.knob))/flexBlock+1)
	}
	columns[0], slashes[n-1] = float32(math.Inf(1)), float32(math.Inf(1))
	isColumn, isSlash := marked(n, top(columns, column)), marked(n, top(slashes, slash))
	return func(q, k int) bool { return isColumn[k] || isSlash[n-1-(first+q-k)] || chosen[q*n+k] }
}

// pooled is the mean over queries of what lies in each block.
func pooled(sums []float32) []float32 {
	blocks := make([]float32, len(sums)/flexBlock)
	for i, v := range sums {
		blocks[i/flexBlock] += v
	}
	for i := range blocks {
		blocks[i] /= flexQueries
	}
	return blocks
}

func marked(n int, list []int32) []bool {
	marks := make([]bool, n)
	for _, i := range list {
		marks[i] = true
	}
	return marks
}

// means gives the shares of the first n blocks of keys for a group's block of queries, both by their means.
func (o *SelectFlexPrefill) means(g run, head int) func(block, n int) []float32 {
	q, key, dim := o.Q.F32(), o.keys(g, head), o.Cache.Dim
	keys := make([]float32, g.end()/flexBlock*dim)
	for at := range keys {
		for i := range flexBlock {
			keys[at] += key(at/dim*flexBlock+i, at%dim)
		}
		keys[at] /= flexBlock
	}
	return func(block, n int) []float32 {
		mean := make([]float32, dim)
		for d := range mean {
			for i := range flexBlock {
				mean[d] += q[((g.row+block*flexBlock+i)*o.Heads+head)*dim+d]
			}
			mean[d] /= flexBlock
		}
		scores := make([]float32, n)
		for b := range scores {
			for d, x := range mean {
				scores[b] += x * keys[b*dim+d]
			}
			scores[b] *= o.Scale
		}
		soften(scores)
		return scores
	}
}

// divergence is that of Jensen and Shannon between two distributions, in nats.
func divergence(p, q []float32) float32 {
	var sum float64
	for i := range p {
		m := (float64(p[i]) + float64(q[i])) / 2
		for _, x := range []float64{float64(p[i]), float64(q[i])} {
			if x > 0 {
				sum += x * math.Log(x/m) / 2
			}
		}
	}
	return float32(sum)
}

// Operands lists what groups take, then the plan.
func (o *SelectFlexPrefill) Operands() (in, out []*tensor.Mat) { return o.operands() }

// Cost counts the scores.
func (o *SelectFlexPrefill) Cost() (bytes, flops int64) { return o.cost(flexQueries) }
