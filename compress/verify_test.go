package compress_test

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// disturbed is a checkpoint whose router of layer 1 prefers other experts.
func disturbed(t *testing.T, c *store.Checkpoint) *store.Checkpoint {
	t.Helper()
	const name = "model.layers.1.mlp.gate.weight"
	out := *c
	out.Tensors = maps.Clone(c.Tensors)
	w, err := c.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	w.Data = slices.Clone(w.Data)
	for i := 0; i+1 < len(w.Data)/2; i += 2 { // the first half of the experts: BF16 values change their sign
		binary.LittleEndian.PutUint16(w.Data[i:], binary.LittleEndian.Uint16(w.Data[i:])^1<<15)
	}
	out.Tensors[name] = w
	return &out
}

func compared(t *testing.T, whole, changed *store.Checkpoint, rows int) compress.Comparison {
	t.Helper()
	on := func(c *store.Checkpoint) compress.Subject {
		return compress.Subject{Checkpoint: c, Device: tensor.Reference(), Options: model.Options{DType: model.Float32}}
	}
	var passed int64
	got, err := compress.Compare(t.Context(), compress.Trial{
		Whole: on(whole), Changed: on(changed), Text: said(script(320), nil), Context: longest, Rows: rows, Progress: func(n int64) { passed = n },
	})
	if err != nil || passed != 184 || got.Tokens != 184-7 {
		t.Fatalf("%v, %d tokens passed, %+v", err, passed, got)
	}
	return got
}

func TestAModelEqualsItself(t *testing.T) {
	for name, c := range checkpoints(t) {
		if name != "qwen3_moe" {
			continue
		}
		got := compared(t, c, c, 0)
		want := compress.Comparison{
			Tokens: got.Tokens, Whole: got.Whole, Changed: got.Whole, Greedy: 1, Routing: []compress.LayerShare{{Layer: 0, Share: 1}, {Layer: 1, Share: 1}, {Layer: 2, Share: 1}},
		}
		if !reflect.DeepEqual(got, want) || !(got.Whole > 1) {
			t.Errorf("%+v", got)
		}
	}
}

// Perplexities and divergence are those of a plain computation, whatever the steps; only what follows a change is changed.
func TestCompareEqualsAPlainComputation(t *testing.T) {
	for name, c := range checkpoints(t) {
		if name != "qwen3_moe" {
			continue
		}
		other := disturbed(t, c)
		got := compared(t, c, other, 0)
		for _, rows := range []int{16, 64, 200} {
			if again := compared(t, c, other, rows); !reflect.DeepEqual(again, got) {
				t.Errorf("in steps of %d rows: %+v, want %+v", rows, again, got)
			}
		}
		var nats [2]float64
		var kl, same float64
		for _, ids := range script(320) {
			p, q := probabilities(t, c, ids), probabilities(t, other, ids)
			for i := range len(ids) - 1 {
				nats[0] -= math.Log(p[i][ids[i+1]])
				nats[1] -= math.Log(q[i][ids[i+1]])
				for v := range p[i] {
					kl += p[i][v] * math.Log(p[i][v]/q[i][v])
				}
				if slices.Index(p[i], slices.Max(p[i])) == slices.Index(q[i], slices.Max(q[i])) {
					same++
				}
			}
		}
		n := float64(got.Tokens)
		for _, c := range []struct {
			name      string
			got, want float64
		}{
			{"whole", got.Whole, math.Exp(nats[0] / n)}, {"changed", got.Changed, math.Exp(nats[1] / n)}, {"KL", got.KL, kl / n},
			{"greedy", got.Greedy, same / n}, {"routing of layer 0", got.Routing[0].Share, 1},
		} {
			if math.Abs(c.got-c.want) > 1e-6*c.want {
				t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
			}
		}
		if share := got.Routing[1].Share; share > 0.9 || got.KL <= 0 || got.Greedy >= 1 {
			t.Errorf("a disturbed router shows in nothing: %+v", got)
		}
	}
}

// probabilities are those of the ids that follow each of a sequence's.
func probabilities(t *testing.T, c *store.Checkpoint, ids []int32) [][]float64 {
	t.Helper()
	n := len(ids)
	m, err := model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{
		DType: model.Float32, Limits: model.Limits{Rows: n, Sequences: 1, Wanted: n, Context: longest, Pages: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	step := model.Step{IDs: ids, Start: []int32{0, int32(n)}, Past: []int32{0}, Pages: [][]int32{{0, 1}}}
	for i := range n {
		step.Want = append(step.Want, int32(i))
	}
	m.Batch().Fill(m.Queue(), &step)
	logits := m.Forward(m.Batch())
	out := make([][]float64, n)
	for i := range out {
		sum := 0.0
		for _, v := range logits.F32()[i*logits.Cols : (i+1)*logits.Cols] {
			out[i] = append(out[i], math.Exp(float64(v)))
			sum += math.Exp(float64(v))
		}
		for j := range out[i] {
			out[i][j] /= sum
		}
	}
	return out
}

func TestWhatCannotBeCompared(t *testing.T) {
	dense, err := store.Open(filepath.Join("..", "model", "testdata", "llama_tied"))
	if err != nil {
		t.Fatal(err)
	}
	defer dense.Close()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for name, c := range checkpoints(t) {
		if name != "qwen3_moe" {
			continue
		}
		for _, bad := range []struct {
			ctx     context.Context
			changed *store.Checkpoint
			text    compress.Text
			context int
			want    error
		}{
			{t.Context(), dense, said(script(320), nil), longest, compress.ErrDiffer},
			{t.Context(), c, said(nil, nil), longest, compress.ErrText},
			{t.Context(), c, said([][]int32{{1}, {2}}, nil), longest, compress.ErrText},
			{t.Context(), c, said([][]int32{{1, 320}}, nil), longest, compress.ErrText},
			{t.Context(), c, said(script(320), nil), 1 << 20, compress.ErrText},
			{t.Context(), c, said(script(320), nil), 0, compress.ErrText},
			{t.Context(), c, said(script(320), errText), longest, errText},
			{stopped, c, said(script(320), nil), longest, context.Canceled},
		} {
			_, err := compress.Compare(bad.ctx, compress.Trial{
				Whole: compress.Subject{Checkpoint: c, Device: tensor.Reference()}, Changed: compress.Subject{Checkpoint: bad.changed, Device: tensor.Reference()},
				Text: bad.text, Context: bad.context, Rows: 16,
			})
			if !errors.Is(err, bad.want) {
				t.Errorf("%v, want %v", err, bad.want)
			}
		}
	}
}
