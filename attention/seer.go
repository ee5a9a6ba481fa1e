package attention

import (
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// SeerAttention (Gao et al. 2024, arXiv 2410.13276): each page of a prompt reads, in each query head, the pages that a trained gate finds
// probable. Its own page and, by default, the first are always read, and the last two of the prompt read everything.
//
// Of a Gate it takes Key, and Query where the gate projects queries too: see Gate.
var _ = register(Kind{
	Name: "seer", Phases: Prefill,
	Knob: Knob{Name: "threshold", Default: 5e-4, Min: 0, Max: 1, Down: true, What: "the probability above which a page is read"},
	Params: []Knob{
		{Name: "nz_percent", Default: 0, Min: 0, Max: 99, What: "the share of what the prompt may read that is read, in hundredths, in place of the threshold; 0 = the threshold decides"},
		{Name: "relax", Default: 0, Min: 0, Max: 1 << 16, What: "the number of pages above which the threshold shrinks as their number grows; 0 = never"},
		{Name: "sink", Default: 64, Min: 0, Max: 1 << 20, What: "how many of the first keys are read, rounded up to pages"},
		{Name: "last_block_dense", Default: 1, Min: 0, Max: 1, What: "1 for the last two pages of a prompt to read everything"},
	},
	New: newSeer,
})

func newSeer(k *Kind, e *Env, s Setting) (*Selector, error) {
	heads, kv, dim := e.Heads, e.KV(), e.Dim()
	if e.Plan.Groups%heads != 0 {
		return nil, fmt.Errorf("seer: a plan for %d groups has no row for each of %d heads", e.Plan.Groups, heads)
	}
	g, err := newGated(k, e, s, Caps{ChunkAlign: PageTokens, Fingerprint: k.fingerprint(s)})
	if err != nil {
		return nil, err
	}
	shape := gateShape{key: heads * 3 * dim, queries: heads, keys: heads}
	if s.Gates[0].Query.Present() {
		shape = gateShape{query: heads * dim, key: kv * 3 * dim, queries: heads, keys: kv}
	} else if g.width != dim {
		g.Free(e.Device)
		return nil, fmt.Errorf("seer: gates of width %d without a query projection, and heads of %d", g.width, dim)
	}
	tails, err := g.own(e.Device, tensor.Mat{Rows: e.Layout.Tiles.Policy.Rows * shape.keys, Cols: g.width, Format: quant.F32})
	if err != nil {
		return nil, fmt.Errorf("seer: %w", err)
	}
	rule, fixed := ByShare, float32(k.param(s, "nz_percent"))/100
	if fixed > 0 {
		rule = ByRatio
	}
	for layer := range e.Caches {
		queries, keys, err := g.ops(layer, shape)
		if err != nil {
			return nil, err
		}
		queries.Whole, keys.Tails = PageTokens, tails
		g.Layers = append(g.Layers, Steps{
			Observe: []tensor.Op{queries}, Append: []tensor.Op{keys},
			Select: []tensor.Op{&SelectPages{
				Queries: queries.Y, Keys: keys.Keys, Tails: tails, Plan: e.Plan, Layout: e.Layout, Lane: e.Lane, Heads: heads, KeyHeads: shape.keys,
				Serves: s.Number, Rule: rule, Fixed: fixed, Knob: k.knob(s, layer), Scale: 1 / float32(math.Sqrt(float64(g.width))),
				Relax: k.param(s, "relax"), Sink: wholePages(k.param(s, "sink")) / PageTokens, Dense: 2 * k.param(s, "last_block_dense"),
			}},
		})
	}
	return g.Selector, nil
}
