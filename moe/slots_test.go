package moe_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/moe"
)

// filled follows what is in each slot, and fails where a wave runs an expert that is not there.
type filled struct {
	t     *testing.T
	slots *moe.Slots
	in    map[int32][2]int32 // slot -> layer and expert
	hits  int
	fills int
}

func newFilled(t *testing.T, experts, k []int, slots int) *filled {
	s, err := moe.NewSlots(experts, k, slots)
	if err != nil {
		t.Fatal(err)
	}
	return &filled{t: t, slots: s, in: map[int32][2]int32{}}
}

func (f *filled) step(layer int, need ...int32) moe.Resolution {
	f.t.Helper()
	r, ran := f.slots.Resolve(layer, need), []int32{}
	f.hits += r.Hits
	for _, w := range r.Waves {
		f.fills += len(w.Fills)
		for _, b := range w.Fills {
			f.in[b.Slot] = [2]int32{int32(layer), b.Expert}
		}
		for e, slot := range w.Slot {
			if slot >= 0 {
				ran = append(ran, int32(e))
				if f.in[slot] != [2]int32{int32(layer), int32(e)} {
					f.t.Fatalf("layer %d runs expert %d of slot %d, which holds %v", layer, e, slot, f.in[slot])
				}
			}
		}
	}
	slices.Sort(ran)
	if want := slices.Sorted(slices.Values(need)); !slices.Equal(ran, want) {
		f.t.Fatalf("layer %d ran %v, want %v", layer, ran, want)
	}
	if err := f.slots.Check(); err != nil {
		f.t.Fatal(err)
	}
	return r
}

func TestSlotsKeepTheLastUsed(t *testing.T) {
	f := newFilled(t, []int{3}, []int{1}, 3+3)
	if f.slots.Share(0) != 3 {
		t.Fatalf("a share of %d", f.slots.Share(0))
	}
	f = newFilled(t, []int{8}, []int{0}, 8+2) // two slots beside the passage
	for _, need := range [][]int32{{0, 1}, {0, 2}, {1, 2}} {
		f.step(0, need...)
	}
	if f.hits != 2 || f.fills != 4 {
		t.Errorf("%d of 6 were there and %d were brought, want 2 and 4", f.hits, f.fills)
	}
}

// A step that needs more than the share leaves what is there as it is.
func TestSlotsOfALongPrompt(t *testing.T) {
	f := newFilled(t, []int{20, 20}, []int{2, 2}, 8+4+4)
	f.step(0, 1, 2)
	f.step(0, 3, 4)
	all := []int32{}
	for e := range int32(20) {
		all = append(all, e)
	}
	if r := f.step(0, all...); len(r.Waves) != 3 || r.Hits != 4 {
		t.Errorf("%d waves, %d hits, want 3 and 4: those that are there, and 16 through a passage of 8", len(r.Waves), r.Hits)
	}
	for _, e := range []int32{1, 2, 3, 4} {
		if !f.slots.Holds(0, e) {
			t.Errorf("expert %d has gone", e)
		}
	}
	if r := f.step(1, all...); r.Hits != 0 {
		t.Error("hits where nothing was")
	}
	if !f.slots.Holds(1, 0) || f.slots.Holds(1, 19) {
		t.Error("free slots are not filled first")
	}
}

// Where one layer always needs the same and another changes, slots go to the one that gains, and never below what a token needs.
func TestSlotsFollowNeed(t *testing.T) {
	f := newFilled(t, []int{32, 32}, []int{2, 2}, 8+12+12)
	r := rand.New(rand.NewPCG(1, 2))
	for range 3 * 4096 {
		f.step(0, 0, 1)
		a := r.Int32N(20)
		f.step(1, a, (a+1+r.Int32N(19))%20)
	}
	if f.slots.Share(0) >= 12 || f.slots.Share(1) <= 12 || f.slots.Share(0) < 2 {
		t.Errorf("shares %d and %d", f.slots.Share(0), f.slots.Share(1))
	}
}

func TestSlotsForget(t *testing.T) {
	f := newFilled(t, []int{16}, []int{2}, 8+4)
	r := f.slots.Resolve(0, []int32{5})
	f.slots.Forget(0, r.Waves[0].Fills[0])
	if f.slots.Holds(0, 5) {
		t.Error("an expert that did not come is said to be there")
	}
	if err := f.slots.Check(); err != nil {
		t.Error(err)
	}
}

func TestSlotsNeedRoom(t *testing.T) {
	if least := moe.LeastSlots([]int{16, 16}, []int{4, 2}); least != 8+6 {
		t.Errorf("least is %d", least)
	}
	if _, err := moe.NewSlots([]int{16, 16}, []int{4, 2}, 13); err == nil {
		t.Error("13 slots are taken for enough")
	}
}

func TestSlotsAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		experts, k := []int{}, []int{}
		for range 1 + r.IntN(4) {
			n := 1 + r.IntN(24)
			experts, k = append(experts, n), append(k, 1+r.IntN(min(n, 8)))
		}
		f := newFilled(t, experts, k, moe.LeastSlots(experts, k)+r.IntN(40))
		for range 200 {
			layer := r.IntN(len(experts))
			need := []int32{}
			for _, e := range r.Perm(experts[layer])[:1+r.IntN(experts[layer])] {
				need = append(need, int32(e))
			}
			f.step(layer, need...)
		}
	}
}
