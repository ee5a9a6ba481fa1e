//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/quant"
)

// How fast is for a benchmark to say: here every variant has a rate for all arithmetic that its kernels do.
func TestPeaks(t *testing.T) {
	for _, v := range append(variants(t), "go") {
		peaks, err := Peaks(Options{Variant: v, Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(v, peaks)
		for i, p := range peaks {
			if p.Gops <= 0 || slices.ContainsFunc(peaks[:i], func(o Peak) bool { return o.Name == p.Name }) {
				t.Errorf("%s: %+v", v, peaks)
			}
		}
		for _, f := range []*quant.Format{nil, quant.F32, quant.BF16, quant.Q4_0, packings[quant.Q6_K].format} {
			if !slices.ContainsFunc(peaks, func(p Peak) bool { return p.Name == PeakOf(f) }) {
				t.Errorf("%s has no peak of %s, which products with %v do", v, PeakOf(f), f)
			}
		}
	}
	if PeakOf(packings[quant.Q4_0].format) != PeakInt16 || PeakOf(packings[quant.F16].format) != PeakF32 {
		t.Error("a loaded weight has another peak than the file's")
	}
	if _, err := Peaks(Options{Variant: "x87"}); err == nil {
		t.Error("a variant that nobody has was measured")
	}
}

// The count of operations is what rates rest on.
func TestRoofCountsOperations(t *testing.T) {
	for _, name := range variants(t) {
		v, err := choose(name)
		if err != nil {
			t.Fatal(err)
		}
		d := open(t, name, 2)
		perStep := map[string]int64{}
		for _, r := range roofs {
			one, _ := roofPass(d.ctx, v, [3]int{r.kind, 1, 1})
			many, _ := roofPass(d.ctx, v, [3]int{r.kind, 3, 5})
			if many != 15*one {
				t.Errorf("%s %s: %d operations in 15 steps of %d", name, r.name, many, one)
			}
			perStep[r.name] = one
		}
		// 12, 10 or 16 chains of one register each; emulated instructions are too slow to be measured, and AVX2 stands for them.
		avx2 := [3]int64{10 * 2 * 8, 10 * 2 * 16, 10 * 2 * 32}
		want := map[string][][3]int64{
			"amx":    {{12 * 2 * 16, 4 * 2 * 16 * 16 * 32, 4 * 2 * 16 * 16 * 64}, avx2},
			"avx512": {{12 * 2 * 16, 12 * 2 * 32, 12 * 2 * 64}, avx2}, "avx2": {avx2},
			"neon": {{16 * 2 * 4, 16 * 2 * 4, 16 * 2 * 8}}, "dotprod": {{16 * 2 * 4, 16 * 2 * 8, 16 * 2 * 16}},
		}[name]
		if have := [3]int64{perStep[PeakF32], perStep[PeakInt16], perStep[PeakInt8]}; !slices.Contains(want, have) {
			t.Errorf("%s: %v operations a step, want %v", name, have, want)
		}
	}
}
