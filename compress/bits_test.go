package compress

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// someUnits makes a model's worth of units: layers of experts, each layer with two matrices of attention and a shared expert.
func someUnits(r *rand.Rand, layers, experts int) (units []Unit) {
	make1 := func(kind Kind, layer, expert int, values int64, weight float64) Unit {
		u := Unit{Kind: kind, Layer: layer, Expert: expert, Values: values, Weight: weight, Names: []string{"x"}}
		if kind == Expert {
			u.Tokens = r.Int64N(4000)
		}
		u.Outlier = 1 + r.Float64()
		for i, f := range Candidates {
			u.Choices = append(u.Choices, Choice{f.Name, values / 256 * int64(f.Bytes*256/f.Block),
				math.Exp2(-2*float64(i+2)) * (0.5 + r.Float64())})
		}
		return u
	}
	for l := range layers {
		units = append(units, make1(Attention, l, -1, 1<<14, 1), make1(Attention, l, -1, 3<<13, 1), make1(Shared, l, -1, 1<<13, 1))
		for e := range experts {
			units = append(units, make1(Expert, l, e, 1<<14, r.ExpFloat64()/float64(experts)))
		}
	}
	floors(units)
	return units
}

func bytesOf(units []Unit, chosen []int) (n int64) {
	for i, c := range chosen {
		n += units[i].Choices[c].Bytes
	}
	return n
}

func errorOf(units []Unit, chosen []int) (sum float64) {
	for i, c := range chosen {
		sum += units[i].Weight * units[i].Choices[c].Error
	}
	return sum
}

// span is the bytes that the floors and the largest choices of units take.
func span(units []Unit) (least, most int64) {
	for i := range units {
		u := &units[i]
		least, most = least+u.Choices[u.Floor].Bytes, most+u.Choices[len(u.Choices)-1].Bytes
	}
	return least, most
}

// policies are all the ways to allocate.
var policies = map[string]func(units []Unit, budget int64) ([]int, error){
	"ours":      func(u []Unit, b int64) ([]int, error) { return Allocate(u, b, 0) },
	"two":       func(u []Unit, b int64) ([]int, error) { return Allocate(u, b, 2) },
	"four":      func(u []Unit, b int64) ([]int, error) { return Allocate(u, b, 4) },
	"frequency": func(u []Unit, b int64) ([]int, error) { return Promote(u, b, ByUsage) },
	"outlier":   func(u []Unit, b int64) ([]int, error) { return Promote(u, b, ByOutlier) },
	"ends":      func(u []Unit, b int64) ([]int, error) { return Promote(u, b, ByEnds(4)) },
	"uniform":   Uniform,
}

func TestBudgets(t *testing.T) {
	most := map[string]int{"ours": 3, "two": 2, "four": 4, "frequency": 3, "outlier": 3, "ends": 3, "uniform": 3}
	for name, allocate := range policies {
		for seed := range uint64(5) {
			units := someUnits(rand.New(rand.NewPCG(seed, 1)), 4, 7)
			least, top := span(units)
			if _, err := allocate(units, least-1); !errors.Is(err, ErrBudget) {
				t.Errorf("%s, seed %d: one byte less than the floors: %v, want ErrBudget", name, seed, err)
			}
			var last []int
			for k := range int64(198) {
				budget := least + (top-least)*k/197
				chosen, err := allocate(units, budget)
				if err != nil {
					t.Fatal(err)
				}
				if n := bytesOf(units, chosen); n > budget {
					t.Fatalf("%s, seed %d: %d bytes of %d", name, seed, n, budget)
				}
				formats := map[int]map[string]bool{}
				for i, c := range chosen {
					if last != nil && c < last[i] || c < units[i].Floor {
						t.Fatalf("%s, seed %d: unit %d: choice %d with %d bytes, less than with fewer or its floor", name, seed, i, c, budget)
					}
					if u := &units[i]; u.Kind == Expert {
						if formats[u.Layer] == nil {
							formats[u.Layer] = map[string]bool{}
						}
						formats[u.Layer][u.Choices[c].Format] = true
					}
				}
				for l, f := range formats {
					if len(f) > most[name] {
						t.Fatalf("%s, seed %d: layer %d has formats %v", name, seed, l, f)
					}
				}
				last = chosen
			}
			for i, c := range last {
				if c != len(units[i].Choices)-1 {
					t.Errorf("%s, seed %d: unit %d has choice %d of %d when there are bytes for all", name, seed, i, c, len(units[i].Choices))
				}
			}
		}
	}
}

