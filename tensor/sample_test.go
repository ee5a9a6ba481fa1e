package tensor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// sampled runs Sample on one row many times, at positions 0 to n, and counts the ids.
func sampled(t *testing.T, logits []float32, params []float32, n int) []int {
	t.Helper()
	counts := make([]int, len(logits))
	for pos := range n {
		counts[sampledAt(logits, params, []int32{7, 0, int32(pos), -1})]++
	}
	return counts
}

func sampledAt(logits, params []float32, draws []int32) int32 {
	return editedAt(logits, params, draws, nil, nil)
}

// editedAt runs Sample on one row with edits.
func editedAt(logits, params []float32, draws, edits []int32, biases []float32) int32 {
	o := Sample{
		Logits: FromF32(1, len(logits), logits), Params: FromF32(1, SampleParams, params), Draws: FromI32(1, SampleDraws, draws),
		Start: FromI32(2, 1, []int32{0, int32(len(biases))}), Edits: FromI32(len(biases), EditColumns, edits),
		Biases: FromF32(len(biases), 1, biases),
		IDs:    FromI32(1, 1, []int32{-1}), Best: FromI32(1, 4, make([]int32, 4)), Probs: FromF32(1, 5, make([]float32, 5)),
	}
	o.Reference()
	return o.IDs.I32()[0]
}

// off is the value at which each step of the chain does nothing, at temperature 1.
func off() []float32 {
	p := make([]float32, SampleParams)
	p[Temperature], p[TopP], p[TypicalP], p[Repetition] = 1, 1, 1, 1
	return p
}

// with is off, but for some parameters.
func with(set map[int]float32) []float32 {
	p := off()
	for at, v := range set {
		p[at] = v
	}
	return p
}

// spread is how far a share of draws may be from its probability: four standard deviations.
func spread(p float64, n int) float64 { return 4 * math.Sqrt(p*(1-p)/float64(n)) }

func TestSampleDrawsTheSoftmax(t *testing.T) {
	logits := []float32{0, float32(math.Log(2)), float32(math.Log(5)), float32(math.Log(2))}
	const n = 4000
	for _, c := range []struct {
		name   string
		set    int
		value  float32
		shares []float64
	}{
		{"as it is", TopK, 0, []float64{.1, .2, .5, .2}},
		{"two most likely, the tie to the lower id", TopK, 2, []float64{0, 2. / 7, 5. / 7, 0}},
		{"half the mass", TopP, .5, []float64{0, 0, 1, 0}},
		{"a little more than half", TopP, .51, []float64{0, 2. / 7, 5. / 7, 0}},
		{"a third of the best", MinP, .35, []float64{0, 2. / 9, 5. / 9, 2. / 9}},
		{"squared", Temperature, .5, []float64{1. / 34, 4. / 34, 25. / 34, 4. / 34}},
		{"greedy", Temperature, 0, []float64{0, 0, 1, 0}},
		// The entropy is 1.22: ids 1 and 3 have 1.61 each, id 2 has 0.69, id 0 has 2.30.
		{"the two most typical", TypicalP, .39, []float64{0, .5, 0, .5}},
		{"a little more", TypicalP, .41, []float64{0, 2. / 9, 5. / 9, 2. / 9}},
	} {
		params := with(map[int]float32{c.set: c.value})
		for id, have := range sampled(t, logits, params, n) {
			p := c.shares[id]
			if share := float64(have) / n; math.Abs(share-p) > spread(p, n) {
				t.Errorf("%s: id %d in %.3f of the draws, want %.3f", c.name, id, share, p)
			}
		}
	}
}

