package model

import (
	"math"
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// lanes are where tiles lie whose pages are no pages any more, see attention/lanes.go, and the op that brings them there. They are absent where
// no selector says beforehand which pages its heads read, or where layers are not alike.
type lanes struct {
	rows tensor.Mat // rows x layers*heads, I32; the first row is that of pages of which nothing is kept
	move attention.MoveTiles

	tiles []int32 // scratch of Pack
	moves [][2]int32
}

// laneRows is how many rows of lanes there are for a page of the cache at most: a row takes a few thousandths of what a page does.
const laneRows = 16

// lanes prepares a model's lanes.
func (l *loader) lanes(sp *sparse, m *Model) {
	static := func(s *attention.Selector) bool { return s.Keeps != nil }
	all := *m.caches[0].Tiles()
	if l.err != nil || !all.Present() || !slices.ContainsFunc(sp.selectors, static) {
		return
	}
	lim, heads := l.opt.Limits, len(m.caches)*m.caches[0].Heads
	contexts := lim.Sequences * m.batch.Layout.Pages[0].Cols
	x := &m.lanes
	x.rows = l.alloc(quant.I32, 1+min(contexts, laneRows*lim.Pages), heads)
	x.move = attention.MoveTiles{Tiles: all, Moves: l.alloc(quant.I32, 2*heads, 2), N: l.alloc(quant.I32, 1, 1)}
	if l.err == nil {
		write(l.queue, x.rows, slices.Repeat([]int32{-1}, heads))
		m.batch.Layout.Lanes = x.rows
	}
}

// LaneRows is how many pages of sequences can be kept in part at a time; 0 where all are kept whole.
func (m *Model) LaneRows() int { return m.lanes.rows.Rows }

// Retained is what must be kept of a sequence that reads by a policy, and from how many tokens on; nil where that is everything.
//
// A prompt frees pages where the selector that reads it is also the one of what is generated. Else its end, or the policy's From, comes first.
func (m *Model) Retained(p *Policy, prompt int) (r *attention.Retention, from int) {
	if p.Decode == 0 || !m.lanes.rows.Present() || m.sparse.selectors[p.Decode].Keeps == nil {
		return nil, 0
	}
	from, knobs := max(prompt, p.From), []float32{float32(math.NaN())}
	if len(p.Turns) > 0 {
		knobs = knobs[:0]
	}
	for _, t := range p.Turns {
		knobs = append(knobs, t.Knob)
	}
	if p.Prefill == p.Decode && p.From <= prompt {
		from, knobs = 0, append(knobs, p.Knob)
	}
	var heads []attention.Keep
	for i := range m.spec.Layers {
		heads = append(heads, m.keeps(i, p.Decode, knobs)...)
	}
	return attention.NewRetention(heads), from
}

// keeps is what the key-value heads of a layer read under a selector whose knob is turned in several ways, which says how much is recent.
func (m *Model) keeps(layer, selector int, knobs []float32) (heads []attention.Keep) {
	s := &m.spec.Layers[layer]
	if !m.sparse.serves(layer) {
		keep := attention.Everything()
		if s.Window > 0 {
			keep = attention.Keep{Recent: (s.Window - 1 + attention.PageTokens - 1) / attention.PageTokens}
		}
		return slices.Repeat([]attention.Keep{keep}, s.KVHeads)
	}
	for _, knob := range knobs {
		for h, k := range m.sparse.selectors[selector].Keeps(m.sparse.at[layer], knob) {
			if h == len(heads) {
				heads = append(heads, k)
			}
			heads[h].Recent = max(heads[h].Recent, k.Recent)
		}
	}
	return heads
}

// Pack copies tiles of a page into other pages, and has a row of lanes say where. Places has for each head, layer after layer, page*heads +
// place of where its tile goes, or -1 where it is not kept; heads being those of all layers. Row 0 is not written.
func (m *Model) Pack(row, page int32, places []int32) {
	x, c := &m.lanes, m.caches[0]
	x.tiles, x.moves = x.tiles[:0], x.moves[:0]
	for i, at := range places {
		tile := int32(-1)
		if at >= 0 {
			tile = m.tile(at)
			from := m.tile(page*int32(len(places)) + int32(i))
			x.moves = append(x.moves, [2]int32{from, tile}, [2]int32{from + int32(c.Heads), tile + int32(c.Heads)})
		}
		x.tiles = append(x.tiles, tile)
	}
	write(m.queue, x.rows.Slice(int(row), int(row)+1), x.tiles)
	write(m.queue, x.move.Moves, x.moves)
	write(m.queue, x.move.N, []int32{int32(len(x.moves))})
	m.queue.Run(&x.move)
}

// tile is the number of the tile of keys in a place.
func (m *Model) tile(place int32) int32 {
	heads := int32(m.caches[0].Heads)
	all := heads * int32(len(m.caches))
	layer := place % all / heads
	return m.caches[layer].TileOf(place/all, int(place%heads))
}

// Spoil makes all numbers of a page that nobody holds NaN, so that whoever reads it is found out.
func (m *Model) Spoil(page int32) {
	for _, c := range m.caches {
		for _, r := range c.Regions() {
			m.queue.Write(r.Buf, r.Off+int(page)*r.Stride, slices.Repeat([]byte{0xff}, r.Bytes))
		}
	}
}
