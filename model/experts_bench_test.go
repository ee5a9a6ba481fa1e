package model_test

import (
	"io"
	"slices"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// uncounted is a device that counts no experts.
type uncounted struct{ tensor.Device }

func (d uncounted) Queue() tensor.Queue { return uncountedQueue{d.Device.Queue()} }

type uncountedQueue struct{ tensor.Queue }

func (q uncountedQueue) Run(op tensor.Op) {
	if _, ok := op.(*moe.Tally); !ok {
		q.Queue.Run(op)
	}
}

// BenchmarkExpertCounts is a step of one row of the embedded model on one thread: without counts of experts, with them as always, and with what a
// request costs beside that makes wishes and asks for figures. They take turns, and the fastest tenth of each counts, so that what else the machine does
// is in none. The model is so small that costs show which in others do not.
func BenchmarkExpertCounts(b *testing.B) {
	d, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		b.Fatal(err)
	}
	if closer, ok := d.(io.Closer); ok {
		b.Cleanup(func() {
			if err := closer.Close(); err != nil {
				b.Error(err)
			}
		})
	}
	plain, counted := benched(b, uncounted{d}), benched(b, d)
	line, err := counted.Spec().Wish(&model.Experts{MinP: 1e-6}) // which changes nothing but the path
	if err != nil {
		b.Fatal(err)
	}
	step := model.Step{IDs: []int32{5}, Start: []int32{0, 1}, Past: []int32{9}, Pages: [][]int32{{0}}, Want: []int32{0}}
	wishing := step
	wishing.Wishes = [][]float32{line}
	var out model.Routed
	kinds := []struct {
		name string
		run  func()
		took []time.Duration
	}{
		{name: "uncounted", run: func() { steps(b, plain, &step) }},
		{name: "counted", run: func() { steps(b, counted, &step) }},
		{name: "asked", run: func() {
			steps(b, counted, &wishing)
			for at := range counted.Spec().ExpertLayers() {
				counted.Routed(at, 0, 1, &out)
			}
		}},
	}
	for b.Loop() {
		for i := range kinds {
			started := time.Now()
			kinds[i].run()
			kinds[i].took = append(kinds[i].took, time.Since(started))
		}
	}
	for _, k := range kinds {
		slices.Sort(k.took)
		b.ReportMetric(float64(k.took[len(k.took)/10].Nanoseconds()), k.name+"-ns")
	}
}

func benched(b *testing.B, d tensor.Device) *model.Model {
	b.Helper()
	c, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		b.Fatal(err)
	}
	m, err := model.Load(c, model.Placement{Device: d}, model.Options{Limits: model.Limits{Rows: 8, Sequences: 1, Wanted: 1, Pages: 1, Context: 64}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(m.Close)
	return m
}

func steps(b *testing.B, m *model.Model, step *model.Step) {
	m.Batch().Fill(m.Queue(), step)
	m.Forward(m.Batch())
	if err := m.Queue().Sync(); err != nil {
		b.Fatal(err)
	}
}
