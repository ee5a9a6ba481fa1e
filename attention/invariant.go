package attention

import (
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/tensor"
)

// Invariant is something that holds of every plan, see Plan.
type Invariant string

// The invariants, in the order in which Check looks for them in a plan row. That no row is empty is what Diagonal says; that a plan which covers
// everything gives the bits of the plan with one range needs no look where it has no single keys: its blocks then fill what lies between its ranges.
const (
	Fits     Invariant = "fits"     // tiles and lists lie within the plan's memory
	Own      Invariant = "own"      // a plan row, and a list, is of one sequence; the rows of a tile are in one page
	Whole    Invariant = "whole"    // the sink is whole blocks
	Disjoint Invariant = "disjoint" // no key is in two parts
	Diagonal Invariant = "diagonal" // a row's own key is in its local range
	Sorted   Invariant = "sorted"   // lists ascend
	Before   Invariant = "before"   // what is listed comes before the local range, and so before the first row of the tile
	Kept     Invariant = "kept"     // what is read has not been freed, see Lanes
)

// PlanError is an invariant that a plan breaks.
type PlanError struct {
	Invariant Invariant
	Row       int    // of the step
	Position  int    // the row's
	Sequence  int    // the row's, in the step; 0 where the layout does not say
	PlanRow   int    // by which the row reads
	Why       string // in numbers
}

func (e *PlanError) Error() string {
	return fmt.Sprintf("invariant %q: row %d, at position %d of sequence %d, plan row %d: %s", e.Invariant, e.Row, e.Position, e.Sequence, e.PlanRow, e.Why)
}

// Check reports the first invariant that the op's plan breaks, as a *PlanError. The queue has computed the plan, and what the host does not reach of
// it is read back.
func (o *Attend) Check(q tensor.Queue) error {
	p, l := o.Plan.host(q), o.Layout.host(q, o.Lane)
	c := check{plan: p, layout: l, owners: map[[2]int]int{}}
	if err := c.rows(o.Heads); err != nil || !l.Lanes.Present() {
		return err
	}
	seq, pos, table := l.Seq.I32(), l.Pos.I32(), l.Pages[o.Lane]
	for i := range tensor.Live(l.Rows, l.Pos.Rows) {
		pages := table.I32()[int(seq[i])*table.Cols:][:int(pos[i])/PageTokens+1]
		if !slices.ContainsFunc(pages, func(entry int32) bool { return entry < 0 }) {
			continue
		}
		for h := range o.Heads {
			r, lost := p.row(i, h, o.Heads), -1
			p.pages(r, int(pos[i]), func(page int, _ uint64) {
				if pages[page] < 0 && l.tile(o.Cache, pages[page], h*o.Cache.Heads/o.Heads) < 0 {
					lost = page
				}
			})
			if lost >= 0 {
				return &PlanError{Kept, i, int(pos[i]), int(seq[i]), r, fmt.Sprintf("head %d reads page %d, which is freed", h, lost)}
			}
		}
	}
	return nil
}

// host is the plan in host memory.
func (p *Plan) host(q tensor.Queue) *Plan {
	h := *p
	for _, m := range h.operands() {
		*m = host(q, *m)
	}
	return &h
}

// host is what of a layout says where rows are, in host memory.
func (l *Layout) host(q tensor.Queue, lane int) *Layout {
	h := &Layout{Pages: make([]tensor.Mat, lane+1), Lanes: host(q, l.Lanes), Seq: host(q, l.Seq), Pos: host(q, l.Pos), Rows: host(q, l.Rows)}
	h.Pages[lane] = host(q, l.Pages[lane])
	return h
}

// host is a matrix, or a copy where the host does not reach it.
func host(q tensor.Queue, m tensor.Mat) tensor.Mat {
	if !m.Present() || m.Buf.Host() != nil {
		return m
	}
	raw := make([]byte, m.Bytes())
	q.Read(raw, m.Buf, m.Off)
	return tensor.HostMat(m.Name, m.Format, m.Rows, m.Cols, raw)
}

// Check reports the first invariant that a plan breaks for the rows of a layout, as a *PlanError, all in host memory; heads is the number of query heads.
// Whose lists they are it does not ask: plans that no selector wrote may share those of two sequences which are the same.
func (p *Plan) Check(l *Layout, heads int) error {
	c := check{plan: p, layout: l}
	return c.rows(heads)
}

// rows checks all rows of the step.
func (c *check) rows(heads int) error {
	if c.plan.Groups < 1 || c.plan.Groups > heads {
		return c.fault(Fits, "%d groups of %d heads", c.plan.Groups, heads)
	}
	for i := range tensor.Live(c.layout.Rows, c.layout.Pos.Rows) {
		for g := range c.plan.Groups {
			if err := c.row(i, g); err != nil {
				return err
			}
		}
	}
	return nil
}

