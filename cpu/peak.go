package cpu

import (
	"runtime"
	"sync"
	"time"

	"github.com/winnow-llm/winnow/quant"
)

// Peak is how fast the threads of a device compute together in one kind of arithmetic, on numbers in registers: what no kernel can pass.
type Peak struct {
	Name string  // as PeakOf gives it: "int16 dot"
	Gops float64 // 1e9 operations a second; a product and its sum are two
}

// The kinds of arithmetic. A variant has those that its machine has instructions for.
const (
	PeakF32   = "f32 fma"   // floats of 32 bits
	PeakInt16 = "int16 dot" // codes of weights with inputs of a word or two bytes
	PeakInt8  = "int8 dot"  // codes of weights with inputs of 8 bits
	PeakBF16  = "bf16 dot"  // pairs of bfloat16, summed as floats
)

// PeakOf names the arithmetic that kernels do with weights of a format, as devices have it or as files do; nil stands for no weights.
// Integer formats meet inputs of 12 bits; all else is done in floats.
func PeakOf(weights *quant.Format) string {
	if weights != nil && weights.Block > 1 {
		return PeakInt16
	}
	return PeakF32
}

// plainPeaks measures plain Go, which does everything in floats: the reference device has the same peak under each name that PeakOf gives.
func plainPeaks(threads int) []Peak {
	const steps, chains, passes = 1 << 19, 8, 4
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	sums := make([]float32, threads)
	best := 0.0
	for range passes {
		var all sync.WaitGroup
		started := time.Now()
		for i := range sums {
			all.Go(func() { sums[i] = chained(steps, float32(i)) })
		}
		all.Wait()
		best = max(best, 2*chains*steps*float64(threads)/time.Since(started).Seconds()/1e9)
	}
	return []Peak{{PeakF32, best}, {PeakInt16, best}}
}

// chained does steps products and sums in each of eight chains.
func chained(steps int, x float32) float32 {
	var a, b, c, d, e, f, g, h float32
	for range steps {
		a, b, c, d = a*x+1, b*x+2, c*x+3, d*x+4
		e, f, g, h = e*x+5, f*x+6, g*x+7, h*x+8
	}
	return a + b + c + d + e + f + g + h
}