// What top-p keeps is a share of what top-k has left, whatever min-p takes away besides.
func TestSampleChainInOrder(t *testing.T) {
	// Probabilities 40, 25, 20, 10 and 5 percent. The first four make 95; 0.68 of that is 64.6, which the first two reach, while 0.68 of the whole
	// takes a third. min-p takes those below 60 percent of the best: the last three.
	logits := make([]float32, 5)
	for i, p := range []float64{40, 25, 20, 10, 5} {
		logits[i] = float32(math.Log(p))
	}
	for _, c := range []struct {
		params []float32
		want   []bool
	}{
		{with(map[int]float32{TopK: 4, TopP: .68}), []bool{true, true, false, false, false}},
		{with(map[int]float32{TopP: .68}), []bool{true, true, true, false, false}},
		{with(map[int]float32{TopK: 4, TopP: .68, MinP: .3}), []bool{true, true, false, false, false}},
		{with(map[int]float32{TopK: 4, TopP: .9, MinP: .6}), []bool{true, true, false, false, false}},
		// The entropy of all is 1.42, and 25 % are 1.39: the most typical. Of those that are left min-p counts from the likeliest.
		{with(map[int]float32{TypicalP: .4, MinP: .79}), []bool{false, true, true, false, false}},
		{with(map[int]float32{TypicalP: .4, MinP: .81}), []bool{false, true, false, false, false}},
	} {
		counts := sampled(t, logits, c.params, 2000)
		for id, n := range counts {
			if (n > 0) != c.want[id] {
				t.Errorf("parameters %v draw %v, want those of %v", c.params, counts, c.want)
				break
			}
		}
	}
}

func TestSampleDependsOnSeedAndPositionOnly(t *testing.T) {
	logits := make([]float32, 1000)
	seen := map[int32]bool{}
	for seed := range int32(20) {
		for pos := range int32(20) {
			id := sampledAt(logits, off(), []int32{seed, 1, pos, -1})
			if again := sampledAt(logits, off(), []int32{seed, 1, pos, -1}); again != id {
				t.Fatalf("seed %d, position %d: %d, then %d", seed, pos, id, again)
			}
			seen[id] = true
		}
	}
	if len(seen) < 250 { // 400 draws from 1000 are some 330 ids
		t.Errorf("400 draws gave %d ids", len(seen))
	}
	if sampledAt(logits, off(), []int32{1, 0, 5, -1}) == sampledAt(logits, off(), []int32{1, 1, 5, -1}) {
		t.Error("the high half of the seed does nothing")
	}
}

func TestSampleTiesToTheLowerID(t *testing.T) {
	for _, params := range [][]float32{with(map[int]float32{Temperature: 0}), with(map[int]float32{TopK: 1}), with(map[int]float32{TopP: 1e-6})} {
		if id := sampledAt([]float32{1, 3, 3, 2, 3}, params, []int32{1, 2, 3, -1}); id != 1 {
			t.Errorf("parameters %v choose %d, want 1", params, id)
		}
	}
}

func TestSampleReports(t *testing.T) {
	o := Sample{
		Logits: FromF32(1, 5, []float32{1, 4, 2, 4, 3}), Params: FromF32(1, SampleParams, with(map[int]float32{Temperature: 0})),
		Start: FromI32(2, 1, []int32{0, 1}), Edits: FromI32(1, EditColumns, []int32{3, 1, 5}), Biases: FromF32(1, 1, []float32{-100}),
		Draws: FromI32(1, SampleDraws, []int32{0, 0, 0, 3}), IDs: FromI32(1, 1, []int32{-1}),
		Best: FromI32(1, 4, []int32{-9, -9, -9, -9}), Probs: FromF32(1, 5, []float32{9, 9, 9, 9, 9}),
	}
	o.Reference()
	if have := fmt.Sprint(o.Best.I32()); have != "[1 3 4 -9]" {
		t.Errorf("best ids %v, want 1 3 4 and the rest untouched", have)
	}
	norm := math.Log(math.Exp(1) + 2*math.Exp(4) + math.Exp(2) + math.Exp(3))
	for i, logit := range []float64{4, 4, 4, 3} {
		if have := float64(o.Probs.F32()[i]); math.Abs(have-(logit-norm)) > Roundoff*norm {
			t.Errorf("log-probability %d is %v, want %v", i, have, logit-norm)
		}
	}
	if o.Probs.F32()[4] != 9 {
		t.Error("a log-probability nobody asked for has been written")
	}
}

