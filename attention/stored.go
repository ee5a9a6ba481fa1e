package attention

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// How pages store numbers: as they are, or packed, see packed.go.

// Check says whether the format can store a layer's heads.
func (s Shape) Check() error {
	switch {
	case s.Format != quant.F32 && s.Format != quant.F16 && packings[s.Format] == nil:
		panic(fmt.Sprintf("winnow: bug: attention: a cache of %s", s.Format))
	case s.Keep != 0 && (s.Format != quant.F16 || s.Dim%16 != 0 || s.Keep > s.Dim):
		return fmt.Errorf("heads of %d values in %s of which pages keep %d, where they are to be F16 and a multiple of 16", s.Dim, s.Format, s.Keep)
	case packings[s.Format] != nil && s.Dim%shared != 0:
		return fmt.Errorf("heads of %d values in %s, of which %d share a scale", s.Dim, s.Format, shared)
	}
	return nil
}

// view is memory for n numbers of a cache from byte off on, as rows of a token each. Packed numbers are seen as words.
func view(f *quant.Format, buf tensor.Buffer, off, n int) tensor.Mat {
	m := tensor.Mat{Rows: n / PageTokens, Cols: PageTokens, Format: f, Buf: buf, Off: off}
	if packings[f] != nil {
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
	if packings[c.Format] != nil {
		return quant.F16
	}
	return c.Format
}

// stripKeys is how many neighbouring keys lie together in a tile.
const stripKeys = 16

// KeyAt is where a tile of keys, of rows numbers or bytes each, has number or byte i of the key in a slot.
func KeyAt(rows, slot, i int) int {
	return slot/stripKeys*rows*stripKeys + i*stripKeys + slot%stripKeys
}

// key gives dimension d of the key in a slot of a tile.
func (c *Cache) key() func(tile, slot, d int) float32 {
	if p := packings[c.Format]; p != nil {
		return p.keys(c)
	}
	read := reader(c.K)
	return func(tile, slot, d int) float32 { return read(tile + KeyAt(c.Dim, slot, d)) }
}

// value gives dimension d of the value in a slot of a tile.
func (c *Cache) value() func(tile, slot, d int) float32 {
	if p := packings[c.Format]; p != nil {
		return p.values(c)
	}
	read := reader(c.V)
	return func(tile, slot, d int) float32 { return read(tile + slot*c.Dim + d) }
}

// Put stores the key and the value that a token has in a head: rounded, and by themselves.
func (c *Cache) Put(page int32, head, slot int, key, value []float32) {
	tile := c.Tile(page, head)
	if p := packings[c.Format]; p != nil {
		p.put(c, tile, slot, key, value)
		return
	}
	keys, values := writer(c.K), writer(c.V)
	for d := range c.Dim {
		keys(tile+KeyAt(c.Dim, slot, d), key[d])
		values(tile+slot*c.Dim+d, value[d])
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
func store(m tensor.Mat, i int, v float32) { writer(m)(i, v) }

// writer is store for many numbers of a matrix.
func writer(m tensor.Mat) func(i int, v float32) {
	if m.Format == quant.F32 {
		to := m.F32()
		return func(i int, v float32) { to[i] = v }
	}
	raw := m.Raw()
	return func(i int, v float32) {
		bits := quant.F32ToF16(v)
		raw[2*i], raw[2*i+1] = byte(bits), byte(bits>>8)
	}
}
