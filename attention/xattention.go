package attention

import (
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// Antidiagonal scoring (XAttention, Xu et al. 2025, arXiv 2503.16428): the scores of a block of queries with a block of keys are judged by
// those on every stride-th antidiagonal, which meets each query and each key.
//
// A score is the mean of a stride of products, so a key that stands alone counts a stride's share of what it does in the softmax, and is
// missed where that does not stand out from other strides. What neighbours say together is found.
//
// Published is a stride of 8 or 16 and a score for each stride of queries. What scores cost is by how many queries each stands for: strides of
// 4, with the mean of 8 strides of queries that lie together, cost half as much as strides of 16 and tell keys apart better, since queries
// next to each other want alike things and keys need not.
//
// Published blocks are 128 x 128. Blocks of 64 queries with units of 16 keys cost the same to judge and let in fewer keys at the same recall.
var _ = register(Kind{
	Name: "xattention", Phases: Prefill,
	Knob: Knob{Name: "gamma", Default: 0.9, Min: 0, Max: 1, What: "the share of the estimated mass that the keys read must reach"},
	Params: []Knob{
		{Name: "stride", Default: 4, Min: 4, Max: 16, What: "how far apart the antidiagonals are: 4, 8 or 16 (published); half as far costs twice as much"},
		{Name: "mean", Default: 8, Min: 1, Max: 32, What: "how many neighbouring strides of queries are averaged before they are scored: 1 (published), 2, 4, 8, 16 or 32, a block's at most"},
		{Name: "block", Default: 64, Min: 64, Max: 128, What: "how many queries share a list: 64, or 128 (published)"},
		{Name: "unit", Default: 16, Min: 16, Max: 128, What: "how many neighbouring keys are chosen together: 16, 32, 64, or 128 (published) where a block has as many"},
		{Name: "lead", Default: 512, Min: 64, Max: 1 << 16, What: "of so many positions the first block says whether there is anything to leave away"},
		{Name: "cut", Default: 64, Min: 0, Max: 1 << 20, What: "0 = as published; n = every unit is read that has 1/n of what gamma leaves out, or more"},
	},
	New: newXAttention,
})

func newXAttention(k *Kind, e *Env, s Setting) (*Selector, error) {
	stride, mean, block, unit := k.param(s, "stride"), k.param(s, "mean"), k.param(s, "block"), k.param(s, "unit")
	if unit != 128 && PageTokens%unit != 0 || unit > block {
		return nil, fmt.Errorf("xattention: units of %d keys in blocks of %d: want 16, 32, 64 or 128, and no more than a block", unit, block)
	}
	if stride&(stride-1) != 0 || block != 64 && block != 128 {
		return nil, fmt.Errorf("xattention: blocks of %d with a stride of %d: want 64 or 128, and 4, 8 or 16", block, stride)
	}
	if mean&(mean-1) != 0 || stride*mean > block {
		return nil, fmt.Errorf("xattention: means of %d strides of %d in blocks of %d: want 1, 2, 4, 8, 16 or 32, and no more than a block", mean, stride, block)
	}
	lead := k.param(s, "lead")
	if lead%block != 0 {
		return nil, fmt.Errorf("xattention: a lead of %d positions in blocks of %d", lead, block)
	}
	if e.Plan.BlockRoom() < e.Blocks() {
		return nil, fmt.Errorf("xattention: a plan row has room for %d blocks of %d", e.Plan.BlockRoom(), e.Blocks())
	}
	return prepared(e, Caps{ChunkAlign: lead, Fingerprint: k.fingerprint(s)}, func(layer int) tensor.Op {
		return &SelectXAttention{
			Groups: groupsOf(e, s, layer, block), Gamma: k.knob(s, layer),
			Stride: stride, Mean: mean, Unit: unit, Cut: k.param(s, "cut"), Lead: lead,
		}
	}), nil
}

// SelectXAttention plans blocks of rows of a prompt, each query head by itself. With stride S the score of query stride i and key stride j is
//
//	sum over s < S of q[S*i + S-1-s] . k[S*j + s], times Scale / S
//
// of which those of Mean query strides that lie together are averaged. A softmax over j, up to the last of these i, makes masses of the means,
// which are added up over the keys of a unit and averaged over the block's query strides.
// Units are read until the largest masses reach Gamma. The first block of keys and the rows' own are always read.
//
// With Cut, every unit is read whose mass is at least (1-Gamma)/Cut. What counts is the recall on average over rows and heads, and the
// fewest keys that reach it are the heaviest of all of them: a row with many light units gives up more than one with few heavy ones.
//
// A page all of whose units are chosen is listed as a block; so are those with most, as far as the plan has no room for single keys.
//
// Of Lead positions the first block is asked for the others, see Groups.led.
//
// Rows beyond the last whole mean, at the end of a prompt, are not asked; where there is none whole, everything is read.
type SelectXAttention struct {
	Groups         // the plan has one for each query head; Size is a block of queries, and of the keys that are always read
	Gamma  float32 // where the request says nothing
	Stride int
	Mean   int // query strides; 1 = as published
	Unit   int // keys, a multiple of Stride
	Cut    int // units; 0 = as published
	Lead   int // positions, a multiple of Size
}

// Reference works block by block and head by head.
func (o *SelectXAttention) Reference() { o.led(o.Gamma, o.Lead, o.lists) }

// lists is what a block reads under a head.
func (o *SelectXAttention) lists(r run, h int) (l lists) {
	own, dim, heads := r.pos/o.Size, o.Cache.Dim, o.Plan.Groups
	if own == 0 || !o.asks(r) {
		return l
	}
	q := headRows(o.Q, r.row, r.rows/o.span()*o.span(), h*dim, dim)
	k := o.Cache.keys(o.Layout.Pages[o.Lane], r.seq, h*o.Cache.Heads/heads, r.pos+len(q))
	var keys []int32
	for _, u := range o.chosen(o.masses(q, k), r.knob) {
		for s := int(u) * o.Unit; s >= o.Size && s < own*o.Size && s < int(u+1)*o.Unit; s++ {
			keys = append(keys, int32(s))
		}
	}
	l.ranges = [2]int{o.Size, own * o.Size}
	l.blocks, l.keys = split(keys, PageTokens-1, r.tiles*o.Plan.KeyRoom())
	return l
}

// asks says whether rows have a whole mean that starts where keys' strides do, and whether they would leave anything out.
func (o *SelectXAttention) asks(r run) bool {
	return r.knob < 1 && r.pos%o.Stride == 0 && r.rows >= o.span()
}

// span is how many queries a score stands for.
func (o *SelectXAttention) span() int { return o.Stride * o.Mean }

// masses estimates how much of the softmax each unit of keys has, for queries that are the last of the keys' positions.
func (o *SelectXAttention) masses(q, k [][]float64) []float32 {
	strides, means := len(k)/o.Stride, len(q)/o.span()
	sums := make([]float64, (len(k)+o.Unit-1)/o.Unit)
	for i := range means {
		scores, top, total := make([]float64, strides-(means-1-i)*o.Mean), math.Inf(-1), 0.0
		mean := o.mean(q[i*o.span() : (i+1)*o.span()])
		for j := range scores {
			for s, x := range mean {
				scores[j] += dot(x, k[o.Stride*j+s])
			}
			scores[j] *= float64(o.Scale) / float64(o.Stride)
			top = max(top, scores[j])
		}
		for j := range scores {
			scores[j] = math.Exp(scores[j] - top)
			total += scores[j]
		}
		for j, e := range scores {
			sums[o.Stride*j/o.Unit] += e / total
		}
	}
	out := make([]float32, len(sums))
	for b := range out {
		out[b] = float32(sums[b] / float64(means))
	}
	return out
}

// mean is what the keys of a stride are multiplied with: the means of the queries of some strides, in the opposite order.
func (o *SelectXAttention) mean(q [][]float64) [][]float64 {
	mean := make([][]float64, o.Stride)
	for s := range mean {
		mean[s] = make([]float64, len(q[0]))
		for t := o.Stride - 1 - s; t < len(q); t += o.Stride {
			for d, v := range q[t] {
				mean[s][d] += v / float64(o.Mean)
			}
		}
	}
	return mean
}

// chosen is the units to read, ascending.
func (o *SelectXAttention) chosen(masses []float32, gamma float32) (units []int32) {
	if o.Cut == 0 {
		return cover(masses, gamma)
	}
	for u, m := range masses {
		if m >= (1-gamma)/float32(o.Cut) {
			units = append(units, int32(u))
		}
	}
	return units
}

// Operands lists what groups take, then the plan.
func (o *SelectXAttention) Operands() (in, out []*tensor.Mat) { return o.operands() }

// Cost counts the keys read once a key-value head and block of rows, and two operations a value of a score. It knows positions in host
// memory only.
func (o *SelectXAttention) Cost() (bytes, flops int64) {
	if o.Layout.Pos.Buf.Host() == nil {
		return int64(o.Q.Bytes()), 0
	}
	dim, heads := int64(o.Cache.Dim), int64(o.Plan.Groups)
	o.Layout.runs(o.Serves, o.Size, o.Gamma, func(r run) {
		if r.pos >= o.Size && o.asks(r) {
			bytes += o.Cache.stored(int64(r.pos+r.rows)*int64(o.Cache.Heads)) + 4*int64(r.rows)*dim*heads
			flops += 2 * dim * heads * int64(r.rows) * int64(r.pos+r.rows/2) / int64(o.span())
		}
	})
	return bytes, flops
}
