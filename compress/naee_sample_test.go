package compress

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
)

// The outputs of a sample, added up by the router's weights, are as long as what the model's experts add to the stream.
func TestSamplesHoldTheExpertsOutputs(t *testing.T) {
	c := openDemo(t)
	ids := []int32{1, 40, 7, 300, 12, 5, 77, 240}
	norms := map[int][]float64{}
	watched := tensor.Observed(tensor.Reference(), func(op tensor.Op, read func(tensor.Mat) []byte) {
		if o, ok := op.(*moe.FFN); ok {
			layer, _ := layerOf(o.Banks[0].Gate.Name, "")
			y := tensor.HostMat("", o.Y.Format, o.Y.Rows, o.Y.Cols, read(o.Y)).F32()
			for i := range ids {
				norm, _ := measure(y[i*o.Y.Cols : (i+1)*o.Y.Cols])
				norms[layer] = append(norms[layer], norm)
			}
		}
	})
	seen, err := Capture(t.Context(), Listening{
		Checkpoint: c, Device: watched, Tokens: 8, Text: Text{Sequences: func(yield func([]int32, error) bool) { yield(ids, nil) }},
		Options: model.Options{DType: model.Float32, Limits: model.Limits{Context: 8, Rows: 8}},
	})
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	samples, err := Samples(t.Context(), c, tensor.Reference(), seen, func(done, total int) {
		if told++; done != told || total != 48 {
			t.Errorf("%d of %d experts", done, total)
		}
	})
	if err != nil || len(samples) != 6 || told != 48 {
		t.Fatal(len(samples), told, err)
	}
	for l, s := range samples {
		for row := range ids {
			var square float64
			for i, a := range s.weights(row, 1<<8-1) {
				for j, b := range s.weights(row, 1<<8-1) {
					square += a * b * s.inner[row][8*i+j]
				}
			}
			if got, want := math.Sqrt(square), norms[l][row]; math.Abs(got-want) > 1e-4*want {
				t.Errorf("layer %d, row %d: a norm of %v, the model's is %v", l, row, got, want)
			}
		}
	}
}

func TestNAEE(t *testing.T) {
	spec := modelOf(topK(3, 1), moe.RouterSpec{}, topK(16, 1))
	in := In{Spec: spec, Keep: 0.67, Samples: map[int]*Sample{}}
	for l, n := range map[int]int{0: 3, 2: 16} {
		s, err := NewSample(topK(n, 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		logits, outputs := make([]float32, n), make([]float32, n)
		for e := range n {
			outputs[e] = float32(e)
		}
		logits[n-1] = 9
		if err := s.Add(logits, outputs); err != nil {
			t.Fatal(err)
		}
		in.Samples[l] = s
	}
	p, err := NAEE(in)
	if err != nil || len(p.Overlay.Layers[0].Drop) != 0 || len(p.Overlay.Layers[2].Drop) != 5 || p.Overlay.Method != "naee" {
		t.Errorf("%+v, %v", p.Overlay, err)
	}
	for _, e := range p.Overlay.Layers[2].Drop {
		if e == 15 {
			t.Error("the only expert that was chosen goes")
		}
	}
	if wide := modelOf(moe.RouterSpec{}, topK(17, 2)); !errors.Is(allSearchable(&wide), ErrPlan) || !strings.Contains(allSearchable(&wide).Error(), "layer 1: every subset of 17") {
		t.Error(allSearchable(&wide))
	}
	for want, change := range map[string]func(*In){
		"layer 1: every subset of 17 experts": func(in *In) { in.Spec = modelOf(moe.RouterSpec{}, topK(17, 1)) },
		"layer 0: a search of subsets":        func(in *In) { in.Spec = modelOf(grouped(8, 2, 4, 2)) },
		"layer 2: method naee needs":          func(in *In) { in.Samples = map[int]*Sample{0: in.Samples[0]} },
		"as many experts in each":             func(in *In) { in.Ragged = true },
		"layer 0: 2 of 3 experts are to stay": func(in *In) { in.Keep, in.Floor = 0.5, 3 },
		"without experts":                     func(in *In) { in.Spec = modelOf(moe.RouterSpec{}) },
	} {
		bad := in
		change(&bad)
		if _, err := NAEE(bad); !errors.Is(err, ErrPlan) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