// check goes over a plan.
type check struct {
	plan   *Plan
	layout *Layout
	owners map[[2]int]int // kind of a list and where it starts -> its sequence; nil = nobody asks

	at PlanError // where it is
}

// fault reports an invariant that is broken.
func (c *check) fault(v Invariant, why string, with ...any) error {
	e := c.at
	e.Invariant, e.Why = v, fmt.Sprintf(why, with...)
	return &e
}

// row checks what a row of the step reads in a group of heads.
func (c *check) row(i, group int) error {
	p, l := c.plan, c.layout
	c.at = PlanError{Row: i, Position: int(l.Pos.I32()[i])}
	if l.Seq.Present() {
		c.at.Sequence = int(l.Seq.I32()[i])
	}
	tile, again := i, false
	if p.Tile.Present() {
		if tile = int(p.Tile.I32()[i]); tile < 0 || (tile+1)*p.Groups > p.rows() {
			return c.fault(Fits, "tile %d of %d", tile, p.rows()/p.Groups)
		}
		again = i > 0 && tile == int(p.Tile.I32()[i-1])
	}
	c.at.PlanRow = tile*p.Groups + group
	if again {
		if l.Seq.Present() && l.Seq.I32()[i-1] != l.Seq.I32()[i] || int(l.Pos.I32()[i-1])/PageTokens != c.at.Position/PageTokens {
			return c.fault(Own, "tile %d is also that of row %d, at position %d of another sequence or page", tile, i-1, l.Pos.I32()[i-1])
		}
	}
	if err := c.ranges(); err != nil || again {
		return err // its lists are known to be right
	}
	return c.lists()
}

// ranges checks the two ranges of a plan row.
func (c *check) ranges() error {
	sink, local := c.plan.Sink.I32()[c.at.PlanRow], int(c.plan.Local.I32()[c.at.PlanRow])
	switch {
	case sink < 0 || sink%PageTokens != 0:
		return c.fault(Whole, "sink %d", sink)
	case int(sink) > local:
		return c.fault(Disjoint, "sink %d, local %d", sink, local)
	case local > c.at.Position:
		return c.fault(Diagonal, "local %d", local)
	}
	return nil
}

// lists checks blocks and single keys of a plan row whose ranges are right.
func (c *check) lists() error {
	p, r := c.plan, c.at.PlanRow
	blocks, err := c.list("blocks", &p.BlockAt, &p.BlockN, &p.Blocks)
	if err != nil {
		return err
	}
	single, err := c.list("keys", &p.KeyAt, &p.KeyN, &p.Keys)
	if err != nil {
		return err
	}
	sink, local := int(p.Sink.I32()[r]), int(p.Local.I32()[r])
	for i, b := range blocks {
		from := int(b) * PageTokens
		switch {
		case i > 0 && b < blocks[i-1]:
			return c.fault(Sorted, "block %d after block %d", b, blocks[i-1])
		case i > 0 && b == blocks[i-1]:
			return c.fault(Disjoint, "block %d twice", b)
		case from < sink:
			return c.fault(Disjoint, "block %d, sink %d", b, sink)
		case from+PageTokens > local:
			return c.fault(Before, "block %d, local %d", b, local)
		}
	}
	for i, k := range single {
		for len(blocks) > 0 && int(blocks[0]) < int(k)/PageTokens {
			blocks = blocks[1:]
		}
		switch {
		case i > 0 && k < single[i-1]:
			return c.fault(Sorted, "key %d after key %d", k, single[i-1])
		case i > 0 && k == single[i-1]:
			return c.fault(Disjoint, "key %d twice", k)
		case int(k) < sink || len(blocks) > 0 && int(blocks[0]) == int(k)/PageTokens:
			return c.fault(Disjoint, "key %d, sink %d, in a block that is listed or in the sink", k, sink)
		case int(k) >= local:
			return c.fault(Before, "key %d, local %d", k, local)
		}
	}
	return nil
}

// list is a plan row's part of a list, which lies in the list's memory and is no other sequence's.
func (c *check) list(what string, at, n, of *tensor.Mat) ([]int32, error) {
	if !at.Present() {
		return nil, nil
	}
	from, count := int(at.I32()[c.at.PlanRow]), int(n.I32()[c.at.PlanRow])
	if from < 0 || count < 0 || from+count > of.Rows {
		return nil, c.fault(Fits, "%d %s from %d on, of %d", count, what, from, of.Rows)
	}
	if count > 0 && c.owners != nil {
		key := [2]int{len(what), from}
		if owner, ok := c.owners[key]; ok && owner != c.at.Sequence {
			return nil, c.fault(Own, "its %s are those of sequence %d", what, owner)
		}
		c.owners[key] = c.at.Sequence
	}
	return of.I32()[from : from+count], nil
}
