package compress

import (
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// instead names the format of 32-value blocks that takes the place of one of 256 where rows are no whole number of its blocks: the
// smallest that is not worse.
var instead = map[*quant.Format]*quant.Format{
	quant.Q2_K: quant.IQ4_NL, quant.Q3_K: quant.IQ4_NL, quant.IQ4_XS: quant.IQ4_NL,
	quant.Q4_K: quant.Q5_0, quant.Q5_K: quant.Q5_1, quant.Q6_K: quant.Q8_0,
}

// fitting is the format in which rows of so many values are stored when f is asked for: f, the one in its place, or F16 where rows are no
// whole number of blocks of either.
func fitting(f *quant.Format, cols int) *quant.Format {
	if !f.Fits(cols) && instead[f] != nil {
		f = instead[f]
	}
	if !f.Fits(cols) {
		return quant.F16
	}
	return f
}

// stored is the format in which a tensor is stored when f is asked for. It keeps the one it has where that is a quantised one that takes no
// more bytes, since nothing is won then.
func stored(t store.Tensor, f *quant.Format) *quant.Format {
	to := fitting(f, cols(t))
	if t.Format.Block > 1 && t.Format.Bytes*to.Block <= to.Bytes*t.Format.Block {
		return t.Format
	}
	return to
}

// cols is how many values a row of a tensor has.
func cols(t store.Tensor) int {
	if len(t.Shape) == 0 {
		return 1
	}
	return t.Shape[len(t.Shape)-1]
}

// numbers is how many values a tensor has.
func numbers(t store.Tensor) int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// part is tensor i of a stack of them: its slowest dimension taken away.
func part(t store.Tensor, i int) store.Tensor {
	size := len(t.Data) / t.Shape[0]
	return store.Tensor{Name: t.Name, Format: t.Format, Shape: t.Shape[1:], Data: t.Data[i*size : (i+1)*size : (i+1)*size]}
}