func TestSampleEdits(t *testing.T) {
	logits := []float32{2, 3, -1, 0}
	greedy := func(set map[int]float32) []float32 {
		set[Temperature] = 0
		return with(set)
	}
	for _, c := range []struct {
		name   string
		params []float32
		edits  []int32
		biases []float32
		want   int32
	}{
		{"a bias", greedy(map[int]float32{}), []int32{0, 0, 0}, []float32{1.01}, 0},
		{"a bias is added last", greedy(map[int]float32{Repetition: 2}), []int32{1, 1, 0}, []float32{.51}, 1},
		{"above 0 divided", greedy(map[int]float32{Repetition: 1.6}), []int32{1, 1, 0}, []float32{0}, 0},
		{"below 0 multiplied", greedy(map[int]float32{Repetition: 8}), []int32{0, 1, 0, 1, 1, 0, 2, 1, 0, 3, 0, 0}, []float32{0, 0, 0, -.5}, 1},
		{"only biased: no penalty", greedy(map[int]float32{Repetition: 9, Presence: 2}), []int32{1, 0, 0}, []float32{0}, 1},
		{"seen but not generated: no presence", greedy(map[int]float32{Presence: 2, Frequency: 2}), []int32{1, 1, 0}, []float32{0}, 1},
		{"presence once", greedy(map[int]float32{Presence: .6}), []int32{1, 1, 9}, []float32{0}, 1},
		{"presence", greedy(map[int]float32{Presence: 1.1}), []int32{1, 1, 1}, []float32{0}, 0},
		{"frequency each time", greedy(map[int]float32{Frequency: .6}), []int32{1, 1, 2}, []float32{0}, 0},
		{"a reward for repetition", greedy(map[int]float32{Frequency: -.6}), []int32{0, 1, 2}, []float32{0}, 0},
		{"banned", greedy(map[int]float32{}), []int32{1, 0, 0}, []float32{float32(math.Inf(-1))}, 0},
	} {
		if id := editedAt(logits, c.params, []int32{1, 2, 3, -1}, c.edits, c.biases); id != c.want {
			t.Errorf("%s: %d, want %d", c.name, id, c.want)
		}
	}
	nan := float32(math.NaN())
	for _, params := range [][]float32{off(), with(map[int]float32{TopP: .9}), with(map[int]float32{MinP: .1}), with(map[int]float32{TypicalP: .5, TopK: 2})} {
		if id := editedAt([]float32{1, nan, nan}, params, []int32{1, 2, 3, -1}, nil, nil); id != 0 {
			t.Errorf("beside logits that are no numbers, %v: %d", params, id)
		}
		if id := editedAt([]float32{nan, 1, nan}, params, []int32{1, 2, 3, -1}, nil, nil); id < 0 || id > 2 {
			t.Errorf("of logits that are no numbers, %v: %d", params, id)
		}
	}
	all := []float32{float32(math.Inf(-1)), float32(math.Inf(-1)), float32(math.Inf(-1)), float32(math.Inf(-1))}
	everything := with(map[int]float32{TypicalP: .5, TopK: 2, TopP: .5, MinP: .1})
	if id := editedAt(logits, everything, []int32{1, 2, 3, -1}, []int32{0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0}, all); id < 0 || id > 3 {
		t.Errorf("when all are banned: %d", id)
	}
}

// TestFewOfMany sees that the ways to keep few ids of a long row keep those that the sorted list begins with.
func TestFewOfMany(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		r := &row{logits: make([]float32, 1+rnd.IntN(3000)), inverse: 1 / 1.5}
		for i := range r.logits {
			r.logits[i] = float32(rnd.IntN(int(40*(1+seed)))) / 50 // with ties
		}
		r.top = slices.Max(r.logits)
		sorted := r.all()
		slices.SortFunc(sorted, candidate.compare)
		for _, k := range []int{1, 2, 3, 10, few, few + 1, 1000, 2999} {
			if k < len(sorted) {
				same(t, fmt.Sprintf("seed %d: the first %d", seed, k), r.likeliest(k), sorted[:k])
			}
		}
		for _, p := range []float64{.01, .2, .5, .9, .999} {
			mass, n := p*sum(r.all()), 0
			for have := 0.; have < mass && n < len(sorted); n++ {
				have += sorted[n].weight
			}
			same(t, fmt.Sprintf("seed %d: share %v", seed, p), r.nucleus(p), sorted[:n])
			keep := slices.DeleteFunc(r.all(), func(c candidate) bool { return c.weight < p })
			same(t, fmt.Sprintf("seed %d: %v of the best", seed, p), r.above(p), keep)
		}
		u := rnd.Float64()
		if have, want := r.draw(u), draw(r.all(), u); have != want {
			t.Errorf("seed %d: draws %d, want %d", seed, have, want)
		}
	}
}

