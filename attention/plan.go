package attention

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Plan says which keys each row reads. It is plain data on the device, of fixed capacity, that a selector's ops fill and Attend
// executes; reading everything is the plan with one range.
//
// A plan row covers Tile batch rows and one group of heads: plan row t*Groups+g holds for batch rows t*Tile to (t+1)*Tile and
// for query heads g*heads/Groups to (g+1)*heads/Groups. What a batch row at position p reads, in this order:
//
//	keys 0 to Sink                            a dense range, whole blocks, at most up to Local
//	64-key blocks Blocks[BlockPtr[r]:BlockPtr[r+1]]   by logical number, ascending
//	single keys Keys[KeyPtr[r]:KeyPtr[r+1]]           by position, ascending
//	keys Local to p, p included               the only range in which the causal mask can cut
//
// Invariants: the four parts are disjoint; every block and key lies before Local; Local <= p, so no row is ever empty; a plan row
// depends on its own sequence alone. Logical numbers are translated by the page table when the plan is executed, so a plan survives
// page moves.
type Plan struct {
	Sink     tensor.Mat // plan rows x 1, I32: multiple of 64
	Local    tensor.Mat // plan rows x 1, I32
	BlockPtr tensor.Mat // plan rows+1 x 1, I32; absent when the plan has no blocks
	Blocks   tensor.Mat // capacity x 1, I32
	KeyPtr   tensor.Mat // plan rows+1 x 1, I32; absent when the plan has no single keys
	Keys     tensor.Mat // capacity x 1, I32
	Tile     int        // batch rows a plan row covers
	Groups   int        // groups of query heads
}

// NewRangePlan allocates a plan of ranges only, for one row a tile and all heads together.
func NewRangePlan(d tensor.Device, rows int) (*Plan, error) {
	p := &Plan{Tile: 1, Groups: 1}
	for _, m := range []*tensor.Mat{&p.Sink, &p.Local} {
		var err error
		if *m, err = tensor.NewMat(d, quant.I32, rows, 1); err != nil {
			return nil, fmt.Errorf("attention plan: %w", err)
		}
	}
	return p, nil
}

// Free gives the plan's memory back to its device.
func (p *Plan) Free(d tensor.Device) {
	for _, m := range p.operands() {
		if m.Present() {
			d.Free(m.Buf)
		}
	}
}

func (p *Plan) operands() []*tensor.Mat {
	return []*tensor.Mat{&p.Sink, &p.Local, &p.BlockPtr, &p.Blocks, &p.KeyPtr, &p.Keys}
}

// row is the plan row of a batch row and query head.
func (p *Plan) row(row, head, heads int) int { return row/p.Tile*p.Groups + head*p.Groups/heads }

// keys calls visit for each key that a batch row at position pos reads under plan row r, in the plan's order.
func (p *Plan) keys(r, pos int, visit func(key int)) {
	for k := range int(p.Sink.I32()[r]) {
		visit(k)
	}
	if p.BlockPtr.Present() {
		ptr := p.BlockPtr.I32()
		for _, b := range p.Blocks.I32()[ptr[r]:ptr[r+1]] {
			for k := range PageTokens {
				visit(int(b)*PageTokens + k)
			}
		}
	}
	if p.KeyPtr.Present() {
		ptr := p.KeyPtr.I32()
		for _, k := range p.Keys.I32()[ptr[r]:ptr[r+1]] {
			visit(int(k))
		}
	}
	for k := int(p.Local.I32()[r]); k <= pos; k++ {
		visit(k)
	}
}

// Check reports the first invariant that a plan breaks for the rows of a layout, both in host memory; heads is the number of query heads.
func (p *Plan) Check(l *Layout, heads int) error {
	pos := l.Pos.I32()
	for i := range tensor.Live(l.Rows, len(pos)) {
		for g := range p.Groups {
			r, last := p.row(i, g*heads/p.Groups, heads), -1
			local := int(p.Local.I32()[r])
			if sink := int(p.Sink.I32()[r]); sink%PageTokens != 0 || sink > local || local > int(pos[i]) {
				return fmt.Errorf("plan row %d: sink %d, local %d, position %d", r, sink, local, pos[i])
			}
			seen := make(map[int]bool)
			p.keys(r, int(pos[i]), func(k int) {
				if seen[k] || k > int(pos[i]) {
					last = k
				}
				seen[k] = true
			})
			if last >= 0 {
				return fmt.Errorf("plan row %d: key %d is read twice or from the future", r, last)
			}
		}
	}
	return nil
}

// count is the number of keys that a batch row at position pos reads under plan row r.
func (p *Plan) count(r, pos int) int64 {
	n := int(p.Sink.I32()[r]) + pos + 1 - int(p.Local.I32()[r])
	if p.BlockPtr.Present() {
		n += PageTokens * int(p.BlockPtr.I32()[r+1]-p.BlockPtr.I32()[r])
	}
	if p.KeyPtr.Present() {
		n += int(p.KeyPtr.I32()[r+1] - p.KeyPtr.I32()[r])
	}
	return int64(n)
}
