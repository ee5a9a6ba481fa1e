package attention

import (
	"fmt"

	"github.com/winnow-llm/winnow/tensor"
)

// NewWindow is the selector that reads the last keys only: a row at position p reads p-width+1 to p (sliding window, Beltagy et al. 2020).
// It is for layers that were trained so, of batches of at most rows rows laid out by l. The plan is the same in all layers, which run in
// order: it is written again at each, which costs nothing beside the layer.
func NewWindow(d tensor.Device, l *Layout, rows, width int) (*Selector, error) {
	p, err := NewRangePlan(d, rows)
	if err != nil {
		return nil, err
	}
	op := &SelectWindow{Pos: l.Pos, Local: p.Local, N: l.Rows, Width: width}
	return &Selector{Caps: Caps{ChunkAlign: 1, Fingerprint: fmt.Sprintf("window:%d", width)}, Plan: p, every: []tensor.Op{op}}, nil
}

// SelectWindow writes the first key of each row's window.
type SelectWindow struct {
	Pos   tensor.Mat // rows x 1, I32: positions
	Local tensor.Mat // rows x 1, I32: max(0, position - width + 1)
	N     tensor.Mat // 1 x 1, I32: rows in use
	Width int
}

// Reference works row by row.
func (o *SelectWindow) Reference() {
	pos, local := o.Pos.I32(), o.Local.I32()
	for i := range tensor.Live(o.N, o.Pos.Rows) {
		local[i] = max(0, pos[i]-int32(o.Width)+1)
	}
}

// Operands lists positions and count, then the starts.
func (o *SelectWindow) Operands() (in, out []*tensor.Mat) {
	return []*tensor.Mat{&o.Pos, &o.N}, []*tensor.Mat{&o.Local}
}

// Cost counts one read and one write a row.
func (o *SelectWindow) Cost() (bytes, flops int64) {
	n := int64(tensor.Live(o.N, o.Pos.Rows))
	return 8 * n, n
}
