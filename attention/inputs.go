package attention

import (
	"math/rand/v2"

	"github.com/winnow-llm/winnow/tensor"
)

// Inputs are the queries, keys and values of one layer over one sequence, as the layer attends with them. They are in host memory.
type Inputs struct {
	Q         tensor.Mat // heads*keys x dim, any format: head after head
	K, V      tensor.Mat // kv heads*keys x dim, likewise
	Heads, KV int
}

// Keys is the length of the sequence.
func (in *Inputs) Keys() int { return in.Q.Rows / in.Heads }

// First is what the first keys and their queries are by themselves; heads share no memory with it.
func (in *Inputs) First(keys int) *Inputs {
	cut := func(m tensor.Mat, heads int) tensor.Mat {
		to := tensor.FromF32(heads*keys, m.Cols, make([]float32, heads*keys*m.Cols))
		for h := range heads {
			for k := range keys {
				m.RowF32(to.F32()[(h*keys+k)*m.Cols:][:m.Cols], h*in.Keys()+k)
			}
		}
		return to
	}
	return &Inputs{Q: cut(in.Q, in.Heads), K: cut(in.K, in.KV), V: cut(in.V, in.KV), Heads: in.Heads, KV: in.KV}
}

// row puts a position's part of a matrix into dst, head after head.
func row(dst []float32, m tensor.Mat, heads, pos int) {
	keys := m.Rows / heads
	for h := range heads {
		m.RowF32(dst[h*m.Cols:(h+1)*m.Cols], h*keys+pos)
	}
}

// World is a world of keys and values without a model: keys and values are unit Gaussians, and a query is Gaussian noise and Alpha times one
// chosen key, so that its score stands Alpha*sqrt(dim) above the mean of all, whose spread is sqrt(1 + Alpha*Alpha). All queries of a page
// look for one key.
type World struct {
	Heads, KV, Dim, Keys int
	Alpha                float32
	Seed                 uint64
}

// Draw makes the world, in which every query's key is drawn from those that the first row of its page sees, or is the first of all.
func (w World) Draw() *Inputs {
	r := rand.New(rand.NewPCG(w.Seed, 1))
	in := &Inputs{Heads: w.Heads, KV: w.KV}
	for _, m := range []struct {
		mat   *tensor.Mat
		heads int
	}{{&in.Q, w.Heads}, {&in.K, w.KV}, {&in.V, w.KV}} {
		v := make([]float32, m.heads*w.Keys*w.Dim)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		*m.mat = tensor.FromF32(m.heads*w.Keys, w.Dim, v)
	}
	for h := range w.Heads {
		for page := 0; page < w.Keys; page += PageTokens {
			in.Seek(h, page, min(page+PageTokens, w.Keys), Needle{r.IntN(page + 1), w.Alpha})
		}
	}
	return in
}

// Needle is a key that queries look for.
type Needle struct {
	Key   int
	Alpha float32
}

// Seek adds a needle to a head's queries from position from to to, to excluded; an Alpha below zero takes it back. Queries are F32.
func (in *Inputs) Seek(head, from, to int, n Needle) {
	dim, keys := in.Q.Cols, in.Keys()
	key := in.K.F32()[(head*in.KV/in.Heads*keys+n.Key)*dim:][:dim]
	for pos := from; pos < to; pos++ {
		q := in.Q.F32()[(head*keys+pos)*dim:][:dim]
		for d, k := range key {
			q[d] += n.Alpha * k
		}
	}
}
