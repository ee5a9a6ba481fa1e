package compress

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// What was overheard, once it is turned, is what attention gets: with head norms and without, of sequences shorter and longer than a step, to
// the bit.
func TestEavesdropperHearsWhatAttentionReads(t *testing.T) {
	for _, name := range []string{"qwen3", "llama_tied"} {
		c, err := store.Open(filepath.Join("..", "model", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		spec, err := model.Describe(c)
		if err != nil {
			t.Fatal(err)
		}
		size, err := model.GateSizes(&spec)
		if err != nil {
			t.Fatal(err)
		}
		e := &eavesdropper{layers: make([]reading, len(spec.Layers))}
		var q, k [][]float32 // by layer, what attention got
		at := 0
		see := func(op tensor.Op, read func(tensor.Mat) []byte) {
			e.see(op, read)
			floats := func(m, n tensor.Mat) []float32 {
				rows := int(tensor.HostMat("", quant.I32, 1, 1, read(n)).I32()[0])
				return tensor.HostMat("", quant.F32, rows, m.Cols, read(m.Slice(0, rows))).F32()
			}
			switch op := op.(type) {
			case *attention.Append:
				k[at] = append(k[at], floats(op.K, op.Layout.Rows)...)
			case *attention.Attend:
				q[at] = append(q[at], floats(op.Q, op.Layout.Rows)...)
				at = (at + 1) % len(k)
			}
		}
		opt := model.Options{DType: model.Float32, Limits: walkLimits(model.Limits{Rows: 64, Context: 200})}
		m, err := model.Load(c, model.Placement{Device: tensor.Observed(tensor.Reference(), see)}, opt)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		e.walk = walk{models: []*model.Model{m}, after: func(*model.Step) error { return nil }}
		to := newTurns(spec.Layers[0].Rope, 200)
		for _, n := range []int{150, 40, 200} { // each forgets the one before
			q, k = make([][]float32, len(spec.Layers)), make([][]float32, len(spec.Layers))
			ids := make([]int32, n)
			for i := range ids {
				ids[i] = int32(i * i % 300)
			}
			if err := e.read(t.Context(), ids); err != nil {
				t.Fatal(err)
			}
			for l := range e.layers {
				a := e.layers[l].attend(size, 1, to)
				if len(a.q) != n*size.Query*size.Dim || !slices.Equal(a.q, q[l]) || !slices.Equal(a.k, k[l]) {
					t.Errorf("%s: layer %d of %d tokens: other queries or keys than attention's", name, l, n)
				}
			}
		}
	}
}
