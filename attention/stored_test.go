package attention

import (
	"encoding/binary"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// A packed tile is codes, then scales, and a token's lie where the layout says: for heads of 64 values a tile takes 64*64 bytes and 64*2
// scales of 2 bytes.
func TestPackedTiles(t *testing.T) {
	layers := []Shape{{Heads: 1, Dim: 32, Format: quant.Q8_0}, {Heads: 2, Dim: 64, Format: quant.Q8_0}}
	caches, err := NewCaches(tensor.Reference(), 3, layers)
	if err != nil {
		t.Fatal(err)
	}
	if bytes := layers[1].PageBytes(); bytes != 2*2*(64*64+2*128) {
		t.Errorf("a page takes %d bytes", bytes)
	}
	c := caches[1]
	key, value := make([]float32, 64), make([]float32, 64)
	key[0], key[1], key[2], key[3] = 127, 1.5, 2.5, -126.7
	key[33], key[34] = -63.5, 0.75
	value[63] = 254
	if r := c.Regions()[1]; r.Stride != layers[0].PageBytes()+layers[1].PageBytes() || r.Off != layers[0].PageBytes()+r.Bytes || 2*r.Bytes != layers[1].PageBytes() {
		t.Errorf("values lie at %d + %d p, %d bytes of them", r.Off, r.Stride, r.Bytes)
	}
	c.Put(2, 1, 21, key, value)
	page := 2 * (1*32*64 + 2*64*64) // values of a page
	at := (2*page + 64*64) / 32 * 34
	tile := func(m tensor.Mat) []byte { return m.Raw()[at : at+64*64+2*128] }
	k, v := tile(c.K), tile(c.V)
	scale := func(b []byte) float32 { return quant.F16ToF32(binary.LittleEndian.Uint16(b)) }
	second := k[64*16:] // the strip of keys 16 to 31
	have := []float32{float32(int8(second[5])), float32(int8(second[16+5])), float32(int8(second[2*16+5])), float32(int8(second[3*16+5])),
		float32(int8(second[33*16+5])), float32(int8(second[34*16+5])), scale(k[64*64+2*21:]), scale(k[64*64+2*(64+21):]), float32(int8(v[21*64+63])),
		scale(v[64*64+2*(21*2):]), scale(v[64*64+2*(21*2+1):])}
	want := []float32{127, 2, 2, -127, -127, 2, 1, 0.5, 127, 0, 2}
	for i := range want {
		if have[i] != want[i] {
			t.Errorf("number %d is %v, want %v", i, have[i], want[i])
		}
	}
	for i, b := range k {
		if in := i/(64*16) == 1 && i%16 == 5 || i >= 64*64 && i/2%64 == 21; b != 0 && !in {
			t.Errorf("byte %d of another token is %d", i, b)
		}
	}
	if read := c.key()(c.Tile(2, 1), 21, 34); read != 1 {
		t.Errorf("0.75 of 63.5 in 127 steps is read as %v", read)
	}
	if read := c.value()(c.Tile(2, 1), 21, 63); read != 254 {
		t.Errorf("254 is read as %v", read)
	}
}

// In Q4_0 a byte has the codes of two dimensions: for heads of 64 values a tile takes 64*32 bytes and 64*2 scales of 2 bytes, and a token's lie
// where the layout says.
func TestTilesOfNibbles(t *testing.T) {
	shape := Shape{Heads: 2, Dim: 64, Format: quant.Q4_0}
	caches, err := NewCaches(tensor.Reference(), 3, []Shape{shape})
	if err != nil {
		t.Fatal(err)
	}
	if bytes := shape.PageBytes(); bytes != 2*2*(64*32+2*128) {
		t.Errorf("a page takes %d bytes", bytes)
	}
	c := caches[0]
	key, value := make([]float32, 64), make([]float32, 64)
	key[0], key[1], key[16], key[17] = -16, 3, 13.9, 5
	key[33] = 4
	value[63] = -8
	c.Put(2, 1, 21, key, value)
	at := (2*2*2*64*64 + 64*64) / 32 * 18
	k, v := c.K.Raw()[at:at+64*32+2*128], c.V.Raw()[at:at+64*32+2*128]
	scale := func(b []byte) float32 { return quant.F16ToF32(binary.LittleEndian.Uint16(b)) }
	second := k[32*16:] // the strip of keys 16 to 31
	have := []float32{float32(second[5]), float32(second[16+5]), float32(second[17*16+5]), scale(k[64*32+2*21:]), scale(k[64*32+2*(64+21):]),
		float32(v[21*32+31]), scale(v[64*32+2*(21*2+1):])}
	want := []float32{0xf0, 0xaa, 0x80, 2, -0.5, 0x08, 1}
	for i := range want {
		if have[i] != want[i] {
			t.Errorf("number %d is %v, want %v", i, have[i], want[i])
		}
	}
	for i, b := range k {
		if in := i/(32*16) == 1 && i%16 == 5 || i >= 64*32 && i/2%64 == 21; b != 0 && !in {
			t.Errorf("byte %d of another token is %d", i, b)
		}
	}
	read := c.key()
	for d, want := range map[int]float32{0: -16, 1: 4, 16: 14, 17: 4, 33: 4, 63: 0} {
		if got := read(c.Tile(2, 1), 21, d); got != want {
			t.Errorf("dimension %d of a key is read as %v, want %v", d, got, want)
		}
	}
	if read := c.value()(c.Tile(2, 1), 21, 63); read != -8 {
		t.Errorf("-8 is read as %v", read)
	}
}
