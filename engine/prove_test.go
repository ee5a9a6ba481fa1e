package engine_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/tensor"
)

// forger is a device on which a selector writes what a test has it write, after the calls-th of its ops from now on.
type forger struct {
	tensor.Device
	calls atomic.Int32
	forge func(p *attention.Plan) // set while nobody asks
}

func (f *forger) Queue() tensor.Queue { return &forging{f.Device.Queue(), f} }

type forging struct {
	tensor.Queue
	forger *forger
}

func (q *forging) Run(op tensor.Op) {
	q.Queue.Run(op)
	if o, ok := op.(*attention.SelectRanges); ok && o.Serves > 0 && q.forger.calls.Add(-1) == 0 {
		if err := q.Queue.Sync(); err != nil {
			panic(err)
		}
		q.forger.forge(o.Plan)
	}
}

// A plan that breaks an invariant fails who reads by it, with layer, row and invariant, and nobody else: it is not executed, and the next one who asks
// gets what he would have got.
func TestPlansAreProved(t *testing.T) {
	kernels, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := &forger{Device: kernels}
	lim := model.Limits{Rows: 512, Sequences: 4, Wanted: 4, Pages: 40, Context: 512}
	e, _ := openedOn(t, d, model.Options{Limits: lim, Sparse: sparse}, engine.Options{})
	ask := engine.Request{Prompt: long(330), MaxTokens: 20, Alternatives: 3, Reads: &model.Reading{Prefill: "streaming", Decode: "streaming"}}
	want, err := answer(e, ask)
	if err != nil {
		t.Fatal(err)
	}
	// The last tile of the prompt, in the second head; its first row is at position 320. After a hit the prompt's last 10 rows are computed.
	const tile, position, row, layer = 0, 320, 0, 2
	write := func(sink, local int, blocks, keys []int32) func(*attention.Plan, int) {
		return func(p *attention.Plan, r int) { p.Write(r, sink, local, blocks, keys) }
	}
	for _, c := range []struct {
		invariant attention.Invariant
		forge     func(p *attention.Plan, r int)
		why       string // part of it
	}{
		{attention.Fits, func(p *attention.Plan, r int) { p.BlockN.I32()[r] = 1 << 30 }, "blocks"},
		{attention.Fits, func(p *attention.Plan, r int) { p.KeyAt.I32()[r] = -1 }, "keys"},
		{attention.Fits, func(p *attention.Plan, r int) { p.KeyN.I32()[r] = -1 }, "keys"},
		{attention.Whole, write(32, 64, nil, nil), "sink 32"},
		{attention.Whole, write(-64, 64, nil, nil), "sink -64"},
		{attention.Disjoint, write(128, 64, nil, nil), "local 64"},
		{attention.Diagonal, write(64, 321, nil, nil), "local 321"},
		{attention.Disjoint, write(64, 256, []int32{1, 1}, nil), "block 1 twice"},
		{attention.Disjoint, write(64, 256, []int32{0}, nil), "block 0"},
		{attention.Disjoint, write(64, 256, []int32{-1}, nil), "block -1"},
		{attention.Sorted, write(64, 256, []int32{3, 2}, nil), "block 2 after block 3"},
		{attention.Before, write(64, 250, []int32{3}, nil), "block 3"},
		{attention.Before, write(64, 256, []int32{1<<31 - 1}, nil), "block 2147483647"},
		{attention.Disjoint, write(64, 256, nil, []int32{100, 100}), "key 100 twice"},
		{attention.Disjoint, write(64, 256, []int32{2}, []int32{70, 130}), "key 130"},
		{attention.Disjoint, write(64, 256, nil, []int32{63}), "key 63"},
		{attention.Sorted, write(64, 256, nil, []int32{200, 100}), "key 100 after key 200"},
		{attention.Before, write(64, 256, nil, []int32{200, 256}), "key 256"},
	} {
		d.forge = func(p *attention.Plan) { c.forge(p, tile*p.Groups+1) }
		d.calls.Store(layer + 1)
		before := e.Usage().Failed
		_, err := answer(e, ask)
		var broken *model.PlanError
		if !errors.Is(err, engine.ErrStep) || !errors.As(err, &broken) {
			t.Errorf("%s: %v", c.why, err)
			continue
		}
		if broken.Layer != layer || broken.Row != row || broken.Position != position || broken.Invariant != c.invariant || !slices.Contains(broken.Selectors, "streaming") || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s %s: %v", c.invariant, c.why, err)
		}
		if u := e.Usage(); u.Failed != before+1 || u.PagesUsed != 0 {
			t.Errorf("%s: %d failed, %d pages are left", c.why, u.Failed-before, u.PagesUsed)
		}
		if got, err := answer(e, ask); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("after %q: %v, %d tokens, other than before", c.why, err, len(got))
		}
	}
}
