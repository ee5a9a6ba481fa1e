package cpu_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/winnow-llm/winnow/attention/attentiontest"
	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/moe/moetest"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// threads is more than some of the test machines have, so that threads wait for each other too.
const threads = 3

// variants opens a device for every variant that this machine can run. The plain Go one is the reference itself, which the cases'
// own packages test.
func variants(t testing.TB) map[string]tensor.Device {
	all := map[string]tensor.Device{}
	for _, v := range []string{"avx2", "avx512", "amx", "neon", "dotprod"} {
		d, err := cpu.New(cpu.Options{Variant: v, Threads: threads})
		if err != nil {
			t.Log(err)
			continue
		}
		all[v] = d
	}
	return all
}

func TestConform(t *testing.T) {
	for name, d := range variants(t) {
		t.Run(name, func(t *testing.T) {
			t.Run("tensor", func(t *testing.T) { tensortest.Run(t, d) })
			if name != "amx" { // whose kernels of attention are those of avx512
				t.Run("attention", func(t *testing.T) { attentiontest.Run(t, d) })
			}
			t.Run("moe", func(t *testing.T) { moetest.Run(t, d) })
		})
	}
}

// Attend visits what a plan lists, and each key once.
func TestVisits(t *testing.T) {
	for name, d := range variants(t) {
		if name != "amx" {
			t.Run(name, func(t *testing.T) { attentiontest.Visits(t, d, quant.F32, quant.F16, quant.Q8_0, quant.Q4_0) })
		}
	}
}

func FuzzTensor(f *testing.F)    { fuzz(f, tensortest.Drawn) }
func FuzzAttention(f *testing.F) { fuzz(f, attentiontest.Drawn) }
func FuzzMoE(f *testing.F)       { fuzz(f, moetest.Drawn) }

func fuzz(f *testing.F, drawn func(r *rand.Rand) tensortest.Case) {
	for _, d := range variants(f) {
		tensortest.Fuzz(f, d, drawn)
		return
	}
	f.Skip("no kernels for this machine")
}

// Benchmarks run the large cases on as many threads as a server would.
func BenchmarkTensor(b *testing.B)    { bench(b, tensortest.Large()) }
func BenchmarkAttention(b *testing.B) { bench(b, attentiontest.Large()) }
func BenchmarkMoE(b *testing.B)       { bench(b, moetest.Large()) }

func bench(b *testing.B, cases []tensortest.Case) {
	for _, threads := range []int{1, 2} {
		d, err := cpu.New(cpu.Options{Threads: threads, Log: func(line string) { b.Log(line) }})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%s threads %d", d.Name(), threads), func(b *testing.B) { tensortest.Bench(b, d, cases) })
	}
}
