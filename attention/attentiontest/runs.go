package attentiontest

import (
	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// Runs is a batch of which selectors plan several tiles together: a row of a case is a run. All have as many tiles.
type Runs struct {
	Heads Heads
	Runs  [][]Tile
	Room  Room // of a plan row
	Block int  // positions that xattention and anchor plan together where a run is some of which the first is asked for the others; 0 = a run is one
}

// make is what groups are planned from. It draws queries and keys that are small multiples of a quarter, so that scores are exact however they are summed. Each sequence has
// its keys and those alone: the rest of the cache is NaN.
func (b Runs) make(w *tensortest.World) attention.Groups {
	batch, q, start := b.draw(w)
	past := newPast(w, batch, b.Heads)
	for s, keys := range past.k {
		copy(keys, quarters(w, len(keys)))
		past.reads(s, batch.Rows[s]-1, Parts{}, 0, b.Heads.KV)
	}
	tiles := len(b.Runs[0])
	s := attention.Groups{Lane: 1, Heads: b.Heads.Query, Serves: 1, Size: page * tiles}
	everyone := tensortest.World{Rand: w.Rand, Total: batch.total(), Picked: make([]int, len(w.Picked))}
	s.Cache, s.Layout = past.place(&everyone)
	var list []Tile
	var rows []float32
	for _, n := range w.Picked {
		list = append(list, b.Runs[n]...)
		rows = append(rows, q[start[n]:start[n+1]]...)
	}
	picked := tensortest.World{Rand: w.Rand, Picked: make([]int, len(list))}
	for i := range list {
		picked.Picked[i] = i
	}
	s.Layout = tiled(&picked, list, nil, s.Layout.Pages[1])
	s.Plan = empty(w, s.Layout, Room{b.Heads.Query * tiles, b.Room.Blocks, b.Room.Keys})
	s.Plan.Groups = b.Heads.Query
	s.Q = spared(rows, b.Heads.Query*b.Heads.Dim)
	return s
}

// draw finds how long the sequences are and draws the queries of all runs, those of a run alike: those of run i are from start[i] on.
func (b Runs) draw(w *tensortest.World) (batch Batch, q []float32, start []int) {
	start = []int{0}
	for _, r := range b.Runs {
		like := quarters(w, b.Heads.Query*b.Heads.Dim)
		for _, t := range r {
			for t.Seq >= len(batch.Rows) {
				batch.Rows, batch.Past = append(batch.Rows, 0), append(batch.Past, 0)
			}
			batch.Rows[t.Seq] = max(batch.Rows[t.Seq], t.First+t.Rows)
			for range t.Rows {
				for _, v := range like {
					q = append(q, v+float32(w.IntN(3)-1)/4)
				}
			}
		}
		start = append(start, len(q))
	}
	return batch, q, start
}

// quarters are multiples of a quarter from -1 to 1.
func quarters(w *tensortest.World, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(w.IntN(9)-4) / 4
	}
	return v
}

// spared is a matrix with spare rows of NaN.
func spared(v []float32, cols int) tensor.Mat {
	for range tensortest.Spare * cols {
		v = append(v, Own)
	}
	return tensor.FromF32(len(v)/cols, cols, v)
}
