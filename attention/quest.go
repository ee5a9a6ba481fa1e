package attention

import (
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// Quest (Tang et al. 2024, arXiv 2406.10774): a generated token reads the units of keys that promise the largest scores, by an upper bound
// that needs no training. The first layers read everything. The bound is that of a box around a unit's keys: it tells units apart where
// neighbours are alike, and hardly where keys are independent of each other.
var _ = register(Kind{
	Name: "quest", Phases: Decode,
	Knob: Knob{Name: "budget", Default: 4096, Min: PageTokens, Max: 1 << 24, What: "how many keys before its page a generated token reads"},
	Params: []Knob{
		{Name: "unit", Default: 16, Min: 16, Max: PageTokens, What: "how many neighbouring keys are chosen together: 16, 32 or 64"},
		{Name: "dense_layers", Default: 2, Min: 0, Max: 1 << 10, What: "how many of the first layers read everything"},
	},
	New: newQuest,
})

func newQuest(k *Kind, e *Env, s Setting) (*Selector, error) {
	unit, dense, heads, dim := k.param(s, "unit"), k.param(s, "dense_layers"), e.KV(), e.Dim()
	if PageTokens%unit != 0 {
		return nil, fmt.Errorf("quest: a unit of %d keys does not fill a page", unit)
	}
	q := &Selector{Caps: Caps{ChunkAlign: 1, Fingerprint: k.fingerprint(s)}, Plan: e.Plan}
	for layer, c := range e.Caches {
		if layer < dense {
			q.Layers = append(q.Layers, Steps{Select: []tensor.Op{everything(e, s)}})
			continue
		}
		budget := k.knob(s, layer)
		if e.serves(int(budget)) && !roomFor(e.Plan, e.Plan.Groups/heads, int(budget), unit) {
			q.Free(e.Device)
			return nil, fmt.Errorf("quest: a plan has no room for a budget of %v keys", budget)
		}
		bounds, err := q.own(e.Device, tensor.Mat{Rows: e.Pages * heads, Cols: 2 * dim * (PageTokens / unit), Format: c.Sidecar()})
		if err != nil {
			return nil, fmt.Errorf("quest: %w", err)
		}
		q.Sidecars = append(q.Sidecars, Sidecar{Mat: bounds, Rows: heads})
		q.Layers = append(q.Layers, Steps{
			Append: []tensor.Op{&KeyBounds{Cache: c, Bounds: bounds, Layout: e.Layout, Lane: e.Lane, Unit: unit}},
			Select: []tensor.Op{&SelectQuest{
				Q: e.Q, Bounds: bounds, Plan: e.Plan, Layout: e.Layout, Lane: e.Lane,
				Heads: e.Heads, KV: heads, Unit: unit, Serves: s.Number, Budget: budget,
			}},
		})
	}
	return q, nil
}

// SelectQuest plans the units whose bound is largest: the sum over channels of the larger of query times least key and query times largest
// key. The query heads of one key-value head share their lists; the largest bound of any of them counts.
//
// A tile reads its own page, and of the units before it as many as its budget has room for. Where the budget leaves out less than an eighth of
// the context, which scoring would cost, or its lists would not fit into the plan, it reads everything. A tile of several rows is planned for the query of the first.
type SelectQuest struct {
	Q      tensor.Mat // rows x heads*dim, F32: turned by their positions
	Bounds tensor.Mat // pages*kv heads x 2*dim*units, see KeyBounds
	Plan   *Plan      // its groups are whole parts of a key-value head's query heads
	Layout *Layout    // with tiles
	Lane   int        // which page table
	Heads  int        // query heads
	KV     int        // key-value heads
	Unit   int        // keys: 16, 32 or 64
	Serves int        // the policy whose tiles it plans
	Budget float32    // keys before the tile's page, where the request says nothing
}

// Reference scores every unit before the tile's page for each key-value head.
func (o *SelectQuest) Reference() {
	pos, seq, pages := o.Layout.Pos.I32(), o.Layout.Seq.I32(), o.Layout.Pages[o.Lane]
	share, units := o.Plan.Groups/o.KV, PageTokens/o.Unit
	o.Layout.Tiles.Served(o.Serves, o.Budget, func(tile, first, _ int, knob float32) {
		at, budget := int(pos[first]), int(knob)
		table := pages.I32()[int(seq[first])*pages.Cols:]
		for kv := range o.KV {
			r := reads{at: tile*o.Plan.Groups + kv*share, rows: share}
			if 7*at >= 8*budget && roomFor(o.Plan, share, budget, o.Unit) {
				r.local = at / PageTokens * PageTokens
				scores := make([]float32, r.local/o.Unit)
				for u := range scores {
					scores[u] = o.score(first, int(table[u/units])*o.KV+kv, u%units)
				}
				r.blocks, r.keys = o.split(top(scores, budget/o.Unit))
			}
			r.write(o.Plan)
		}
	})
}

// score is the largest bound that a unit has for the query heads of a key-value head. part is the row of Bounds.
func (o *SelectQuest) score(row, part, unit int) float32 {
	bound, units, g, dim := reader(o.Bounds), PageTokens/o.Unit, o.Heads/o.KV, o.Q.Cols/o.Heads
	best := math.Inf(-1)
	for h := range g {
		q := o.Q.F32()[row*o.Q.Cols+(part%o.KV*g+h)*dim:][:dim]
		var sum float64
		for d, v := range q {
			at := part*o.Bounds.Cols + d*units + unit
			sum += max(float64(v)*float64(bound(at)), float64(v)*float64(bound(at+dim*units)))
		}
		best = max(best, sum)
	}
	return float32(best)
}

// split makes blocks of the pages all of whose units are chosen, and single keys of the rest.
func (o *SelectQuest) split(chosen []int32) (blocks, keys []int32) {
	units := PageTokens / o.Unit
	for i := 0; i < len(chosen); {
		page, end := chosen[i]/int32(units), i
		for end < len(chosen) && chosen[end]/int32(units) == page {
			end++
		}
		if end-i == units {
			blocks, i = append(blocks, page), end
			continue
		}
		for ; i < end; i++ {
			for j := range o.Unit {
				keys = append(keys, chosen[i]*int32(o.Unit)+int32(j))
			}
		}
	}
	return blocks, keys
}

// Operands lists queries, bounds, tiles and layout, then the plan.
func (o *SelectQuest) Operands() (in, out []*tensor.Mat) {
	in = append([]*tensor.Mat{&o.Q, &o.Bounds}, o.Layout.Tiles.operands()...)
	return append(in, o.Layout.operands(o.Lane)...), o.Plan.parts()
}

// Cost counts the bounds of all units before each served tile's page, read once, and four operations a value and query head; nothing
// where the host cannot see the layout.
func (o *SelectQuest) Cost() (bytes, flops int64) {
	pages := servedPages(o.Layout, o.Serves)
	values := pages * int64(o.KV*o.Bounds.Cols)
	return values * int64(o.Bounds.Format.Bytes), 2 * values * int64(o.Heads/o.KV)
}
