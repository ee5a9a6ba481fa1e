package attention

import (
	"fmt"

	"github.com/winnow-llm/winnow/tensor"
)

// reads is what neighbouring plan rows read alike: the query heads of a key-value head. Their lists lie where the first has room and may
// go on where the others have.
type reads struct {
	at, rows     int
	sink, local  int
	blocks, keys []int32
}

// write sets the plan rows.
func (r *reads) write(p *Plan) {
	p.Write(r.at, r.sink, r.local, nil, nil)
	if p.BlockAt.Present() {
		p.BlockN.I32()[r.at] = int32(copy(p.Blocks.I32()[r.at*p.BlockRoom():], r.blocks))
	}
	if p.KeyAt.Present() {
		p.KeyN.I32()[r.at] = int32(copy(p.Keys.I32()[r.at*p.KeyRoom():], r.keys))
	}
	for i := r.at + 1; i < r.at+r.rows; i++ {
		p.Write(i, r.sink, r.local, nil, nil)
		p.Share(i, r.at)
	}
}

// roomFor says whether a number of plan rows have room together for lists of so many keys that are chosen unit by unit.
func roomFor(p *Plan, rows, keys, unit int) bool {
	return keys/PageTokens <= rows*p.BlockRoom() && (unit == PageTokens || keys <= rows*p.KeyRoom())
}

// serves says whether sequences grow so long that a budget of keys pays: twice as long.
func (e *Env) serves(budget int) bool { return 2*budget < e.Context }

// everything is the op that makes a selector's tiles read all keys, whatever its knob.
func everything(e *Env, s Setting) tensor.Op {
	return &SelectRanges{Layout: e.Layout, Plan: e.Plan, Serves: s.Number, Sink: wholePages(e.Context)}
}

// own allocates a sidecar or scratch of the shape and format of m. When it fails, all that the selector has is freed.
func (s *Selector) own(d tensor.Device, m tensor.Mat) (tensor.Mat, error) {
	m, err := tensor.NewMat(d, m.Format, m.Rows, m.Cols)
	if err != nil {
		s.Free(d)
		return tensor.Mat{}, fmt.Errorf("a sidecar: %w", err)
	}
	s.owned = append(s.owned, m.Buf)
	return m, nil
}

// servedPages counts the pages before those of a selector's tiles; 0 where the host cannot see them.
func servedPages(l *Layout, selector int) (n int64) {
	if l.Pos.Buf.Host() == nil {
		return 0
	}
	l.Tiles.Served(selector, 0, func(_, first, _ int, _ float32) { n += int64(l.Pos.I32()[first] / PageTokens) })
	return n
}
