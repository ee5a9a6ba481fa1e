package attention

import (
	"fmt"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/tensor"
)

// Anchors (AnchorAttention, Zhang et al. 2025, arXiv 2505.23520): the largest score of a query is nearly always one of the first keys or of
// those nearby; a key is read when it comes within theta of that.
//
// A group of rows shares a list, as published 2048 rows and means of 128 queries. Rows next to each other want alike things, so small groups
// read fewer keys, and the list costs little beside what it saves: for 64 rows with means of 32, it takes a sixty-fourth of dense attention.
//
// What a key adds to a row is its exponential beside the sum of all. The logarithm of the sum nearby says more about that than the largest score does,
// and a few rows' say as much as all rows' about their mean.
var _ = register(Kind{
	Name: "anchor", Phases: Prefill,
	Knob: Knob{
		Name: "theta", Default: 13.5, Min: -100, Max: anchorMost,
		What: "how far below its anchor a key's score may lie, in units of the softmax's exponent; larger reads more keys; published 12, for the largest score",
	},
	Params: []Knob{
		{Name: "block", Default: 32, Min: 16, Max: 128, What: "how many queries are averaged: 16, 32, 64 or 128 (published)"},
		{Name: "group", Default: 64, Min: 64, Max: 1 << 16, What: "how many rows share a list: a multiple of 64 and of block, published 2048"},
		{Name: "unit", Default: 16, Min: 1, Max: PageTokens, What: "how many neighbouring keys are read where one of them is wanted: 1 (published), 2, 4, 8, 16, 32 or 64; 16 are read in place, fewer gathered"},
		{Name: "single", Default: 48, Min: 0, Max: PageTokens, What: "up to how many keys of a page are read without the others; a page with more is read whole"},
		{Name: "lead", Default: 512, Min: 64, Max: 1 << 16, What: "of so many positions, or a group's, the first group says whether there is anything to leave away"},
		{Name: "soft", Default: 1, Min: 0, Max: 1, What: "1 for a row's anchor to be the logarithm of the summed exponentials of its scores nearby, 0 for the largest of them (published)"},
		{Name: "every", Default: 4, Min: 1, Max: 128, What: "of so many neighbouring queries one has its anchor found, which stands for theirs: 1 (published) or a power of two, at most block"},
	},
	New: newAnchor,
})

func newAnchor(k *Kind, e *Env, s Setting) (*Selector, error) {
	block, group, unit, every := k.param(s, "block"), k.param(s, "group"), k.param(s, "unit"), k.param(s, "every")
	if block&(block-1) != 0 || group%PageTokens != 0 || group%block != 0 {
		return nil, fmt.Errorf("anchor: groups of %d rows with means of %d: want multiples of %d, and means of 16, 32, 64 or 128", group, block, PageTokens)
	}
	lead := max(k.param(s, "lead"), group)
	if lead%group != 0 {
		return nil, fmt.Errorf("anchor: a lead of %d positions in groups of %d", lead, group)
	}
	if block%every != 0 {
		return nil, fmt.Errorf("anchor: an anchor of every %d queries, in means of %d", every, block)
	}
	if PageTokens%unit != 0 {
		return nil, fmt.Errorf("anchor: a unit of %d keys does not fill a page", unit)
	}
	if room := e.Plan.BlockRoom() * (group / PageTokens); room < e.Blocks() {
		return nil, fmt.Errorf("anchor: groups of %d rows have room for %d blocks of %d", group, room, e.Blocks())
	}
	return prepared(e, Caps{ChunkAlign: lead, Fingerprint: k.fingerprint(s)}, func(layer int) tensor.Op {
		return &SelectAnchor{
			Groups: groupsOf(e, s, layer, group), Theta: k.knob(s, layer), Block: block, Unit: unit, Single: k.param(s, "single"), Lead: lead,
			Soft: k.param(s, "soft") == 1, Every: every,
		}
	}), nil
}

// SelectAnchor plans groups of rows of a prompt, each query head by itself. Rows of a group at positions from n on read
//
//	keys 0 to edge        the edge being a block or a page, whichever is longer
//	keys n - edge to p    the keys nearby
//	and the units between of which some key has, with the mean q of some Block neighbouring queries: q.k + Theta >= the mean of their anchors
//
// The anchor of a row is taken over the scores s with the first two: max s, or where Soft is set log sum exp s. Of Every rows it is the one in the middle
// that has one. These are regions as the paper has them; its published code leaves out the keys before the group and counts others twice.
//
// A page of which more than Single keys are read is read whole; so are those with most, as far as the plan has no room. A group with fewer rows
// than Size, at the end of a prompt, reads everything, and so do groups so early that nothing lies between, and all of them where Theta is at
// its most: then nobody is asked. Of Lead positions the first group is asked for the others, see Groups.led.
type SelectAnchor struct {
	Groups         // the plan has one for each query head; Size is how many rows share a list
	Theta  float32 // where the request says nothing
	Block  int     // queries of a mean
	Unit   int     // neighbouring keys that are read together
	Single int     // most keys of a page that are read without the others
	Lead   int     // positions, a multiple of Size
	Soft   bool    // whether anchors are sums' logarithms
	Every  int     // divides Block
}