// TestAllocateIsBest compares with every possible allocation.
func TestAllocateIsBest(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		var units []Unit
		for l := range 4 { // one expert a layer, so no limit of formats counts
			u := Unit{Kind: Expert, Layer: l, Values: 256, Weight: r.Float64(), Choices: []Choice{{"a", 100, 1}}}
			for range 4 {
				last := u.Choices[len(u.Choices)-1]
				u.Choices = append(u.Choices, Choice{string(rune('a' + len(u.Choices))), last.Bytes + 1 + r.Int64N(50), last.Error * r.Float64()})
			}
			units = append(units, u)
		}
		least, most := span(units)
		for budget := least; budget < most; budget += 20 {
			chosen, err := Allocate(units, budget, 0)
			if err != nil {
				t.Fatal(err)
			}
			spent, got := bytesOf(units, chosen), errorOf(units, chosen)
			for n := range 5 * 5 * 5 * 5 {
				other := []int{n % 5, n / 5 % 5, n / 25 % 5, n / 125}
				if bytesOf(units, other) <= spent && errorOf(units, other) < got*(1-1e-12) {
					t.Fatalf("seed %d, budget %d: %v errs by %v, %v takes no more and errs by %v", seed, budget, chosen, got, other,
						errorOf(units, other))
				}
			}
		}
	}
}

func TestPermutedExperts(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	units := someUnits(r, 3, 8)
	order := r.Perm(len(units))
	permuted := make([]Unit, len(units))
	for i, j := range order {
		permuted[i] = units[j]
	}
	least, most := span(units)
	for name, allocate := range policies {
		want, err := allocate(units, (2*least+most)/3)
		if err != nil {
			t.Fatal(err)
		}
		got, err := allocate(permuted, (2*least+most)/3)
		if err != nil {
			t.Fatal(err)
		}
		for i, j := range order {
			if u := &units[j]; got[i] != want[j] && name != "ends" { // ends ranks whole layers alike: the ids decide
				t.Errorf("%s: layer %d, %s %d: choice %d, when units have another order %d", name, u.Layer, u.Kind, u.Expert, want[j], got[i])
			}
		}
	}
}

func TestNoUsage(t *testing.T) {
	units := someUnits(rand.New(rand.NewPCG(4, 4)), 3, 8)
	units = slices.DeleteFunc(units, func(u Unit) bool { return u.Kind != Expert })
	equal := slices.Clone(units)
	for i := range units {
		units[i].Weight, equal[i].Weight = 0, 1
	}
	least, most := span(units)
	got, err := Allocate(units, (least+most)/2, 0)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Allocate(equal, (least+most)/2, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("no expert was ever chosen: %v, by errors alone %v", got, want)
	}
}

func TestHotExpertsGetMore(t *testing.T) {
	units := someUnits(rand.New(rand.NewPCG(5, 5)), 4, 8)
	for i := range units {
		for c := range units[i].Choices {
			units[i].Choices[c].Error = math.Exp2(-2 * float64(c))
		}
	}
	least, most := span(units)
	chosen, err := Allocate(units, (3*least+most)/4, 4)
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range units {
		for j, v := range units {
			if u.Kind == Expert && v.Kind == Expert && u.Layer == v.Layer && u.Weight > v.Weight && chosen[i]+1 < chosen[j] {
				t.Errorf("layer %d: expert %d of weight %v has choice %d, %d of %v has %d", u.Layer, u.Expert, u.Weight, chosen[i], v.Expert, v.Weight, chosen[j])
			}
		}
	}
}

func TestRanks(t *testing.T) {
	if got := Outlier([]float32{1, 4, 3, -2}, 2); got != 1.5 {
		t.Errorf("outlier score %v, want 1.5", got)
	}
	if got := Outlier([]float32{0, 0, 0, 0}, 2); got != 0 {
		t.Errorf("outlier score of zeros %v", got)
	}
	layers := []int{0, 1, 2, 3, 4}
	rank := ByEnds(5)
	slices.SortFunc(layers, func(a, b int) int {
		if rank(&Unit{Layer: a}) > rank(&Unit{Layer: b}) {
			return -1
		}
		return 1
	})
	if !slices.Equal(layers, []int{0, 4, 1, 3, 2}) {
		t.Errorf("layers by ends: %v", layers)
	}
	p := &Profile{Layers: []LayerProfile{{Importance: 0.25}, {Importance: 0.5}}}
	if rank := ByImportance(p); rank(&Unit{Layer: 1}) != 0.5 || rank(&Unit{Layer: 9}) != 0 {
		t.Error("importance of a layer is not its rank")
	}
}
