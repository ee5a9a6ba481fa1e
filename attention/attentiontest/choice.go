package attentiontest

import (
	"fmt"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

const page = attention.PageTokens

// Full reads everything as one range.
var Full = Choice{"full", 1, 1, func(*tensortest.World, int) Parts { return Parts{} }}

// FullByBlocks reads everything as blocks and what is left as a range.
var FullByBlocks = Choice{"full by blocks", 1, 1, func(_ *tensortest.World, pos int) Parts {
	p := Parts{Local: pos / page * page}
	for b := range p.Local / page {
		p.Blocks = append(p.Blocks, int32(b))
	}
	return p
}}

// FullBySink reads everything as two ranges.
var FullBySink = Choice{"full by sink", 1, 1, func(_ *tensortest.World, pos int) Parts {
	at := pos / page / 2 * page
	return Parts{Sink: at, Local: at}
}}

// Window reads the last keys.
func Window(width int) Choice {
	return Choice{fmt.Sprint("window ", width), 1, 1, func(_ *tensortest.World, pos int) Parts {
		return Parts{Local: max(0, pos-width+1)}
	}}
}

// Itself reads the row's own key only.
var Itself = Window(1)

// Stream reads the first and the last keys.
var Stream = Choice{"stream", 1, 1, func(_ *tensortest.World, pos int) Parts {
	local := max(0, pos-99)
	return Parts{Sink: min(2*page, local/page*page), Local: local}
}}

// Mixed reads some of everything, each group of heads its own.
func Mixed(groups int) Choice {
	return Choice{fmt.Sprint("mixed ", groups), 1, groups, draw}
}

// Tiled is Mixed where rows share a plan row.
func Tiled(tile int) Choice {
	return Choice{fmt.Sprint("tiled ", tile), tile, 1, draw}
}

// HeadTiles is Tiled for groups of heads of which runs of each read the same.
func HeadTiles(tile, groups, each int) Choice {
	n, last := 0, Parts{} // plan rows are drawn group after group
	return Choice{fmt.Sprint("head tiles ", tile, " x ", groups, " by ", each), tile, groups, func(w *tensortest.World, pos int) Parts {
		if n%each == 0 {
			last = draw(w, pos)
		}
		n = (n + 1) % groups
		return last
	}}
}

// Stripes is HeadTiles for a step that starts at a position, where all tiles read what the first does, and from there on.
func Stripes(from, tile, groups, each int) Choice {
	n, own, kept := 0, HeadTiles(tile, groups, each), make([]Parts, groups)
	return Choice{fmt.Sprint("stripes of ", own.Name), tile, groups, func(w *tensortest.World, pos int) Parts {
		g := n
		n = (n + 1) % groups
		if pos == from {
			kept[g] = own.Draw(w, pos)
		}
		return kept[g]
	}}
}

// Neighbours reads single keys in runs of 16, and where stray is above 0, so many beside them: then runs begin anywhere in the list.
func Neighbours(tile, groups, stray int) Choice {
	return Choice{fmt.Sprint("neighbours ", tile, " x ", groups, " stray ", stray), tile, groups, func(w *tensortest.World, pos int) Parts {
		const run = 16
		p := Parts{Local: pos / page * page}
		for k, left := 0, stray; k < p.Local; k += run {
			switch {
			case w.IntN(3) == 0:
				for i := range int32(run) {
					p.Keys = append(p.Keys, int32(k)+i)
				}
			case left > 0 && w.IntN(8) == 0:
				p.Keys, left = append(p.Keys, int32(k+w.IntN(run))), left-1
			}
		}
		return p
	}}
}

// draw gives a sink, blocks, single keys and a range that starts anywhere; each may be empty but the last.
func draw(w *tensortest.World, pos int) Parts {
	p := Parts{Local: pos - w.IntN(min(pos+1, 150))}
	if w.IntN(2) == 0 {
		p.Sink = min(w.IntN(3), p.Local/page) * page
	}
	taken := func(b int) bool { return b*page < p.Sink || w.IntN(3) > 0 }
	for b := range p.Local / page {
		if !taken(b) {
			p.Blocks = append(p.Blocks, int32(b))
		}
	}
	next := 0
	share := w.IntN(4)
	for k := p.Sink; k < p.Local; k++ {
		for next < len(p.Blocks) && int(p.Blocks[next]) < k/page {
			next++
		}
		if inBlock := next < len(p.Blocks) && int(p.Blocks[next]) == k/page; !inBlock && share > 0 && w.IntN(2*share) == 0 {
			p.Keys = append(p.Keys, int32(k))
		}
	}
	return p
}
