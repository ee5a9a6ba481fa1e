package attention

import (
	"encoding/binary"

	"github.com/winnow-llm/winnow/quant"
)

// How packed pages store numbers.
//
// Layout: a packed tile is the codes of its 64 tokens, then scales, binary16. A token's key has a scale for each block of 32 of its dimensions, and its
// value likewise: those of keys are dim/32 rows by 64, those of values 64 rows by dim/32. The codes of a token are the code bytes of its blocks, as
// their format has them, one block after the other: in Q8_0 a byte is the code of a dimension, int8; in Q4_0 byte j of a block has the codes of
// dimensions j, in its low half, and j + 16. The bytes of a value lie together, and those of keys in strips, as the numbers of other tiles do: dim or
// dim/2 rows by 16 keys.
//
// A number is a code times the scale, in Q4_0 the code less 8, which float32 holds exactly. A token is stored by itself.

// shared is how many dimensions of a token have a scale in common: those of a block.
const shared = 32

// packing is a format of packed tiles.
type packing struct {
	bytes int                             // of a block's codes
	round func(dst []byte, src []float32) // a block: its scale, then its codes
}

// packings are those that there are. A token is rounded in no time, so Q4_0 is without its search.
var packings = map[*quant.Format]*packing{
	quant.Q8_0: {shared, quant.Q8_0.Encode},
	quant.Q4_0: {shared / 2, quant.RoundQ4_0},
}

// row is how many bytes the codes of n dimensions take.
func (p *packing) row(n int) int { return n / shared * p.bytes }

// at is the byte of a token that has the code of dimension d.
func (p *packing) at(d int) int { return d/shared*p.bytes + d%p.bytes }

// code is that of dimension d.
func (p *packing) code(b byte, d int) float32 {
	switch {
	case p.bytes == shared:
		return float32(int8(b))
	case d%shared < p.bytes:
		return float32(int(b&15) - 8)
	}
	return float32(int(b>>4) - 8)
}

// keys gives dimension d of the key in a slot of a tile.
func (p *packing) keys(c *Cache) func(tile, slot, d int) float32 {
	raw, row := c.K.Raw(), p.row(c.Dim)
	return func(tile, slot, d int) float32 {
		t := raw[c.Format.RowBytes(tile):]
		return p.code(t[KeyAt(row, slot, p.at(d))], d) * scaleAt(t[row*PageTokens:], d/shared*PageTokens+slot)
	}
}

// values gives dimension d of the value in a slot of a tile.
func (p *packing) values(c *Cache) func(tile, slot, d int) float32 {
	raw, row := c.V.Raw(), p.row(c.Dim)
	return func(tile, slot, d int) float32 {
		t := raw[c.Format.RowBytes(tile):]
		return p.code(t[slot*row+p.at(d)], d) * scaleAt(t[row*PageTokens:], slot*(c.Dim/shared)+d/shared)
	}
}

// scaleAt is number i of a tile's scales.
func scaleAt(scales []byte, i int) float32 {
	return quant.F16ToF32(binary.LittleEndian.Uint16(scales[2*i:]))
}

// put stores a token in a slot of a tile.
func (p *packing) put(c *Cache, tile, slot int, key, value []float32) {
	row, blocks := p.row(c.Dim), c.Dim/shared
	from := c.Format.RowBytes(tile)
	k, v := c.K.Raw()[from:], c.V.Raw()[from:]
	for b := range blocks {
		at := b * shared
		p.store(k, row, place{KeyAt(row, slot, p.at(at)), stripKeys, b*PageTokens + slot}, key[at:at+shared])
		p.store(v, row, place{slot*row + p.at(at), 1, slot*blocks + b}, value[at:at+shared])
	}
}

// place is where a block of a token lies in a tile: its first byte of codes, the step to the next one, its scale.
type place struct{ code, step, scale int }

// store rounds a block into a tile whose tokens have so many bytes of codes.
func (p *packing) store(tile []byte, row int, at place, v []float32) {
	var b [2 + shared]byte
	p.round(b[:2+p.bytes], v)
	copy(tile[row*PageTokens+2*at.scale:], b[:2])
	for i, code := range b[2 : 2+p.bytes] {
		tile[at.code+i*at.step] = code
	}
}