// anchorMost is the Theta that keeps every key.
const anchorMost = 1000

// edge is the number of keys at the start, and likewise before a group, that all its rows read.
func (o *SelectAnchor) edge() int { return max(o.Block, PageTokens) }

// Reference works group by group and head by head.
func (o *SelectAnchor) Reference() { o.led(o.Theta, o.Lead, o.lists) }

// lists is what a group reads under a head.
func (o *SelectAnchor) lists(r run, h int) (l lists) {
	edge := o.edge()
	if r.rows < o.Size || r.pos-edge <= edge || r.knob >= anchorMost {
		return l
	}
	a := anchored{q: headRows(o.Q, r.row, r.rows, h*o.Cache.Dim, o.Cache.Dim), pos: r.pos, block: o.Block, edge: edge, scale: float64(o.Scale), soft: o.Soft, every: o.Every}
	a.k = o.Cache.keys(o.Layout.Pages[o.Lane], r.seq, h*o.Cache.Heads/o.Plan.Groups, r.pos+r.rows)
	l.ranges = [2]int{edge, r.pos - edge}
	l.blocks, l.keys = split(a.wanted(float64(r.knob), o.Unit), o.Single, r.tiles*o.Plan.KeyRoom())
	return l
}

// anchored is one head's part of a group.
type anchored struct {
	q, k  [][]float64 // the group's queries; all keys up to its last row
	pos   int         // of the first query
	block int         // queries of a mean
	edge  int         // keys at the start, and before the group, among which anchors are
	scale float64
	soft  bool
	every int
}

// wanted lists the keys of units between the edges of which some block of queries wants one, ascending.
func (a *anchored) wanted(theta float64, unit int) (keys []int32) {
	blocks := len(a.q) / a.block
	means, cuts := make([][]float64, blocks), make([]float64, blocks)
	for u := range blocks {
		means[u] = make([]float64, len(a.q[0]))
		for t := u * a.block; t < (u+1)*a.block; t++ {
			for d, v := range a.q[t] {
				means[u][d] += v / float64(a.block)
			}
		}
		for t := u*a.block + a.every/2; t < (u+1)*a.block; t += a.every {
			cuts[u] += a.anchor(t) * float64(a.every) / float64(a.block)
		}
		cuts[u] -= theta
	}
	for first := a.edge; first < a.pos-a.edge; first += unit {
		some := false
		for at := range unit * blocks {
			some = some || a.scale*dot(means[at%blocks], a.k[first+at/blocks]) >= cuts[at%blocks]
		}
		for s := first; some && s < first+unit; s++ {
			keys = append(keys, int32(s))
		}
	}
	return keys
}

// anchor is that of query t, over its scores with the first keys and those nearby.
func (a *anchored) anchor(t int) float64 {
	var scores []float64
	for s := range a.edge {
		scores = append(scores, a.scale*dot(a.q[t], a.k[s]))
	}
	for s := a.pos - a.edge; s <= a.pos+t; s++ {
		scores = append(scores, a.scale*dot(a.q[t], a.k[s]))
	}
	top, sum := slices.Max(scores), 0.0
	if !a.soft {
		return top
	}
	for _, s := range scores {
		sum += math.Exp(s - top)
	}
	return top + math.Log(sum)
}

// Operands lists what groups take, then the plan.
func (o *SelectAnchor) Operands() (in, out []*tensor.Mat) { return o.operands() }

// Cost counts the keys read once a key-value head and group, and two operations a value of a score. It knows positions in host memory
// only.
func (o *SelectAnchor) Cost() (bytes, flops int64) {
	if o.Layout.Pos.Buf.Host() == nil {
		return int64(o.Q.Bytes()), 0
	}
	dim, heads := int64(o.Cache.Dim), int64(o.Plan.Groups)
	o.Layout.runs(o.Serves, o.Size, o.Theta, func(r run) {
		if between := r.pos - 2*o.edge(); r.rows == o.Size && between > 0 {
			bytes += o.Cache.stored(int64(r.pos+r.rows)*int64(o.Cache.Heads)) + 4*int64(r.rows)*dim*heads
			flops += 2 * dim * heads * (int64(r.rows/o.Block*between) + int64(r.rows/o.Every)*int64(2*o.edge()+r.rows/2))
		}
	})
	return bytes, flops
}
