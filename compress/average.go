package compress

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
)

// Mean stores in dst, in format f, the mean of runs of numbers that are stored so and equally long: decoded, added up in the order given,
// divided, and encoded again. The mean of runs of equal numbers is exact before it is encoded. f must have an encoder and a decoder.
func Mean(dst []byte, f *quant.Format, runs [][]byte) {
	values := len(dst) / f.Bytes * f.Block
	sum, run := make([]float64, values), make([]float32, values)
	for _, r := range runs {
		if len(r) != len(dst) {
			panic(fmt.Sprintf("winnow: bug: compress: mean of runs of %d and %d bytes", len(dst), len(r)))
		}
		f.Decode(run, r)
		for i, v := range run {
			sum[i] += float64(v)
		}
	}
	for i, v := range sum {
		run[i] = float32(v / float64(len(runs)))
	}
	f.Encode(dst, run)
}

// averages says whether means of numbers can be stored in a format.
func averages(f *quant.Format) bool { return f.Encode != nil && f.Decode != nil }
