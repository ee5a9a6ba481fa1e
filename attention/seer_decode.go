package attention

import (
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// SeerAttention-R (Gao et al. 2025, arXiv 2506.08889): a generated token reads the pages that a trained gate scores highest. The query heads
// of a key-value head share what they read.
//
// Of a Gate it takes Query and Key, and the norms where there are some: see Gate. The mean of a tile's queries is that of one token.
var _ = register(Kind{
	Name: "seer_decode", Phases: Decode,
	Knob: Knob{Name: "budget", Default: 4096, Min: PageTokens, Max: 1 << 24, What: "how many keys before its page a generated token reads"},
	Params: []Knob{
		{Name: "start_layer", Default: 0, Min: 0, Max: 1 << 10, What: "how many of the first layers read everything"},
		{Name: "threshold", Default: 0, Min: 0, Max: 1e6, What: "the probability, in millionths, above which a page is read, in place of the budget; 0 = the budget decides"},
		{Name: "compat", Default: 0, Min: 0, Max: 1, What: "1 to turn a page's gate key by its last token, as published inference does with generated pages, in place of its first"},
	},
	New: newSeerDecode,
})

func newSeerDecode(k *Kind, e *Env, s Setting) (*Selector, error) {
	kv, dim, start := e.KV(), e.Dim(), k.param(s, "start_layer")
	g, err := newGated(k, e, s, Caps{ChunkAlign: 1, Fingerprint: k.fingerprint(s)})
	if err != nil {
		return nil, err
	}
	rule, fixed := ByBudget, float32(k.param(s, "threshold"))/1e6
	if fixed > 0 {
		rule = ByShare
	}
	for layer := range e.Caches {
		if layer < start {
			g.Layers = append(g.Layers, Steps{Select: []tensor.Op{everything(e, s)}})
			continue
		}
		budget := k.knob(s, layer)
		if e.serves(int(budget)) && !roomFor(e.Plan, e.Plan.Groups/kv, int(budget), PageTokens) {
			g.Free(e.Device)
			return nil, fmt.Errorf("seer_decode: a plan has no room for a budget of %v keys", budget)
		}
		queries, keys, err := g.ops(layer, gateShape{query: e.Heads * dim, key: kv * 3 * dim, queries: kv, keys: kv})
		if err != nil {
			return nil, err
		}
		keys.Late = k.param(s, "compat") * (PageTokens - 1)
		g.Layers = append(g.Layers, Steps{
			Observe: []tensor.Op{queries}, Append: []tensor.Op{keys},
			Select: []tensor.Op{&SelectPages{
				Queries: queries.Y, Keys: keys.Keys, Plan: e.Plan, Layout: e.Layout, Lane: e.Lane, Heads: kv, KeyHeads: kv, Serves: s.Number,
				Rule: rule, Fixed: fixed, Knob: budget, Scale: 1 / float32(math.Sqrt(float64(keys.Keys.Cols))), Sink: 1,
			}},
		})
	}
	return g.Selector, nil
}
