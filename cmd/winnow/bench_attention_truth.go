package main

import (
	"math"
	"slices"
	"sync"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// truth knows the softmax over all visible keys, which no selector does.
type truth struct {
	device tensor.Device
	queue  tensor.Queue
	in     *attention.Inputs
}

// rowsTogether is how many rows of scores are computed at a time.
const rowsTogether = 64

// each calls visit with the softmax of every position in every query head, the keys up to the position; several at a time. i is the position's
// place in the list, and mass is visit's only until it returns.
func (t *truth) each(positions []int, visit func(i, head int, mass []float32)) (err error) {
	in, dim := t.in, t.in.Q.Cols
	var mats [2]tensor.Mat
	for i, cols := range []int{dim, in.Keys()} {
		if mats[i], err = tensor.NewMat(t.device, quant.F32, rowsTogether, cols); err != nil {
			return err
		}
		defer t.device.Free(mats[i].Buf)
	}
	x, y := mats[0], mats[1]
	for kv := range in.KV {
		k := make([]float32, in.Keys()*dim)
		for i := range in.Keys() {
			in.K.RowF32(k[i*dim:(i+1)*dim], kv*in.Keys()+i)
		}
		host := tensor.FromF32(in.Keys(), dim, k)
		host.Name = "k"
		w, err := t.device.Load(host)
		if err != nil {
			return err
		}
		for head := kv * in.Heads / in.KV; head < (kv+1)*in.Heads/in.KV && err == nil; head++ {
			for lo := 0; lo < len(positions) && err == nil; lo += rowsTogether {
				some := positions[lo:min(lo+rowsTogether, len(positions))]
				for i, pos := range some {
					in.Q.RowF32(x.F32()[i*dim:(i+1)*dim], head*in.Keys()+pos)
				}
				t.queue.Run(&tensor.Linear{X: x.Slice(0, len(some)), W: w, Y: y.Slice(0, len(some))})
				if err = t.queue.Sync(); err != nil {
					break
				}
				together(len(some), func(i int) {
					mass := y.F32()[i*in.Keys():][:some[i]+1]
					soften(mass, float32(1/math.Sqrt(float64(dim))))
					visit(lo+i, head, mass)
				})
			}
		}
		if w.Buf != host.Buf {
			t.device.Free(w.Buf)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// together calls work for 0 to n, n excluded, several at a time.
func together(n int, work func(i int)) {
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { work(i) })
	}
	wait.Wait()
}

// soften turns scores into their softmax.
func soften(scores []float32, scale float32) {
	top := slices.Max(scores)
	var sum float64
	for i, s := range scores {
		e := math.Exp(float64((s - top) * scale))
		scores[i] = float32(e)
		sum += e
	}
	for i := range scores {
		scores[i] = float32(float64(scores[i]) / sum)
	}
}

// densities are the smallest shares of the visible keys that have some shares of the softmax, as means over rows and heads.
func (t *truth) densities(positions []int, recalls []float64) (means []float64, err error) {
	shares := make([]float64, len(positions)*t.in.Heads*len(recalls))
	err = t.each(positions, func(i, head int, mass []float32) {
		slices.Sort(mass)
		for n, recall := range recalls {
			need, sum := 0, 0.0
			for need < len(mass) && sum < recall {
				need++
				sum += float64(mass[len(mass)-need])
			}
			shares[(i*t.in.Heads+head)*len(recalls)+n] = float64(need) / float64(len(mass))
		}
	})
	means = make([]float64, len(recalls))
	for i, s := range shares {
		means[i%len(recalls)] += s * float64(len(recalls)) / float64(len(shares))
	}
	return means, err
}

// oracle writes the plan of a gate that is always right: the blocks before the tile's own whose share of the tile's softmax reaches a cut.
type oracle struct {
	shares map[int][][]float32 // by a tile's first position: of each head the blocks before it
}

// newOracle looks at rows of every tile: those of the steps of a prompt, by some rows each, or single rows.
func newOracle(f *field) (*oracle, error) {
	const of = 8 // rows of a tile that are looked at
	o := &oracle{map[int][][]float32{}}
	var positions, tile []int
	if f.bench.phase == "decode" {
		positions = append(slices.Clone(f.samples), f.truth.in.Keys()-1)
		tile = positions
	} else {
		for _, step := range f.steps {
			for first := step.From; first < step.To; first += attention.PageTokens {
				last := min(first+attention.PageTokens, step.To) - 1
				for i := range of {
					positions, tile = append(positions, first+(last-first)*(i+1)/of), append(tile, first)
				}
			}
		}
	}
	rows := map[int]float32{}
	for _, first := range tile {
		rows[first]++
		o.shares[first] = make([][]float32, f.truth.in.Heads)
		for h := range o.shares[first] {
			o.shares[first][h] = make([]float32, first/attention.PageTokens)
		}
	}
	var mu sync.Mutex
	err := f.truth.each(positions, func(i, head int, mass []float32) {
		first := tile[i]
		sums := make([]float32, first/attention.PageTokens)
		for b := range sums {
			for _, m := range mass[b*attention.PageTokens : (b+1)*attention.PageTokens] {
				sums[b] += m
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for b, s := range sums {
			o.shares[first][head][b] += s / rows[first]
		}
	})
	if f.bench.phase == "decode" {
		o.share(f.truth.in.Heads / f.truth.in.KV)
	}
	return o, err
}

// share gives the heads that read the same keys one list, as gates for decoding do.
func (o *oracle) share(heads int) {
	for _, all := range o.shares {
		for group := range slices.Chunk(all, heads) {
			for b := range group[0] {
				var sum float32
				for _, shares := range group {
					sum += shares[b]
				}
				for _, shares := range group {
					shares[b] = sum / float32(len(group))
				}
			}
		}
	}
}

// write fills the plan of tiles that begin at positions.
func (o *oracle) write(p *attention.Plan, firsts []int, cut float64) {
	for i, first := range firsts {
		for h, shares := range o.shares[first] {
			var blocks []int32
			for b, s := range shares {
				if float64(s) >= cut {
					blocks = append(blocks, int32(b))
				}
			}
			p.Write(i*p.Groups+h, 0, first/attention.PageTokens*attention.PageTokens, blocks, nil)
		}
	}
}
