package cpu_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

var settings = []setting{
	{"greedy", map[int]float32{tensor.Temperature: 0}, -1},
	{"temperature", nil, -1},
	{"top_p", map[int]float32{tensor.TopP: 0.95}, -1},
	{"top_k", map[int]float32{tensor.TopK: 40}, -1},
	{"top_k top_p min_p", map[int]float32{tensor.Temperature: 0.7, tensor.TopK: 40, tensor.TopP: 0.95, tensor.MinP: 0.05}, -1},
	{"min_p", map[int]float32{tensor.MinP: 0.05}, -1},
	{"typical_p", map[int]float32{tensor.TypicalP: 0.9}, -1},
	{"all", map[int]float32{tensor.Temperature: 1.3, tensor.TopK: 900, tensor.TypicalP: 0.95, tensor.TopP: 0.9, tensor.MinP: 0.001}, 20},
	{"hot top_p", map[int]float32{tensor.Temperature: 20, tensor.TopP: 0.99}, 0},
	{"log-probabilities", nil, 20},
	{"greedy log-probabilities", map[int]float32{tensor.Temperature: 0}, 5},
}

// What is chosen and reported is the Reference's to the bit, with each setting alone and with all of them, on rows of many pieces.
func TestSampleIsItsReference(t *testing.T) {
	for name, d := range variants(t) {
		for _, vocab := range []int{33000, 49152, 151936} {
			for n, s := range settings {
				for rows := 1; rows < 8; rows += 3 {
					o, want := drawFrom(uint64(n), rows, vocab, s), drawFrom(uint64(n), rows, vocab, s)
					p, err := tensortest.Place(d, o)
					if err != nil {
						t.Fatal(err)
					}
					p.Queue.Run(o)
					if err := p.Queue.Sync(); err != nil {
						t.Fatal(err)
					}
					want.Reference()
					for i, m := range []tensor.Mat{o.IDs, o.Best, o.Probs} {
						if expected := []tensor.Mat{want.IDs, want.Best, want.Probs}[i]; !bytes.Equal(p.Read(m), expected.Raw()) {
							t.Errorf("%s, %d rows of %d, %s: other bits in output %d", name, rows, vocab, s.name, i)
						}
					}
					p.Free()
				}
			}
		}
	}
}

// setting is a way to draw that requests have.
type setting struct {
	name string
	set  map[int]float32
	best int32 // alternatives asked for; -1 = no log-probabilities
}

// drawFrom has logits as models give them: a few tokens that are likely, and a bell of others.
func drawFrom(seed uint64, rows, vocab int, s setting) *tensor.Sample {
	r := rand.New(rand.NewPCG(1, seed))
	logits, params, draws := make([]float32, rows*vocab), []float32{}, []int32{}
	for i := range logits {
		logits[i] = float32(r.NormFloat64()) * 2.5
	}
	for i := range rows {
		for range 30 {
			logits[i*vocab+r.IntN(vocab)] = 8 + 10*r.Float32()
		}
		p := []float32{tensor.Temperature: 1, tensor.TopP: 1, tensor.TypicalP: 1, tensor.Repetition: 1, tensor.SampleParams - 1: 0}
		for at, v := range s.set {
			p[at] = v
		}
		params, draws = append(params, p...), append(draws, 7, 0, int32(i), s.best)
	}
	return &tensor.Sample{
		Logits: tensor.FromF32(rows, vocab, logits), Params: tensor.FromF32(rows, tensor.SampleParams, params),
		Draws: tensor.FromI32(rows, tensor.SampleDraws, draws), Start: tensor.FromI32(rows+1, 1, make([]int32, rows+1)),
		Edits: tensor.FromI32(1, tensor.EditColumns, make([]int32, tensor.EditColumns)), Biases: tensor.FromF32(1, 1, []float32{0}),
		IDs: tensor.FromI32(rows, 1, make([]int32, rows)), Best: tensor.FromI32(rows, 20, make([]int32, 20*rows)),
		Probs: tensor.FromF32(rows, 21, make([]float32, 21*rows)),
	}
}

// BenchmarkSample chooses ids from vocabularies of the sizes that SmolLM2 and Qwen3 have.
func BenchmarkSample(b *testing.B) {
	d, err := cpu.New(cpu.Options{Threads: 2})
	if err != nil {
		b.Fatal(err)
	}
	for _, vocab := range []int{49152, 151936} {
		for _, rows := range []int{1, 16} {
			for _, s := range settings {
				b.Run(fmt.Sprintf("%d rows %d %s", vocab, rows, s.name), func(b *testing.B) {
					o := drawFrom(2, rows, vocab, s)
					p, err := tensortest.Place(d, o)
					if err != nil {
						b.Fatal(err)
					}
					defer p.Free()
					for b.Loop() {
						p.Queue.Run(o)
						if err := p.Queue.Sync(); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*rows), "us/token")
				})
			}
		}
	}
}
