package attention

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Lanes say where the tiles of a page lie once it is no page any more: heads that read on in it have their tiles in pages with tiles of other
// pages, other heads and other layers, and the others have none.
//
// Layout: an entry of a page table from 0 on is a page of the cache. An entry of -1-r stands for row r of Lanes, which has a column for
// each key-value head of each layer, layer after layer: the tile of keys, counted from the start of the cache, or -1 where the head reads nothing
// of the page. The tile of values is as many tiles behind it as a layer has heads. Lanes need layers that are alike, see Cache.Tiles.

// LanesEntry is the entry of a page table that stands for a row of Lanes, and the other way round.
func LanesEntry(row int32) int32 { return -1 - row }

// tileValues is how many values a tile has.
func (c *Cache) tileValues() int { return c.Dim * PageTokens }

// lane is the first column of Lanes that is the layer's.
func (c *Cache) lane() int {
	if p := c.Pruned; p != nil {
		return p.Base / (2 * prunedTile(c.Dim, p.Keep))
	}
	return c.Base / (2 * c.tileValues())
}

// Tiles are the tiles of the pages that page tables name: Cache.All, or where full pages are pruned Pruned.All.
func (c *Cache) Tiles() *tensor.Mat {
	if c.Pruned != nil {
		return &c.Pruned.All
	}
	return &c.All
}

// TileOf is the number that a tile of keys of a page has, for the layer's head. It needs Tiles.
func (c *Cache) TileOf(page int32, head int) int32 {
	if p := c.Pruned; p != nil {
		return int32((int(page)*p.Stride+p.Base)/prunedTile(c.Dim, p.Keep) + head)
	}
	return int32((int(page)*c.Stride+c.Base)/c.tileValues() + head)
}

// LanesOf are Lanes from the layer's own columns on; absent where there are none.
func (l *Layout) LanesOf(c *Cache) tensor.Mat {
	m := l.Lanes
	if m.Present() {
		m.Off += c.lane() * quant.I32.Bytes
	}
	return m
}

// MostTiles is how many tiles a cache can have whose tiles are to be numbered.
const MostTiles = 1<<31 - 1

// whole is the cache seen from the start of its first layer's keys and values, where tile finds what other layers have room for, if there are lanes;
// else the cache. It is for references.
func (l *Layout) whole(c *Cache) *Cache {
	if !l.Lanes.Present() || c.Pruned != nil {
		return c
	}
	w, n, behind := *c, c.All.Rows*c.tileValues(), c.Heads*c.tileValues()
	w.K = view(c.Format, c.All.Buf, c.All.Off, n)
	w.V = view(c.Format, c.All.Buf, c.All.Off+c.Format.RowBytes(behind), n-behind)
	return &w
}

// tile is where, in the whole cache, the tile of a head begins that an entry of a page table stands for; -1 where there is none.
func (l *Layout) tile(c *Cache, entry int32, head int) int {
	if !l.Lanes.Present() {
		return c.Tile(entry, head)
	}
	if entry >= 0 {
		return c.Tile(entry, head) + c.Base
	}
	if at := l.lanesTile(c, entry, head); at >= 0 {
		return at * c.tileValues()
	}
	return -1
}

// lanesTile is the number of the tile of a head in the row of lanes that an entry stands for; -1 where there is none.
func (l *Layout) lanesTile(c *Cache, entry int32, head int) int {
	row := int(LanesEntry(entry))
	if row >= l.Lanes.Rows {
		panic(fmt.Sprintf("winnow: bug: attention: row %d of %d of lanes", row, l.Lanes.Rows))
	}
	return int(l.Lanes.I32()[row*l.Lanes.Cols+c.lane()+head])
}

// MoveTiles copies tiles of a cache to others of its tiles, bit by bit. No tile is both read and written.
type MoveTiles struct {
	Tiles tensor.Mat // tiles x words of one, I32: see Cache.Tiles
	Moves tensor.Mat // moves x 2, I32: from which tile, to which one
	N     tensor.Mat // 1 x 1, I32: moves in use
}

// Reference copies tile by tile.
func (o *MoveTiles) Reference() {
	size, raw, moves := o.Tiles.RowBytes(), o.Tiles.Raw(), o.Moves.I32()
	for i := range tensor.Live(o.N, o.Moves.Rows) {
		from, to := int(moves[2*i]), int(moves[2*i+1])
		copy(raw[to*size:(to+1)*size], raw[from*size:(from+1)*size])
	}
}

// Operands lists tiles and moves, then the tiles.
func (o *MoveTiles) Operands() (in, out []*tensor.Mat) {
	return []*tensor.Mat{&o.Tiles, &o.Moves, &o.N}, []*tensor.Mat{&o.Tiles}
}

// Cost counts each tile read and written.
func (o *MoveTiles) Cost() (bytes, flops int64) {
	return 2 * int64(tensor.Live(o.N, o.Moves.Rows)) * int64(o.Tiles.RowBytes()), 0
}

// tilesOf is the buffer of a cache of so many pages as tiles of so many bytes, where all layers are alike; else it is absent.
func tilesOf(buf tensor.Buffer, pages int, layers []Shape, tile int) tensor.Mat {
	first := layers[0]
	for _, s := range layers {
		if s.Heads != first.Heads || s.Dim != first.Dim || s.Keep != first.Keep {
			return tensor.Mat{}
		}
	}
	n := 2 * pages * len(layers) * first.Heads
	if tile%quant.I32.Bytes != 0 || n > MostTiles {
		return tensor.Mat{}
	}
	return tensor.Mat{Rows: n, Cols: tile / quant.I32.Bytes, Format: quant.I32, Buf: buf}
}
