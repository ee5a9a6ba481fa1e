package model_test

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
)

// The sum of a text's hidden states, and the last one alone, give the golden logits when the output matrix reads them: logits of
// transformers are linear in what is pooled here. Parting a text into steps changes no bit, and neither does another text beside it.
func TestPooledGoldens(t *testing.T) {
	for _, path := range []string{"testdata/llama_tied", "testdata/qwen3", "testdata/qwen3_moe", "testdata/stories260k"} {
		c, err := store.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		g := readGoldens(t, path)
		for _, d := range devices(t) {
			m, err := model.Load(c, model.Placement{Device: d}, model.Options{DType: model.Float32, Limits: pooling})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range g.Sequences {
				mean, last := pool(m, s.IDs, 0, len(s.IDs)), pool(m, s.IDs, len(s.IDs)-1, len(s.IDs))
				if len(s.Positions) == len(s.IDs) {
					checkLogits(t, path+" "+s.Name+" mean", read(t, c, mean), rowSum(g.tensors[s.Logits], len(s.IDs)))
				}
				if n := len(s.Positions); s.Positions[n-1] == len(s.IDs)-1 {
					logits := g.tensors[s.Logits]
					checkLogits(t, path+" "+s.Name+" last", read(t, c, last), logits[len(logits)-len(logits)/n:])
				}
				for _, rows := range []int{1, 3, 64, 65} {
					if parted := pool(m, s.IDs, 0, rows); !slices.Equal(parted, mean) {
						t.Errorf("%s %s on %s: steps of %d rows give other bits than one", path, s.Name, d.Name(), rows)
					}
				}
				if beside := poolTwo(m, g.Sequences[0].IDs, s.IDs); !slices.Equal(beside, mean) {
					t.Errorf("%s %s on %s: a text beside another gets other bits than alone", path, s.Name, d.Name())
				}
			}
			m.Close()
		}
	}
}

// pooling are limits with more sequences than limits has.
var pooling = model.Limits{Rows: 512, Sequences: 2, Wanted: 2, Pages: 16, Context: 512}

// checkLogits compares logits, or sums of them, within a share of their spread.
func checkLogits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if off := apart(got, want) / deviation(want); !(off <= 1e-4) {
		t.Errorf("%s: off by %.2g of their spread", what, off)
	}
}

// rowSum adds the rows of a matrix of that many.
func rowSum(v []float32, rows int) []float32 {
	cols := len(v) / rows
	out := make([]float32, cols)
	for col := range out {
		var sum float64
		for row := range rows {
			sum += float64(v[row*cols+col])
		}
		out[col] = float32(sum)
	}
	return out
}

// read multiplies a hidden state with the checkpoint's output matrix.
func read(t *testing.T, c *store.Checkpoint, hidden []float32) []float32 {
	t.Helper()
	name := "lm_head.weight"
	if !c.Has(name) {
		name = "model.embed_tokens.weight"
	}
	w, err := c.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	dim := len(hidden)
	values := make([]float32, w.Shape[0]*dim)
	w.Format.Decode(values, w.Data)
	out := make([]float32, w.Shape[0])
	for i := range out {
		var sum float64
		for j, h := range hidden {
			sum += float64(h) * float64(values[i*dim+j])
		}
		out[i] = float32(sum)
	}
	return out
}

// pool sums the hidden states of ids from position from on, in steps of so many rows.
func pool(m *model.Model, ids []int32, from, rows int) []float32 {
	sum := make([]float32, m.Spec().Dim)
	for past := 0; past < len(ids); past += rows {
		s, _ := pooledStep(m, [][]int32{ids[past:min(past+rows, len(ids))]}, past, from)
		s.Sums = [][]float32{sum}
		step(m, s)
	}
	return sum
}

// poolTwo sums all hidden states of two texts in one step and gives those of the second.
func poolTwo(m *model.Model, first, second []int32) []float32 {
	if len(first)+len(second) > pooling.Rows {
		return pool(m, second, 0, len(second))
	}
	s, sums := pooledStep(m, [][]int32{first, second}, 0, 0)
	s.Want = append(s.Want, 0) // a row whose logits are wanted changes nothing
	step(m, s)
	return sums[1]
}

// pooledStep is a step of several texts that begin at position past, of which what lies behind from is summed.
func pooledStep(m *model.Model, texts [][]int32, past, from int) (*model.Step, [][]float32) {
	s := &model.Step{}
	s.Reset()
	page := 0
	for _, ids := range texts {
		for i := range ids {
			if past+i >= from {
				s.Pool = append(s.Pool, int32(len(s.IDs)+i))
			}
		}
		s.IDs, s.Past = append(s.IDs, ids...), append(s.Past, int32(past))
		s.Start, s.PoolStart = append(s.Start, int32(len(s.IDs))), append(s.PoolStart, int32(len(s.Pool)))
		s.Sums = append(s.Sums, make([]float32, m.Spec().Dim))
		var pages []int32
		for range (past + len(ids) + attention.PageTokens - 1) / attention.PageTokens {
			pages = append(pages, int32(page))
			page++
		}
		s.Pages = append(s.Pages, pages)
	}
	return s, s.Sums
}

// step runs a step and reads its sums back.
func step(m *model.Model, s *model.Step) {
	m.Batch().Fill(m.Queue(), s)
	m.Forward(m.Batch())
	for i, sum := range s.Sums {
		model.ReadF32(m.Queue(), m.Batch().Pooled.Sums.Slice(i, i+1), sum)
	}
	if err := m.Queue().Sync(); err != nil {
		panic(err)
	}
}

// A text of which nothing is summed leaves its sum as it was.
func TestNothingPooled(t *testing.T) {
	c, err := store.Open("testdata/qwen3")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m, err := model.Load(c, model.Placement{Device: devices(t)[0]}, model.Options{Limits: pooling})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, sums := pooledStep(m, [][]int32{{1, 2, 3}}, 0, math.MaxInt)
	sums[0][0] = 7
	if step(m, s); sums[0][0] != 7 || slices.Max(sums[0][1:]) != 0 {
		t.Errorf("a sum of no rows changed: %v", sums[0])
	}
}

// Embedding models are published without the prefix that tells a network from what generates with it.
func TestBareNames(t *testing.T) {
	c, err := store.Open("testdata/llama_tied")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, w := range maps.Clone(c.Tensors) {
		delete(c.Tensors, name)
		c.Tensors[strings.TrimPrefix(name, "model.")] = w
	}
	m, err := model.Load(c, model.Placement{Device: devices(t)[0]}, model.Options{DType: model.Float32, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	g := readGoldens(t, "testdata/llama_tied")
	s := g.Sequences[1]
	checkLogits(t, s.Name, pick(run(m, s.IDs, 0), s.Positions, m.Spec().Vocab), g.tensors[s.Logits])
}
