package attention

import (
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/tensor"
)

// Of 640 keys before a run, 399 are listed and 400 are not: all are read then.
func TestRunsReadEverythingWhereLittleIsLeftOut(t *testing.T) {
	for keys, local := range map[int]int32{15: 576, 16: 0} {
		p, err := NewPlan(tensor.Reference(), &Tiles{Policy: tensor.FromI32(1, 1, []int32{0})}, 1, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		p.writeRun(run{tiles: 1, rows: 64, pos: 640}, 0, [2]int{64, 576}, []int32{2, 4, 5, 6}, make([]int32, keys))
		if sink, at, blocks, single := p.Sink.I32()[0], p.Local.I32()[0], len(p.blocks(0)), len(p.single(0)); at != local || (local == 0) != (sink+int32(blocks+single) == 0) {
			t.Errorf("with %d single keys, %d and %d blocks and %d keys are read, and those from %d on", keys, sink, blocks, single, at)
		}
	}
}

func TestSplitMakesBlocksOfPagesWithMostKeys(t *testing.T) {
	chosen := []int32{64, 70, 128, 129, 130, 200, 300, 301}
	for _, c := range []struct {
		single, room int
		blocks, keys []int32
	}{
		{64, 100, nil, chosen},
		{2, 100, []int32{2}, []int32{64, 70, 200, 300, 301}},
		{64, 7, []int32{2}, []int32{64, 70, 200, 300, 301}},
		{64, 4, []int32{2, 4}, []int32{64, 70, 200}},
		{64, 2, []int32{1, 2, 4}, []int32{200}},
		{1, 4, []int32{1, 2, 4}, []int32{200}},
		{64, 0, []int32{1, 2, 3, 4}, nil},
	} {
		if blocks, keys := split(chosen, c.single, c.room); !slices.Equal(blocks, c.blocks) || !slices.Equal(keys, c.keys) {
			t.Errorf("at most %d keys of a page, room for %d: blocks %v, keys %v", c.single, c.room, blocks, keys)
		}
	}
	whole := make([]int32, 2*PageTokens)
	for i := range whole {
		whole[i] = int32(i)
	}
	if blocks, keys := split(whole, PageTokens-1, 1000); len(keys) > 0 || !slices.Equal(blocks, []int32{0, 1}) {
		t.Errorf("whole pages: blocks %v, keys %v", blocks, keys)
	}
}
