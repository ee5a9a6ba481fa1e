package attention

import (
	"errors"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

func ints(v ...int32) tensor.Mat { return tensor.FromI32(len(v), 1, v) }

// far is memory that the host does not reach, and farQueue reads it.
type far struct{ tensor.Buffer }

func (far) Host() []byte { return nil }

type farQueue struct{ tensor.Queue }

func (q farQueue) Read(dst []byte, src tensor.Buffer, off int) {
	q.Queue.Read(dst, src.(far).Buffer, off)
}

// Attend.Check finds what is wrong between rows, and which row it is, in the host's memory and beyond it.
func TestPlansOfRows(t *testing.T) {
	caches, err := NewCaches(tensor.Reference(), 4, []Shape{{Heads: 2, Dim: 16, Format: quant.F32}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		change    func(p *Plan, l *Layout)
		invariant Invariant // "" = it is right
		row       int
	}{
		{"right", func(*Plan, *Layout) {}, "", 0},
		{"a tile of two sequences", func(p *Plan, _ *Layout) { p.Tile.I32()[2] = 0 }, Own, 2},
		{"a tile of two pages", func(_ *Plan, l *Layout) { l.Pos.I32()[1] = 192 }, Own, 1},
		{"a list of two sequences", func(p *Plan, _ *Layout) { p.KeyAt.I32()[2] = p.KeyAt.I32()[0] }, Own, 2},
		{"a list of two rows of one sequence", func(p *Plan, _ *Layout) { p.KeyAt.I32()[1] = p.KeyAt.I32()[0] }, "", 0},
		{"no such tile", func(p *Plan, _ *Layout) { p.Tile.I32()[2] = 2 }, Fits, 2},
		{"no such tile either", func(p *Plan, _ *Layout) { p.Tile.I32()[0] = -1 }, Fits, 0},
		{"a local range behind a tile's first row", func(p *Plan, _ *Layout) { p.Local.I32()[0] = 129 }, Diagonal, 0},
		{"a freed page", func(p *Plan, l *Layout) { l.Pages[0].I32()[3] = LanesEntry(0) }, Kept, 2},
		{"a page that one head keeps, and the other does not read", func(p *Plan, l *Layout) {
			l.Pages[0].I32()[3], l.Lanes.I32()[0], p.Sink.I32()[3], p.Local.I32()[3], p.KeyN.I32()[3] = LanesEntry(0), 5, 0, 64, 0
		}, "", 0},
	} {
		// Two sequences, three rows, two tiles, two heads.
		l := &Layout{
			Pages: []tensor.Mat{tensor.FromI32(2, 3, []int32{0, 1, 2, 3, 1, 0})}, Lanes: tensor.FromI32(1, 2, []int32{-1, -1}),
			Seq: ints(0, 0, 1), Pos: ints(128, 129, 100), Rows: ints(3),
		}
		p := &Plan{
			Tile: ints(0, 0, 1), Sink: ints(64, 64, 64, 64), Local: ints(100, 100, 80, 80), Groups: 2,
			BlockAt: ints(0, 0, 0, 0), BlockN: ints(0, 0, 0, 0), Blocks: ints(0, 0),
			KeyAt: ints(0, 2, 4, 6), KeyN: ints(2, 2, 2, 2), Keys: ints(65, 66, 65, 67, 70, 71, 70, 72),
		}
		c.change(p, l)
		o := &Attend{Cache: caches[0], Plan: p, Layout: l, Heads: 2}
		check := func(where string, q tensor.Queue) {
			var broken *PlanError
			switch err := o.Check(q); {
			case c.invariant == "" && err != nil:
				t.Errorf("%s, %s: %v", c.name, where, err)
			case c.invariant != "" && (!errors.As(err, &broken) || broken.Invariant != c.invariant || broken.Row != c.row || broken.Sequence != int(l.host(q, 0).Seq.I32()[c.row])):
				t.Errorf("%s, %s: %v, want %s in row %d", c.name, where, err, c.invariant, c.row)
			}
		}
		check("in the host's memory", tensor.Reference().Queue())
		for _, m := range append(p.operands(), &l.Pages[0], &l.Lanes, &l.Seq, &l.Pos, &l.Rows) {
			m.Buf = far{m.Buf}
		}
		check("on a device", farQueue{tensor.Reference().Queue()})
	}
}
