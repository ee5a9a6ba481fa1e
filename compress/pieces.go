package compress

import (
	"iter"
	"slices"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

const pieceBytes = 4 << 20 // copied at a time

// mapped hands out bytes of a checkpoint's tensor in pieces, and lets go of each.
func mapped(c *store.Checkpoint, b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for piece := range slices.Chunk(b, pieceBytes) {
			more := yield(piece)
			if c.Release(piece); !more {
				return
			}
		}
	}
}

// mean hands out the mean of parts of a checkpoint's tensors, equally long and all stored in f.
func mean(c *store.Checkpoint, f *quant.Format, parts [][]byte) iter.Seq[[]byte] {
	step := max(1, pieceBytes/8/f.Block) * f.Bytes // half a million values, where blocks allow
	return func(yield func([]byte) bool) {
		out := make([]byte, min(step, len(parts[0])))
		for at := 0; at < len(parts[0]); at += step {
			n := min(step, len(parts[0])-at)
			runs := make([][]byte, len(parts))
			for i, p := range parts {
				runs[i] = p[at:][:n]
			}
			Mean(out[:n], f, runs)
			for _, r := range runs {
				c.Release(r)
			}
			if !yield(out[:n]) {
				return
			}
		}
	}
}

// one hands out bytes that are in memory.
func one(b []byte) iter.Seq[[]byte] { return slices.Values([][]byte{b}) }

// inTurn hands out one after another.
func inTurn(all []iter.Seq[[]byte]) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for _, seq := range all {
			for piece := range seq {
				if !yield(piece) {
					return
				}
			}
		}
	}
}

// cutter takes rows out of tensors of a checkpoint along their slowest dimension.
type cutter struct{ c *store.Checkpoint }

// rows is a tensor of which row i is the mean of the rows of t that from[i] lists, or, where it lists none, holds fill.
func (x cutter) rows(t store.Tensor, from [][]int, fill float32) (out store.NewTensor, err error) {
	n := 0
	if len(t.Shape) > 0 {
		n = t.Shape[0]
	}
	if n < 1 || len(t.Shape) == 1 && t.Format.Block > 1 {
		return out, unfit(x.c, t.Name, "%s %v has no rows that stand alone", t.Format, t.Shape)
	}
	per := len(t.Data) / n
	var all []iter.Seq[[]byte]
	for _, rows := range from {
		var parts [][]byte
		for _, r := range rows {
			if r < 0 || r >= n {
				return out, unfit(x.c, t.Name, "%v has no row %d", t.Shape, r)
			}
			parts = append(parts, t.Data[r*per:][:per])
		}
		piece, err := x.piece(t, parts, func() []byte { return filled(t.Format, per, fill) })
		if err != nil {
			return out, err
		}
		all = append(all, piece)
	}
	shape := slices.Clone(t.Shape)
	shape[0] = len(from)
	return store.NewTensor{Name: t.Name, Format: t.Format, Shape: shape, Pieces: inTurn(all)}, nil
}

// piece is the mean of parts of tensors like t; the one part itself, or where there is none what fill makes.
func (x cutter) piece(t store.Tensor, parts [][]byte, fill func() []byte) (iter.Seq[[]byte], error) {
	switch {
	case len(parts) == 0:
		return func(yield func([]byte) bool) { yield(fill()) }, nil // made when its turn comes: there may be many
	case len(parts) == 1:
		return mapped(x.c, parts[0]), nil
	case !averages(t.Format):
		return nil, unfit(x.c, t.Name, "of %s no mean can be stored", t.Format)
	}
	return mean(x.c, t.Format, parts), nil
}

// filled is n bytes of one value, in any format where that is 0.
func filled(f *quant.Format, n int, v float32) []byte {
	out := make([]byte, n)
	if v != 0 {
		f.Encode(out, slices.Repeat([]float32{v}, n/f.Bytes*f.Block))
	}
	return out
}

// copied is a tensor as it is.
func (x cutter) copied(t store.Tensor) store.NewTensor {
	return store.NewTensor{Name: t.Name, Format: t.Format, Shape: t.Shape, Pieces: mapped(x.c, t.Data)}
}

// singles is what becomes of a tensor that is one expert's alone: that of each new row whose weights begin with it. named is what a file calls it of
// any expert, before or after.
func (x cutter) singles(s *slicing, t store.Tensor, named func(int) string, expert int) (out []store.NewTensor, err error) {
	for i, r := range s.rows {
		if len(r.weights) == 0 || int(r.weights[0].row) != expert {
			continue
		}
		var parts [][]byte
		for _, p := range r.weights {
			other, err := x.c.Tensor(named(int(p.row)))
			if err != nil {
				return nil, err
			}
			if other.Format != t.Format || !slices.Equal(other.Shape, t.Shape) {
				return nil, unfit(x.c, other.Name, "%s %v, has to be averaged with %s %v", other.Format, other.Shape, t.Format, t.Shape)
			}
			parts = append(parts, other.Data)
		}
		pieces, err := x.piece(t, parts, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, store.NewTensor{Name: named(i), Format: t.Format, Shape: t.Shape, Pieces: pieces})
	}
	return out, nil
}
