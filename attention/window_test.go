package attention

import (
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/tensor"
)

func TestWindowStarts(t *testing.T) {
	l := &Layout{Pos: tensor.FromI32(5, 1, []int32{0, 2, 3, 4, 100}), Rows: tensor.FromI32(1, 1, []int32{4})}
	w, err := NewWindow(tensor.Reference(), l, 5, 4)
	if err != nil {
		t.Fatal(err)
	}
	q := tensor.Reference().Queue()
	for _, op := range w.Select(0) {
		q.Run(op)
	}
	if have, want := w.Plan().Local.I32(), []int32{0, 0, 0, 1, 0}; !slices.Equal(have, want) {
		t.Errorf("windows of 4 start at %v, want %v; the last row is not in use", have, want)
	}
	if err := w.Plan().Check(l, 2); err != nil {
		t.Error(err)
	}
}

// Check finds a key that is read twice, one from the future and a range that leaves a row empty.
func TestPlanCheck(t *testing.T) {
	column := func(v ...int32) tensor.Mat { return tensor.FromI32(len(v), 1, v) }
	l := &Layout{Pos: column(200), Rows: column(1)}
	for _, c := range []struct {
		name string
		plan Plan
		ok   bool
	}{
		{"everything", Plan{Sink: column(0), Local: column(0)}, true},
		{"all parts", Plan{Sink: column(64), Local: column(150), BlockPtr: column(0, 1), Blocks: column(1), KeyPtr: column(0, 2), Keys: column(128, 140)}, true},
		{"a block twice", Plan{Sink: column(64), Local: column(150), BlockPtr: column(0, 1), Blocks: column(0)}, false},
		{"a key of the range", Plan{Sink: column(0), Local: column(150), KeyPtr: column(0, 1), Keys: column(160)}, false},
		{"a block from the future", Plan{Sink: column(0), Local: column(190), BlockPtr: column(0, 1), Blocks: column(5)}, false},
		{"no keys", Plan{Sink: column(64), Local: column(201)}, false},
		{"half a block of sink", Plan{Sink: column(32), Local: column(100)}, false},
	} {
		c.plan.Tile, c.plan.Groups = 1, 1
		if err := c.plan.Check(l, 4); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
