package compress

import (
	"runtime"
	"sync"
)

const sparseBlock = 128 // columns of which the zeros are chosen at once, as the authors do

// SparseGPT makes weights of a matrix zero and changes those to their right so that the matrix's outputs, over the inputs that h has seen, change
// little: the update of optimal brain surgeons, column by column (Frantar and Alistarh, arXiv 2301.00774). w holds float64 rows of as
// many columns as h. Of each block of 128 columns go those of the lowest w² / [U]², U being what h becomes, so many that the whole matrix has
// exactly rows * floor(share * columns) of them, as Wanda has, but not each row. Rows are independent once a block is chosen, and come in parallel.
//
// An error means that h cannot be inverted; w is as it was.
func SparseGPT(w []float64, h *Hessian, share float64) error {
	if err := h.invert(); err != nil {
		return err
	}
	columns, rows := h.columns, len(w)/h.columns
	total, done := rows*int(share*float64(columns)), 0
	scale := h.scale()
	zero, score := make([]bool, rows*min(sparseBlock, columns)), make([]float64, rows*min(sparseBlock, columns))
	for at := 0; at < columns; at += sparseBlock {
		width := min(sparseBlock, columns-at)
		zero, score := zero[:rows*width], score[:rows*width]
		for r := range rows {
			for i := range width {
				v := w[r*columns+at+i] * scale[at+i]
				score[r*width+i] = v * v
			}
		}
		n := int(int64(total)*int64(at+width)/int64(columns)) - done
		done += n
		lowest(zero, score, n, func(i int) bool { return w[i/width*columns+at+i%width] == 0 })
		inParallel(rows, func(r int) { h.remove(w[r*columns+at:(r+1)*columns], zero[r*width:(r+1)*width], at) })
	}
	return nil
}

// remove makes weights of a row zero, of which the first stands in column at, and has those behind make up for it.
func (h *Hessian) remove(row []float64, zero []bool, at int) {
	for i, z := range zero {
		if !z {
			continue
		}
		u := h.row(at + i)
		lost := row[i] / u[0]
		for j, v := range u {
			row[i+j] -= lost * v
		}
		row[i] = 0
	}
}

// inParallel calls work for 0 to n-1, on all cores.
func inParallel(n int, work func(i int)) {
	var group sync.WaitGroup
	workers := min(n, runtime.GOMAXPROCS(0))
	for k := range workers {
		group.Go(func() {
			for i := n * k / workers; i < n*(k+1)/workers; i++ {
				work(i)
			}
		})
	}
	group.Wait()
}
