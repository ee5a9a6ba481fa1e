package model_test

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

var tiedLimits = model.Limits{Rows: 200, Sequences: 1, Wanted: 1, Context: 256, Pages: 4}

// few are selections that leave pages out of 200 tokens.
var few = map[model.GateKind]model.Selection{
	model.SeerPrefill: {Name: "seer", Knobs: []float32{0.4}, Params: map[string]float64{"sink": 0, "last_block_dense": 0}},
	model.SeerDecode:  {Name: "seer_decode", Knobs: []float32{64}},
}

// lastLogits are those behind 200 tokens: of a prompt, or with the last one generated. Without gates everything is read.
func lastLogits(t *testing.T, c *store.Checkpoint, kind model.GateKind, gates *model.Gates) []float32 {
	t.Helper()
	opt, reading, prompt := model.Options{DType: model.Float32, Limits: tiedLimits}, model.Reading{}, 200
	if gates != nil {
		opt.Sparse, opt.Gates = []model.Selection{few[kind]}, []*model.Gates{gates}
		if reading.Prefill = string(kind); kind == model.SeerDecode {
			reading, prompt = model.Reading{Decode: string(kind)}, 199
		}
	}
	m, err := model.Load(c, model.Placement{Device: tensor.Reference()}, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	policy, err := m.Policy(&reading)
	if err != nil {
		t.Fatal(err)
	}
	var step model.Step
	step.Reset()
	for i := range 200 {
		step.IDs = append(step.IDs, int32(i*i%509))
	}
	step.Start, step.Past, step.Pages = append(step.Start, 200), append(step.Past, 0), append(step.Pages, []int32{0, 1, 2, 3})
	step.Prompts, step.Policies, step.Want = append(step.Prompts, int32(prompt)), append(step.Policies, &policy), append(step.Want, 199)
	m.Batch().Fill(m.Queue(), &step)
	m.Forward(m.Batch())
	out := make([]float32, m.Spec().Vocab)
	model.ReadF32(m.Queue(), m.Batch().Logits.Slice(0, 1), out)
	if err := m.Queue().Sync(); err != nil {
		t.Fatal(err)
	}
	return out
}

// A model reads what its gates choose, the same from a folder, whose heads turn halves, and from a GGUF, whose heads turn neighbours.
func TestGatesOnADevice(t *testing.T) {
	folder := openTied(t)
	file := asGGUF(t, folder)
	differ := func(a, b []float32) (most float64) {
		for i, v := range a {
			most = max(most, math.Abs(float64(v-b[i])))
		}
		return most
	}
	for kind := range few {
		path := filepath.Join(t.TempDir(), "gates.gguf")
		if err := model.WriteGates(t.Context(), path, tied(t, folder, kind), quant.BF16); err != nil {
			t.Fatal(err)
		}
		var read [2][]float32
		for i, c := range []*store.Checkpoint{folder, file} {
			g, err := model.DescribeGates(path, c)
			if err != nil || g.File != path || !g.Half || g.Layer[1].Key != nil {
				t.Fatalf("%s: %+v, %v", kind, g, err)
			}
			read[i] = lastLogits(t, c, kind, g)
		}
		other, err := model.OpenGates(path, folder) // in an order that is not the file's
		if err != nil {
			t.Fatal(err)
		}
		all := lastLogits(t, folder, kind, nil)
		if differ(read[0], read[1]) > 1e-3 || differ(read[0], all) < 1e-2 || differ(lastLogits(t, file, kind, other), read[1]) < 1e-2 {
			t.Errorf("%s: from a folder and a GGUF %v apart, from all keys %v, with gates of the wrong order %v", kind, differ(read[0], read[1]),
				differ(read[0], all), differ(lastLogits(t, file, kind, other), read[1]))
		}
	}
}

// The memory of gates is counted before they are read, and what they leave in the cache is told apart by their values.
func TestGatesAreCountedAndNamed(t *testing.T) {
	c := openTied(t)
	spec, err := model.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	g := tied(t, c, model.SeerPrefill)
	described := *g
	described.Layer = make([]model.GateLayer, len(g.Layer))
	opt := model.Options{DType: model.Float32, Limits: tiedLimits, Sparse: []model.Selection{{Name: "seer"}}, Gates: []*model.Gates{&described}}
	bytes, err := spec.BufferBytes(opt)
	if err != nil {
		t.Fatal(err)
	}
	described.Half = true
	if half, err := spec.BufferBytes(opt); err != nil || bytes-half != 3*4*48*16*2 {
		t.Errorf("%d bytes, %d with gates of half the size, %v", bytes, half, err)
	}
	cached := func(g *model.Gates) string {
		opt.Gates = []*model.Gates{g}
		m, err := model.Load(c, model.Placement{Device: tensor.Reference()}, opt)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		p, err := m.Policy(&model.Reading{Prefill: "seer"})
		if err != nil {
			t.Fatal(err)
		}
		return p.Cached
	}
	one := cached(g)
	if again := cached(g); one != again {
		t.Errorf("%s and %s for the same gates", one, again)
	}
	if g.Layer[2].Key[7]++; cached(g) == one {
		t.Errorf("%s for other gates", one)
	}
}

func TestGatesThatAreMissing(t *testing.T) {
	c := openTied(t)
	seer := tied(t, c, model.SeerPrefill)
	for want, gates := range map[string][]*model.Gates{
		"seer scores with trained gates, and gates names no file of seer gates of this model": {tied(t, c, model.SeerDecode)},
		"there are two files of seer gates":                                                   {seer, seer},
	} {
		_, err := model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{Limits: tiedLimits, Sparse: []model.Selection{{Name: "seer"}}, Gates: gates})
		if !errors.Is(err, model.ErrSparse) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
