package attention

import (
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
