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
	for _, op := range w.At(0).Select {
		q.Run(op)
	}
	if have, want := w.Plan.Local.I32(), []int32{0, 0, 0, 1, 0}; !slices.Equal(have, want) {
		t.Errorf("windows of 4 start at %v, want %v; the last row is not in use", have, want)
	}
	if err := w.Plan.Check(l, 2); err != nil {
		t.Error(err)
	}
}

// Check finds a key that is read twice, one from the future and a range that leaves a row empty.
func TestPlanCheck(t *testing.T) {
	columnOf := func(v ...int32) tensor.Mat { return tensor.FromI32(len(v), 1, v) }
	l := &Layout{Pos: columnOf(200), Rows: columnOf(1)}
	for _, c := range []struct {
		name string
		plan Plan
		ok   bool
	}{
		{"everything", Plan{Sink: columnOf(0), Local: columnOf(0)}, true},
		{"all parts", Plan{Sink: columnOf(64), Local: columnOf(150), BlockAt: columnOf(0), BlockN: columnOf(1), Blocks: columnOf(1), KeyAt: columnOf(0), KeyN: columnOf(2), Keys: columnOf(128, 140)}, true},
		{"a block twice", Plan{Sink: columnOf(64), Local: columnOf(150), BlockAt: columnOf(0), BlockN: columnOf(1), Blocks: columnOf(0)}, false},
		{"a key of the range", Plan{Sink: columnOf(0), Local: columnOf(150), KeyAt: columnOf(0), KeyN: columnOf(1), Keys: columnOf(160)}, false},
		{"a block from the future", Plan{Sink: columnOf(0), Local: columnOf(190), BlockAt: columnOf(0), BlockN: columnOf(1), Blocks: columnOf(5)}, false},
		{"no keys", Plan{Sink: columnOf(64), Local: columnOf(201)}, false},
		{"half a block of sink", Plan{Sink: columnOf(32), Local: columnOf(100)}, false},
	} {
		c.plan.Groups = 1
		if err := c.plan.Check(l, 4); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
