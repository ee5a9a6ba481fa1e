package compress_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// sequences are a text of so many sequences, each the ids of text by another step.
func sequences(n int) compress.Text {
	return compress.Text{Sequences: func(yield func([]int32, error) bool) {
		for i := range n {
			ids := slices.Clone(text)
			for j := range ids {
				ids[j] = (ids[j]*int32(i+1) + int32(j*i)) % 4000
			}
			if !yield(ids, nil) {
				return
			}
		}
	}}
}

// fastest is a device of this machine.
func fastest(t *testing.T) tensor.Device {
	all := devices(t)
	return all[len(all)-1]
}

func captured(t *testing.T, c *store.Checkpoint, rows int) map[int]*compress.Captured {
	t.Helper()
	seen, err := compress.Capture(t.Context(), compress.Listening{
		Checkpoint: c, Device: fastest(t), Text: sequences(20), Tokens: 240, Held: compress.HeldOut,
		Options: model.Options{DType: model.Float32, Limits: model.Limits{Context: 32, Rows: rows}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// What is captured does not depend on steps, is of every fifth sequence held out, and gives the choices of the model's own router.
func TestCapture(t *testing.T) {
	c := demoModel(t)
	seen, again := captured(t, c, 0), captured(t, c, 5)
	for l := range 6 {
		if a, b := seen[l], again[l]; len(a.Rows) != 16*12*256 || len(a.Held) != 4*12*256 || !slices.Equal(a.Rows, b.Rows) || !slices.Equal(a.Held, b.Held) {
			t.Fatalf("layer %d: %d and %d numbers, or other ones in steps of 5 rows", l, len(a.Rows), len(a.Held))
		}
	}
	var ids []int32 // of layer 0's router, over the first sequences that are held out
	watched := tensor.Observed(tensor.Reference(), func(op tensor.Op, read func(tensor.Mat) []byte) {
		if o, ok := op.(*moe.Route); ok && o.W.Name == "blk.0.ffn_gate_inp.weight" {
			ids = append(ids, tensor.HostMat("", o.IDs.Format, o.IDs.Rows, o.IDs.Cols, read(o.IDs)).I32()[:24]...)
		}
	})
	if _, err := compress.Capture(t.Context(), compress.Listening{
		Checkpoint: c, Device: watched, Text: sequences(20).Only(compress.HeldOut), Tokens: 48,
		Options: model.Options{DType: model.Float32, Limits: model.Limits{Context: 32, Rows: 12}},
	}); err != nil {
		t.Fatal(err)
	}
	layers, err := compress.FitShortlists(t.Context(), c, seen, moe.Fitting{Sizes: []int{8}, Recall: 1}, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	g := layers[0].Gate
	for i := range 48 {
		out := moe.Choice{IDs: make([]int32, 2), Weights: make([]float32, 2)}
		g.Spec.Choose(g.Logits(seen[0].Held[i*256:(i+1)*256]), nil, moe.EveryExpert(8).Phys, out)
		if !slices.Equal(out.IDs, ids[2*i:2*i+2]) {
			t.Errorf("row %d: %v, the model chose %v", i, out.IDs, ids[2*i:2*i+2])
		}
	}
}

func TestCaptureRefuses(t *testing.T) {
	good := compress.Listening{Checkpoint: demoModel(t), Device: tensor.Reference(), Text: sequences(1), Tokens: 12, Options: model.Options{Limits: model.Limits{Context: 32}}}
	for want, change := range map[string]func(*compress.Listening){
		"tokens are kept": func(l *compress.Listening) { l.Tokens = 1 << 40 },
		"made for 1 to":   func(l *compress.Listening) { l.Options.Limits.Context = 1 << 20 },
		"no tokens":       func(l *compress.Listening) { l.Text = sequences(0) },
		"want 1 to 8":     func(l *compress.Listening) { l.Options.Limits.Context = 8 },
	} {
		l := good
		change(&l)
		if _, err := compress.Capture(t.Context(), l); !errors.Is(err, compress.ErrText) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A file with shortlists runs, and with shortlists of all experts computes what the model does, to the tolerance of logits that
// are summed in another order, where inputs are then rounded to 12 bits.
func TestShortlistsInAFile(t *testing.T) {
	c := demoModel(t)
	layers, err := compress.FitShortlists(t.Context(), c, captured(t, c, 0), moe.Fitting{Sizes: []int{8}, Recall: 1}, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	view, err := compress.WithShortlists(c, layers)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s.gguf")
	if err := compress.WriteCopy(t.Context(), view, path, nil); err != nil {
		t.Fatal(err)
	}
	if err := compress.WriteCopy(t.Context(), view, path, nil); !errors.Is(err, store.ErrExists) {
		t.Error(err)
	}
	small, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if small.Fingerprint() != view.Fingerprint() || small.Size() != view.Size() || small.Fingerprint() == c.Fingerprint() {
		t.Error("the file has other tensors than what was measured")
	}
	d := fastest(t)
	want := logits(t, c, d)
	for i, v := range logits(t, small, d) {
		if v-want[i] > 1e-2 || want[i]-v > 1e-2 {
			t.Fatalf("%s: logit %d is %v, want %v", d.Name(), i, v, want[i])
		}
	}
	router, shortlist, err := layers[0].Time(tensor.Reference(), make([]float32, 3*256))
	if err != nil || router <= 0 || shortlist <= 0 {
		t.Errorf("%v and %v, %v", router, shortlist, err)
	}
}

func TestShortlistsRefuse(t *testing.T) {
	c := demoModel(t)
	seen, ask, quiet := captured(t, c, 0), moe.Fitting{Sizes: []int{2}, Recall: 1}, func(int, int) {}
	layers, err := compress.FitShortlists(t.Context(), c, seen, ask, quiet)
	var short *compress.ShortlistError
	var low *moe.LowRecall
	if err != nil || len(layers) != 6 || !errors.As(layers[5].Err, &short) || short.Layer != 5 || !errors.As(short, &low) || !(low.Recall > 0 && low.Recall < 1) {
		t.Errorf("%+v, %v", layers, err)
	}
	whole := c.With(store.Meta{"qwen3moe.expert_weights_norm": false}, nil)
	if layers, err = compress.FitShortlists(t.Context(), whole, seen, ask, quiet); err != nil || !errors.Is(layers[0].Err, moe.ErrConvert) {
		t.Errorf("a softmax that is not renormalised: %v", err)
	}
	delete(seen, 3)
	if _, err := compress.FitShortlists(t.Context(), c, seen, ask, quiet); !errors.Is(err, compress.ErrPlan) || !strings.Contains(err.Error(), "layer 3") {
		t.Error(err)
	}
	var worse *compress.WorseError
	if err := (compress.Comparison{Whole: 10, Changed: 10.1}).Worse(0.005); !errors.As(err, &worse) || !strings.Contains(err.Error(), "+1.000 %") {
		t.Error(err)
	}
	if err := (compress.Comparison{Whole: 10, Changed: 10.04}).Worse(0.005); err != nil {
		t.Error(err)
	}
}
