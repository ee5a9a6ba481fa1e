package attention

import (
	"encoding/binary"
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// How pages store numbers.
//
// Layout: tiles of F32 and F16 are the numbers. A tile of Q8_0 is dim*64 codes, int8, in the order of the numbers, then scales, binary16: a
// token's key has one for each 32 of its dimensions, and its value likewise. Those of keys are dim/32 rows by 64, those of values 64 rows by
// dim/32. A number is code * scale, which float32 holds exactly. A token is stored by itself and as quant.Q8_0 rounds it.

// shared is how many dimensions of a token have a scale in common.
const shared = 32

// Check says whether the format can store a layer's heads.
func (s Shape) Check() error {
	switch {
	case s.Format != quant.F32 && s.Format != quant.F16 && s.Format != quant.Q8_0:
		panic(fmt.Sprintf("winnow: bug: attention: a cache of %s", s.Format))
	case s.Format == quant.Q8_0 && s.Dim%shared != 0:
		return fmt.Errorf("heads of %d values in %s, of which %d share a scale", s.Dim, s.Format, shared)
	}
	return nil
}

// view is memory for n numbers of a cache from byte off on, as rows of a token each. Packed numbers are seen as words.
func view(f *quant.Format, buf tensor.Buffer, off, n int) tensor.Mat {
	m := tensor.Mat{Rows: n / PageTokens, Cols: PageTokens, Format: f, Buf: buf, Off: off}
	if f == quant.Q8_0 {
		m.Cols, m.Format = f.RowBytes(PageTokens)/quant.I32.Bytes, quant.I32
	}
	return m
}

// stored is how many bytes the numbers take that a head has of some tokens.
func (c *Cache) stored(tokens int64) int64 {
	return tokens * int64(c.Format.RowBytes(c.Dim*PageTokens)) / PageTokens
}

// Sidecar is the format of single numbers that are kept beside the cache.
func (c *Cache) Sidecar() *quant.Format {
	if c.Format == quant.Q8_0 {
		return quant.F16
	}
	return c.Format
}

// stripKeys is how many neighbouring keys lie together in a tile.
const stripKeys = 16

// KeyAt is where a tile of keys with so many dimensions has dimension d of the key in a slot.
func KeyAt(dim, slot, d int) int { return slot/stripKeys*dim*stripKeys + d*stripKeys + slot%stripKeys }

// key gives dimension d of the key in a slot of a tile.
func (c *Cache) key() func(tile, slot, d int) float32 {
	if c.Format == quant.Q8_0 {
		read := c.packed(c.K)
		return func(tile, slot, d int) float32 { return read(tile, KeyAt(c.Dim, slot, d), d/shared*PageTokens+slot) }
	}
	read := reader(c.K)
	return func(tile, slot, d int) float32 { return read(tile + KeyAt(c.Dim, slot, d)) }
}

// value gives dimension d of the value in a slot of a tile.
func (c *Cache) value() func(tile, slot, d int) float32 {
	if c.Format == quant.Q8_0 {
		read := c.packed(c.V)
		return func(tile, slot, d int) float32 { return read(tile, slot*c.Dim+d, slot*(c.Dim/shared)+d/shared) }
	}
	read := reader(c.V)
	return func(tile, slot, d int) float32 { return read(tile + slot*c.Dim + d) }
}

// packed gives a number of a tile by the places of its code and its scale.
func (c *Cache) packed(m tensor.Mat) func(tile, code, scale int) float32 {
	raw, codes := m.Raw(), c.Dim*PageTokens
	return func(tile, code, scale int) float32 {
		t := raw[quant.Q8_0.RowBytes(tile):]
		return float32(int8(t[code])) * quant.F16ToF32(binary.LittleEndian.Uint16(t[codes+2*scale:]))
	}
}

// Put stores the key and the value that a token has in a head: rounded, and by themselves.
func (c *Cache) Put(page int32, head, slot int, key, value []float32) {
	tile := c.Tile(page, head)
	if c.Format == quant.Q8_0 {
		for d := 0; d < c.Dim; d += shared {
			pack(c.tile(c.K, tile), c.Dim, place{KeyAt(c.Dim, slot, d), stripKeys, d/shared*PageTokens + slot}, key[d:d+shared])
			pack(c.tile(c.V, tile), c.Dim, place{slot*c.Dim + d, 1, slot*(c.Dim/shared) + d/shared}, value[d:d+shared])
		}
		return
	}
	for d := range c.Dim {
		store(c.K, tile+KeyAt(c.Dim, slot, d), key[d])
		store(c.V, tile+slot*c.Dim+d, value[d])
	}
}

// tile is the memory from a packed tile on.
func (c *Cache) tile(m tensor.Mat, tile int) []byte { return m.Raw()[quant.Q8_0.RowBytes(tile):] }

// place is where a block of a token lies in a tile: its first code, the step to the next one, its scale.
type place struct{ code, step, scale int }

// pack stores a block of numbers in a tile of so many dimensions.
func pack(tile []byte, dim int, p place, v []float32) {
	var b [2 + shared]byte
	quant.Q8_0.Encode(b[:], v)
	copy(tile[dim*PageTokens+2*p.scale:], b[:2])
	for i, code := range b[2:] {
		tile[p.code+i*p.step] = code
	}
}

// reader gives the numbers of a matrix of F32 or F16 by index.
func reader(m tensor.Mat) func(i int) float32 {
	if m.Format == quant.F32 {
		v := m.F32()
		return func(i int) float32 { return v[i] }
	}
	raw := m.Raw()
	return func(i int) float32 { return quant.F16ToF32(uint16(raw[2*i]) | uint16(raw[2*i+1])<<8) }
}

// store writes one number of such a matrix, rounded to its format.
func store(m tensor.Mat, i int, v float32) {
	if m.Format == quant.F32 {
		m.F32()[i] = v
		return
	}
	raw, bits := m.Raw()[2*i:], quant.F32ToF16(v)
	raw[0], raw[1] = byte(bits), byte(bits>>8)
}