func same(t *testing.T, name string, have, want []candidate) {
	t.Helper()
	if !slices.Equal(have, want) {
		t.Errorf("%s of them are %d ids, want %d, or others", name, len(have), len(want))
	}
}

// The functions of weights are not the library's, which differ between processors.
func TestExponentials(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 100000 {
		x := -700 * rnd.Float64()
		if i%2 == 0 {
			x /= 100
		}
		if have, want := exp(x), math.Exp(x); math.Abs(have-want) > 1e-11*want {
			t.Fatalf("exp %v is %v, want %v", x, have, want)
		}
		y := math.Exp(-x / 30)
		if have, want := ln(y), math.Log(y); math.Abs(have-want) > 1e-15*max(1, want) {
			t.Fatalf("ln %v is %v, want %v", y, have, want)
		}
	}
	for _, x := range []float64{0, faintest, -math.Ln2, -math.Ln2 / 2} {
		if have, want := exp(x), math.Exp(x); math.Abs(have-want) > 1e-11*want {
			t.Errorf("exp %v is %v, want %v", x, have, want)
		}
	}
	if exp(0) != 1 || ln(1) != 0 {
		t.Errorf("exp 0 is %v, ln 1 is %v", exp(0), ln(1))
	}
	inf, nan := float32(math.Inf(-1)), float32(math.NaN())
	r := &row{[]float32{3, inf, nan, 2, -1000}, 3, 1}
	for id, want := range []float64{1, 0, 0, math.Exp(-1), 0} {
		if have, _ := r.weigh(id); math.Abs(have-want) > 1e-11 {
			t.Errorf("id %d weighs %v, want %v", id, have, want)
		}
	}
}

// What a row of several pieces draws is what its weights say.
func TestDrawsOverPieces(t *testing.T) {
	logits := make([]float32, 3*pieceIDs+7)
	for i := range logits {
		logits[i] = float32(math.Inf(-1))
	}
	for at, p := range map[int]float64{5: .1, pieceIDs - 1: .2, 2 * pieceIDs: .3, len(logits) - 1: .4} {
		logits[at] = float32(math.Log(p))
	}
	const n = 2000
	counts := map[int32]int{}
	for pos := range int32(n) {
		counts[sampledAt(logits, off(), []int32{3, 0, pos, -1})]++
	}
	for at, p := range map[int32]float64{5: .1, pieceIDs - 1: .2, 2 * pieceIDs: .3, int32(len(logits) - 1): .4} {
		if share := float64(counts[at]) / n; math.Abs(share-p) > spread(p, n) {
			t.Errorf("id %d in %.3f of the draws, want %.1f", at, share, p)
		}
	}
	if len(counts) != 4 {
		t.Errorf("%d ids were drawn", len(counts))
	}
}

func BenchmarkChoose(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	logits := make([]float32, 151936)
	for i := range logits {
		logits[i] = float32(r.NormFloat64() * 3)
	}
	for name, params := range map[string][]float32{
		"all": off(), "top-p": with(map[int]float32{TopP: .95}), "top-k": with(map[int]float32{TopK: 40, TopP: .95}),
		"min-p": with(map[int]float32{MinP: .05}), "typical": with(map[int]float32{TypicalP: .9}), "top-k 5000": with(map[int]float32{TopK: 5000}),
		"greedy": with(map[int]float32{Temperature: 0}),
	} {
		b.Run(name, func(b *testing.B) {
			for i := range b.N {
				choose(logits, params, []int32{1, 2, int32(i), -1})
			}
		})
	}
}
