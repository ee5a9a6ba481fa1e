package engine

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// fewExperts is a model that has as few of its experts in memory as it runs with.
func fewExperts(t *testing.T) *model.Model {
	t.Helper()
	c, err := store.Open("../model/testdata/qwen3_moe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	limits := model.Limits{Rows: 24, Sequences: 6, Wanted: 6, Pages: 16, Context: 256}
	var m *model.Model
	for bytes := int64(1 << 10); m == nil || !m.ReadsExperts(); bytes += bytes / 8 { // the least that it runs with
		if m != nil {
			t.Fatal("all experts fit where fewer bytes were too few")
		}
		m, err = model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{DType: model.Float32, Limits: limits, ExpertBytes: bytes})
		if err != nil && bytes > 1<<30 {
			t.Fatal(err)
		}
	}
	t.Cleanup(m.Close)
	return m
}

// A model that has few of its experts in memory answers requests together as one that has all of them answers each alone.
func TestResidentExpertsAreIndependent(t *testing.T) {
	m := fewExperts(t)
	l := NewLoop()
	defer l.Close()
	e := l.Open(m, Options{Check: true, Queue: 16})
	all := requests(8)
	want := alone(t, all)
	for i, got := range together(t, e, all) {
		if err := same(got, want[i]); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	e.Close()
	var misses int64
	for _, traffic := range m.ExpertTraffic() {
		misses += traffic.Misses
	}
	if misses == 0 {
		t.Error("no expert was read")
	}
}

// While requests run, the memory of experts becomes less and more all the time: the answers stay, to the bit, and nobody waits for ever.
func TestExpertsAreResizedUnderLoad(t *testing.T) {
	m := fewExperts(t)
	least := m.ExpertBytes()
	l := NewLoop()
	defer l.Close()
	e := l.Open(m, Options{Check: true, Queue: 16})
	all := requests(8)
	want := alone(t, all)
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		r, times := rand.New(rand.NewPCG(5, 6)), 0
		defer func() { stopped <- times }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			bytes := least + r.Int64N(2*least)
			if took, err := e.ResizeExperts(bytes); err != nil || took < least || took > bytes {
				t.Errorf("%d bytes: %d, %v", bytes, took, err)
				return
			}
			if took, err := e.ResizeExperts(least / 2); !errors.Is(err, model.ErrExpertBytes) || took < least {
				t.Errorf("half of the least: %d, %v", took, err)
				return
			}
			times++
		}
	}()
	for range 3 {
		for i, got := range together(t, e, all) {
			if err := same(got, want[i]); err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		}
	}
	close(stop)
	if times := <-stopped; times < 5 {
		t.Errorf("resized %d times", times)
	}
	e.Close()
	if _, err := e.ResizeExperts(least); !errors.Is(err, ErrClosed) || e.ExpertBytes() != 0 {
		t.Errorf("a closed engine: %v", err)
	}
}
