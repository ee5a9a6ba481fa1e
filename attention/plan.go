package attention

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Plan says which keys each row reads. It is plain data on the device, of fixed capacity, that a selector's ops fill and Attend
// executes; reading everything is the plan with one range.
//
// A plan row covers a tile of batch rows and one group of heads: plan row t*Groups+g holds for the batch rows of tile t and for query
// heads g*heads/Groups to (g+1)*heads/Groups. What a batch row at position p reads, in this order:
//
//	keys 0 to Sink                                  a dense range, whole blocks, at most up to Local
//	64-key blocks Blocks[BlockAt[r]:][:BlockN[r]]   by logical number, ascending
//	single keys Keys[KeyAt[r]:][:KeyN[r]]           by position, ascending
//	keys Local to p, p included                     the only range in which the causal mask can cut
//
// Plan rows may share a list. A selector has room for BlockRoom blocks and KeyRoom keys a plan row, from r*BlockRoom and r*KeyRoom on.
//
// Invariants: the four parts are disjoint; every block and key lies before Local; Local <= p for every row of the tile, so no row is ever
// empty; lists are sorted; a plan row depends on its own sequence alone. Check proves them. Logical numbers are translated by the page table when the plan
// is executed, so a plan survives page moves. A plan that covers everything gives the bits of the plan with one range if Sink, Local and
// the blocks lie on page boundaries and it has no single keys.
type Plan struct {
	Tile    tensor.Mat // rows x 1, I32: the batch row's tile, of which there are at most Sink.Rows/Groups; absent where each row is its own
	Sink    tensor.Mat // plan rows x 1, I32: multiple of 64
	Local   tensor.Mat // plan rows x 1, I32
	BlockAt tensor.Mat // plan rows x 1, I32; absent, as BlockN and Blocks, when the plan has no blocks
	BlockN  tensor.Mat // plan rows x 1, I32
	Blocks  tensor.Mat // capacity x 1, I32
	KeyAt   tensor.Mat // plan rows x 1, I32; absent, as KeyN and Keys, when the plan has no single keys
	KeyN    tensor.Mat // plan rows x 1, I32
	Keys    tensor.Mat // capacity x 1, I32
	Groups  int        // groups of query heads
}

// NewRangePlan allocates a plan of ranges only, for one row a tile and all heads together.
func NewRangePlan(d tensor.Device, rows int) (*Plan, error) {
	p := &Plan{Groups: 1}
	if err := p.alloc(d, column{&p.Sink, rows}, column{&p.Local, rows}); err != nil {
		return nil, err
	}
	return p, nil
}

