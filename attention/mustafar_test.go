package attention

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// filled is a cache of three pages of one head with values that are seldom alike, its pruned pages and a layout of rows that fill page 1 of
// the first sequence: pruned page 4, dense page 2.
func filled(t *testing.T, dim, keep int) (*Cache, *Layout) {
	t.Helper()
	shapes := []Shape{{Heads: 1, Dim: dim, Format: quant.F16, Keep: keep}}
	if err := shapes[0].Check(); err != nil {
		t.Fatal(err)
	}
	caches, err := NewCaches(tensor.Reference(), 3, shapes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := AddPruned(tensor.Reference(), 5, shapes, caches); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(4, 3))
	key, value := make([]float32, dim), make([]float32, dim)
	for slot := range PageTokens {
		for d := range key {
			key[d], value[d] = float32(r.IntN(64)-32)/4, float32(r.NormFloat64())
		}
		caches[0].Put(2, 0, slot, key, value)
	}
	column := func(v ...int32) tensor.Mat { return tensor.FromI32(len(v), 1, v) }
	return caches[0], &Layout{
		Pages: []tensor.Mat{tensor.FromI32(1, 2, []int32{0, 4})}, Dense: tensor.FromI32(1, 2, []int32{-1, 2}),
		Seq: column(0, 0), Pos: column(2*PageTokens-2, 2*PageTokens-1),
	}
}

// Of each token exactly so many numbers are kept, none of them smaller than one that is not, of equals those of lower dimensions; and they are
// what they were.
func TestPruneKeepsTheLargest(t *testing.T) {
	for _, dim := range []int{16, 64, 128} {
		for _, keep := range []int{1, dim / 2, dim} {
			c, l := filled(t, dim, keep)
			(&Prune{Cache: c, Layout: l}).Reference()
			got := c.Pruned.unpack(c, &Layout{}, 4, 0)
			dense := [2]func(tile, slot, d int) float32{c.key(), c.value()}
			pruned := [2]func(slot, d int) float32{
				func(slot, d int) float32 { return got.k[d*PageTokens+slot] }, func(slot, d int) float32 { return got.v[slot*dim+d] },
			}
			for n := range dense {
				for slot := range PageTokens {
					order := make([]int, dim)
					for d := range order {
						order[d] = d
					}
					at := func(d int) float32 { return dense[n](c.Tile(2, 0), slot, d) }
					slices.SortStableFunc(order, func(a, b int) int {
						x, y := max(at(a), -at(a)), max(at(b), -at(b))
						switch {
						case x > y:
							return -1
						case x < y:
							return 1
						}
						return 0
					})
					for rank, d := range order {
						want := at(d)
						if rank >= keep {
							want = 0
						}
						if pruned[n](slot, d) != want {
							t.Fatalf("%d of %d: dimension %d of token %d is %v, want %v", keep, dim, d, slot, pruned[n](slot, d), want)
						}
					}
				}
			}
		}
	}
}

// A tile is numbers, then bits; keys lie dimension after dimension, values token after token.
func TestPrunedLayout(t *testing.T) {
	c, l := filled(t, 16, 5)
	key, value := make([]float32, 16), make([]float32, 16)
	copy(key, []float32{0.1, -3, 0.2, 2, -0.05, 0, 1, -1})
	copy(value, key)
	for slot := range PageTokens {
		c.Put(2, 0, slot, key, value)
	}
	(&Prune{Cache: c, Layout: l}).Reference()
	if size := prunedTile(16, 5); size != 64*12 || c.Pruned.Stride != 2*size {
		t.Fatalf("a tile takes %d bytes, a page %d", size, c.Pruned.Stride)
	}
	k, v := c.Pruned.K.Raw()[4*c.Pruned.Stride:], c.Pruned.V.Raw()[4*c.Pruned.Stride:]
	number := func(b []byte, i int) float32 { return quant.F16ToF32(binary.LittleEndian.Uint16(b[2*i:])) }
	for i, want := range []float32{-3, 0.2, 2, 1, -1} {
		want = quant.F16ToF32(quant.F32ToF16(want))
		if number(k, 64*i+7) != want || number(v, 5*7+i) != want {
			t.Errorf("number %d is %v of a key, %v of a value, want %v", i, number(k, 64*i+7), number(v, 5*7+i), want)
		}
	}
	for d := range 16 {
		want, bits := uint64(0), binary.LittleEndian.Uint64(k[64*10+8*d:])
		if 0xce>>d&1 == 1 {
			want = 1<<64 - 1
		}
		if bits != want {
			t.Errorf("dimension %d has bits %x", d, bits)
		}
	}
	if bits := binary.LittleEndian.Uint16(v[64*10+2*7:]); bits != 0xce {
		t.Errorf("token 7 has bits %x", bits)
	}
}
