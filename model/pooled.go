package model

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Pooled is where a step adds up hidden states: what the last norm gives for a token and the output matrix would read. A sum's rows are
// added in order to what Fill wrote as its beginning, so that a text may be summed over several steps and the bits do not show it.
type Pooled struct {
	Rows  tensor.Mat // rows x 1, I32: rows of the step that are summed, ascending
	Start tensor.Mat // sequences+1 x 1, I32: sum i takes Rows Start[i] to Start[i+1]
	Sums  tensor.Mat // sequences x dim, F32: what Forward adds to

	rows, sums tensor.Mat // 1 x 1, I32: how many are in use
}

// newPooled allocates the columns of a batch of at most as many rows and sequences as lim says.
func newPooled(d tensor.Device, lim Limits, dim int) (p Pooled, err error) {
	for _, m := range []struct {
		mat        *tensor.Mat
		format     *quant.Format
		rows, cols int
	}{
		{&p.Rows, quant.I32, lim.Rows, 1}, {&p.Start, quant.I32, lim.Sequences + 1, 1}, {&p.Sums, quant.F32, lim.Sequences, dim},
		{&p.rows, quant.I32, 1, 1}, {&p.sums, quant.I32, 1, 1},
	} {
		if *m.mat, err = tensor.NewMat(d, m.format, m.rows, m.cols); err != nil {
			return p, fmt.Errorf("batch: %w", err)
		}
	}
	return p, nil
}

// fill writes a step's sums as far as earlier steps brought them.
func (p *Pooled) fill(q tensor.Queue, s *Step) {
	write(q, p.Rows, s.Pool)
	write(q, p.Start, s.PoolStart)
	for i, sum := range s.Sums {
		write(q, p.Sums.Slice(i, i+1), sum)
	}
	write(q, p.rows, []int32{int32(len(s.Pool))})
	write(q, p.sums, []int32{int32(len(s.Sums))})
}

// ops add to the sums the hidden states of x, the residual stream behind all layers; h is scratch of its size, norm the model's last.
func (p *Pooled) ops(x, h tensor.Mat, norm tensor.Norm) []tensor.Op {
	norm.X, norm.Y, norm.N = h, h, p.rows
	return []tensor.Op{
		&tensor.Gather{X: x, Rows: p.Rows, Y: h, N: p.rows}, &norm, &tensor.Sum{X: h, Start: p.Start, Y: p.Sums, N: p.sums},
	}
}

func (p *Pooled) free(d tensor.Device) {
	for _, m := range []tensor.Mat{p.Rows, p.Start, p.Sums, p.rows, p.sums} {
		if m.Present() {
			d.Free(m.Buf)
		}
	}
}
