package attention

import (
	"math"
	"slices"

	"github.com/winnow-llm/winnow/tensor"
)

// Vertical lines and slashes (MInference, Jiang et al. 2024, arXiv 2407.02490, section 3.2 and algorithm 2, and the authors' library): what the
// last 64 queries of a prompt look at, each by its column and by its distance, is what all queries look at. The defaults are the library's for
// heads of which nothing is known. The paper looks once at a whole prompt, this looks at every group of it.
var _ = register(Kind{
	Name: "minference", Phases: Prefill,
	Knob: Knob{Name: "scale", Default: 1, Min: 1.0 / 64, Max: 64, What: "how many times its columns and diagonals a head reads"},
	Params: []Knob{
		{Name: "columns", Default: 1000, Min: 30, Max: 1 << 20, What: "how many single keys all queries of a group read"},
		{Name: "diagonals", Default: 6096, Min: 50, Max: 1 << 20, What: "how many distances all queries of a group read at"},
		{Name: "group", Default: 2048, Min: 64, Max: 1 << 16, What: "how many positions are planned as one, rounded up to pages"},
	},
	New: func(k *Kind, e *Env, s Setting) (*Selector, error) {
		size := wholePages(k.param(s, "group"))
		return prepared(e, Caps{ChunkAlign: size, Fingerprint: k.fingerprint(s)}, func(layer int) tensor.Op {
			return &SelectMInference{
				Groups: groupsOf(e, s, layer, size), Columns: k.param(s, "columns"), Diagonals: k.param(s, "diagonals"), Times: k.knob(s, layer),
			}
		}), nil
	},
})

const (
	lastQueries   = 64  // whose attention is computed
	firstColumns  = 30  // that are always read
	nearDiagonals = 100 // that come before all others
)

// SelectMInference plans whole groups. A tile reads its own page, the pages that a slash crosses, and the columns in no such page as single
// keys; of a page with more columns than half its keys it reads all. A plan row's room for single keys bounds the columns.
//
// Of a group that would read at more distances than half of those there are everything is read, and nobody is asked: pages that no slash crosses are
// few then, and finding them takes longer than reading them. So it is where a group's lists turn out to leave away less than a tenth.
type SelectMInference struct {
	Groups
	Columns   int     // single keys of a group and head
	Diagonals int     // distances of a group and head
	Times     float32 // how many times both, where the request says nothing
}

// Reference works group by group and head by head.
func (o *SelectMInference) Reference() {
	o.visit(o.Times, func(g run) {
		if 2*int(float32(o.Diagonals)*g.knob) > g.end() {
			return
		}
		for h := range o.Plan.Groups {
			head := h * o.Heads / o.Plan.Groups
			s := o.look(g, head, lastQueries, 1)
			end := len(s.columns)
			for k := range min(firstColumns, end) {
				s.columns[k] = float32(math.Inf(1))
			}
			for k := range min(nearDiagonals, end) {
				s.diagonals[end-1-k] = float32(math.Inf(1))
			}
			columns := top(s.columns, min(int(float32(o.Columns)*g.knob), o.Plan.KeyRoom()))
			crossed := make([]bool, end/PageTokens+1) // by distance in pages
			for _, at := range top(s.diagonals, int(float32(o.Diagonals)*g.knob)) {
				distance := end - 1 - int(at)
				crossed[distance/PageTokens], crossed[(distance+PageTokens-1)/PageTokens] = true, true
			}
			o.plan(g, h, columns, crossed)
		}
	})
}

// plan writes a group's plan rows under a head.
func (o *SelectMInference) plan(g run, h int, columns []int32, crossed []bool) {
	cost, before := 0, 0
	for i := range g.tiles {
		page := g.pos/PageTokens + i
		blocks, keys := linesOf(page, columns, crossed)
		o.Plan.Write((g.tile+i)*o.Plan.Groups+h, 0, page*PageTokens, blocks, keys)
		cost, before = cost+5*PageTokens*len(blocks)+8*len(keys), before+5*PageTokens*page // single keys cost more than those of a block
	}
	for i := range g.tiles {
		if 10*cost >= 9*before {
			o.Plan.Write((g.tile+i)*o.Plan.Groups+h, 0, 0, nil, nil)
		}
	}
}

// linesOf is what a page's tile reads before it.
func linesOf(page int, columns []int32, crossed []bool) (blocks, keys []int32) {
	for b := range int32(page) {
		n, _ := slices.BinarySearch(columns, (b+1)*PageTokens)
		switch {
		case crossed[page-int(b)] || n > PageTokens/2:
			blocks = append(blocks, b)
		default:
			keys = append(keys, columns[:n]...)
		}
		columns = columns[n:]
	}
	return blocks, keys
}

// Operands lists what groups take, then the plan.
func (o *SelectMInference) Operands() (in, out []*tensor.Mat) { return o.operands() }

// Cost counts the scores.
func (o *SelectMInference) Cost() (bytes, flops int64) { return o.cost(lastQueries) }
