// Package attention reads the past: the paged cache of keys and values, the plan of which keys a row reads, the selectors that write
// plans, and the one operation that executes them.
package attention

import "github.com/winnow-llm/winnow/tensor"

// PageTokens is the number of tokens in a page of the cache.
const PageTokens = 64

// Layout is one step's ragged batch: whose rows these are, how much past each sequence has and where it lies. It is planned on the
// host and written to the device once a step; its addresses are fixed.
//
// Rows Start[s] to Start[s+1] are sequence s, which has Past[s] tokens cached before them; so a step with Past 0 and three rows
// computes positions 0, 1, 2. Sequence numbers are those of the step, not of the engine.
type Layout struct {
	Start  tensor.Mat   // sequences+1 x 1, I32
	Past   tensor.Mat   // sequences x 1, I32
	Prompt tensor.Mat   // sequences x 1, I32: tokens of the prompt; those at later positions were generated
	Pages  []tensor.Mat // sequences x pages, I32: one page table a lane, logical page -> page of the cache, or a row of Lanes; most models have one lane
	Dense  tensor.Mat   // sequences x pages, I32: where pages are pruned, logical page -> page of the cache, of those that the step's rows are in
	Lanes  tensor.Mat   // rows x layers*heads, I32: where tiles lie whose pages are no pages any more; absent where there are none
	State  tensor.Mat   // sequences x 1, I32: slot of carried state (recurrent layers), -1 = none
	Seq    tensor.Mat   // rows x 1, I32: the row's sequence; follows from Start
	Pos    tensor.Mat   // rows x 1, I32: the row's position, Past[seq] + row - Start[seq]; follows from Start and Past
	Rows   tensor.Mat   // 1 x 1, I32: rows in use
	Tiles  Tiles        // absent where no selector plans by tiles
}

// Tiles cuts a step's rows into runs of neighbours that share a plan row: positions of one sequence in one page, under one policy.
// Where a sparse selector serves a generated token, that token is a tile by itself, in whatever step it is computed, so that its
// plan is the same in all of them.
type Tiles struct {
	Of     tensor.Mat // rows x 1, I32: the row's tile
	First  tensor.Mat // tiles+1 x 1, I32: the first row of each tile, then the number of rows
	N      tensor.Mat // 1 x 1, I32: tiles in use
	Policy tensor.Mat // tiles x 1, I32: the selector that serves the tile, by its number in Env
	Knob   tensor.Mat // tiles x 1, F32: what the request turns the selector's knob to; NaN = the selector's own
}

// Own is the page table by which the pages that rows are in lie in a cache as they are: where full pages are pruned, Dense.
func (l *Layout) Own(c *Cache, lane int) *tensor.Mat {
	if c.Pruned != nil {
		return &l.Dense
	}
	return &l.Pages[lane]
}

// operands lists what an op reads that needs the batch's layout in one lane.
func (l *Layout) operands(lane int) []*tensor.Mat {
	return []*tensor.Mat{&l.Pages[lane], &l.Seq, &l.Pos, &l.Rows}
}

// operands lists what an op reads that plans by tiles.
func (t *Tiles) operands() []*tensor.Mat { return []*tensor.Mat{&t.First, &t.N, &t.Policy, &t.Knob} }

// Served calls visit for each tile that a selector serves, with the tile's rows first to last, last included, and its knob, or own
// where the request has none. It is for references, which have the layout in host memory.
func (t *Tiles) Served(selector int, own float32, visit func(tile, first, last int, knob float32)) {
	first, policy, knob := t.First.I32(), t.Policy.I32(), t.Knob.F32()
	for i := range int(t.N.I32()[0]) {
		if int(policy[i]) != selector {
			continue
		}
		k := knob[i]
		if k != k {
			k = own
		}
		visit(i, int(first[i]), int(first[i+1])-1, k)
	}
}
