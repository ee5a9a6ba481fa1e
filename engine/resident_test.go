package engine

import (
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// A model that has few of its experts in memory answers requests together as one that has all of them answers each alone.
func TestResidentExpertsAreIndependent(t *testing.T) {
	c, err := store.Open("../model/testdata/qwen3_moe")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
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
	defer m.Close()
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