// NewPlan allocates a plan of all parts for the tiles of a layout, with room for blocks and keys in each plan row.
func NewPlan(d tensor.Device, t *Tiles, groups, blocks, keys int) (*Plan, error) {
	p := &Plan{Tile: t.Of, Groups: groups}
	rows := t.Policy.Rows * groups
	err := p.alloc(d, column{&p.Sink, rows}, column{&p.Local, rows},
		column{&p.BlockAt, rows}, column{&p.BlockN, rows}, column{&p.Blocks, rows * blocks},
		column{&p.KeyAt, rows}, column{&p.KeyN, rows}, column{&p.Keys, rows * keys})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// column is a matrix of one column to allocate.
type column struct {
	mat  *tensor.Mat
	rows int
}

func (p *Plan) alloc(d tensor.Device, columns ...column) error {
	for _, c := range columns {
		var err error
		if *c.mat, err = tensor.NewMat(d, quant.I32, c.rows, 1); err != nil {
			p.Free(d)
			return fmt.Errorf("attention plan: %w", err)
		}
	}
	return nil
}

// Free gives the plan's memory back to its device.
func (p *Plan) Free(d tensor.Device) {
	for _, m := range p.parts() {
		if m.Present() {
			d.Free(m.Buf)
		}
	}
}

// parts are the matrices that selectors write.
func (p *Plan) parts() []*tensor.Mat {
	return []*tensor.Mat{&p.Sink, &p.Local, &p.BlockAt, &p.BlockN, &p.Blocks, &p.KeyAt, &p.KeyN, &p.Keys}
}

func (p *Plan) operands() []*tensor.Mat { return append(p.parts(), &p.Tile) }

// rows is the number of plan rows.
func (p *Plan) rows() int { return p.Sink.Rows }

// BlockRoom is how many blocks a plan row has room for.
func (p *Plan) BlockRoom() int { return p.Blocks.Rows / p.rows() }

// KeyRoom is how many single keys a plan row has room for.
func (p *Plan) KeyRoom() int { return p.Keys.Rows / p.rows() }

// KeyRoom is how much room for single keys a plan row of an Env has, where sequences have so many blocks: the tiles of four pages together have it
// for half of all keys, beyond which a block is listed as a block, and one has it for what decoding usually keeps.
func KeyRoom(blocks int) int {
	keys := blocks * PageTokens
	return max((keys/2+3)/4, min(keys, usualBudget))
}

// usualBudget is how many single keys a plan row has room for in any case.
const usualBudget = 4096

// row is the plan row of a batch row and query head.
func (p *Plan) row(row, head, heads int) int {
	if p.Tile.Present() {
		row = int(p.Tile.I32()[row])
	}
	return row*p.Groups + head*p.Groups/heads
}

// list is a plan row's part of a list in host memory.
func list(at, n, of *tensor.Mat, r int) []int32 {
	if !at.Present() {
		return nil
	}
	return of.I32()[at.I32()[r]:][:n.I32()[r]]
}

func (p *Plan) blocks(r int) []int32 { return list(&p.BlockAt, &p.BlockN, &p.Blocks, r) }
func (p *Plan) single(r int) []int32 { return list(&p.KeyAt, &p.KeyN, &p.Keys, r) }

// keys calls visit for each key that a batch row at position pos reads under plan row r, in the plan's order.
func (p *Plan) keys(r, pos int, visit func(key int)) {
	for k := range int(p.Sink.I32()[r]) {
		visit(k)
	}
	for _, b := range p.blocks(r) {
		for k := range PageTokens {
			visit(int(b)*PageTokens + k)
		}
	}
	for _, k := range p.single(r) {
		visit(int(k))
	}
	for k := int(p.Local.I32()[r]); k <= pos; k++ {
		visit(k)
	}
}

// pages calls visit for each page of which a batch row at position pos reads something under plan row r, with a bit for each key that it reads
// there. A page may come more than once.
func (p *Plan) pages(r, pos int, visit func(page int, keys uint64)) {
	const all = ^uint64(0)
	for page := range int(p.Sink.I32()[r]) / PageTokens {
		visit(page, all)
	}
	for _, b := range p.blocks(r) {
		visit(int(b), all)
	}
	for _, k := range p.single(r) {
		visit(int(k)/PageTokens, 1<<(k%PageTokens))
	}
	local := int(p.Local.I32()[r])
	for page := local / PageTokens; page <= pos/PageTokens; page++ {
		keys, first := all, page*PageTokens
		if local > first {
			keys &= all << (local - first)
		}
		if last := first + PageTokens - 1; pos < last {
			keys &= all >> (last - pos)
		}
		visit(page, keys)
	}
}

// count is the number of keys that a batch row at position pos reads under plan row r.
func (p *Plan) count(r, pos int) int64 {
	ranges := int(p.Sink.I32()[r]) + pos + 1 - int(p.Local.I32()[r])
	return int64(ranges + PageTokens*len(p.blocks(r)) + len(p.single(r)))
}

// The plan in host memory, as references of selectors write it.

// Write sets a plan row: its ranges, and lists that are copied to where the row has room.
func (p *Plan) Write(r, sink, local int, blocks, keys []int32) {
	p.Sink.I32()[r], p.Local.I32()[r] = int32(sink), int32(local)
	if p.BlockAt.Present() {
		at := r * p.BlockRoom()
		p.BlockAt.I32()[r], p.BlockN.I32()[r] = int32(at), int32(copy(p.Blocks.I32()[at:at+p.BlockRoom()], blocks))
	}
	if p.KeyAt.Present() {
		at := r * p.KeyRoom()
		p.KeyAt.I32()[r], p.KeyN.I32()[r] = int32(at), int32(copy(p.Keys.I32()[at:at+p.KeyRoom()], keys))
	}
}

// Share makes plan row r read the lists of another one.
func (p *Plan) Share(r, with int) {
	for _, m := range []*tensor.Mat{&p.BlockAt, &p.BlockN, &p.KeyAt, &p.KeyN} {
		if m.Present() {
			m.I32()[r] = m.I32()[with]
		}
	}
}
