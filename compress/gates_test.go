package compress

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/tensor"
)

func noise(random *rand.Rand, n int, by float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(by * random.NormFloat64())
	}
	return v
}

// The golden numbers of the published algorithm's description: blocks of 2, worked by hand there.
func TestGateGolden(t *testing.T) {
	freq := model.Rope{Freq: []float32{1, 0.01}, Scale: 1, Pairs: tensor.Halves}
	to := newTurns(freq, 8)
	eye := func(rows int, at ...float32) []float32 { // rows of 4, diagonal pieces one after another
		w := make([]float32, rows*4)
		for i := range rows {
			w[i*4+i%4] = at[i/4]
		}
		return w
	}
	h := &gateHead{width: 4, query: side{w: eye(8, 0.5, 0.5), norm: ones(4), to: to}, key: side{w: eye(12, 0.5, 0, 1), norm: ones(4), to: to}}
	q := h.query.forward([]float32{1, 1, 0, 0, 1, -1, 2, 0}, []int{5}, 4)
	k := h.key.forward([]float32{3, 0, 0, 1, 1, -2, 0, 1, 2, -1, 0, 1, 0, 3, 2, 1, 0, 1, -2, -1, 0, 2, 0, 0}, []int{0, 2}, 4)
	for _, c := range []struct{ got, want []float32 }{
		{q.out, []float32{1.757281, 0, -0.954964, 0}},
		{k.out, []float32{1.778002, -0.508, 0, 0.762001, -0.494959, 1.899334, -0.226522, 0.310212}},
		{[]float32{inner(q.out, k.out[:4]) / 2, inner(q.out, k.out[4:]) / 2}, []float32{1.562224, -0.326731}},
	} {
		for i, want := range c.want {
			if math.Abs(float64(c.got[i]-want)) > 2e-6 {
				t.Errorf("%v, want %v", c.got, c.want)
				break
			}
		}
	}
}

// The gradient of each weight is the slope of the loss, of both kinds and in both pairings.
func TestGateGradient(t *testing.T) {
	for _, kind := range []model.GateKind{model.SeerPrefill, model.SeerDecode} {
		for _, pairs := range []tensor.Pairing{tensor.Halves, tensor.Neighbours} {
			random := rand.New(rand.NewPCG(3, 4))
			size := model.GateHeads{Query: 4, KV: 2, Dim: 6, Width: 6}
			to := newTurns(model.Rope{Freq: []float32{1, 0.3}, Scale: 1.1, Pairs: pairs}, 300)
			r := reading{tokens: 260, q: noise(random, 260*4*6, 2), k: noise(random, 260*2*6, 2)}
			s := newGateSchool(&GateTraining{Steps: 1, Rows: 128, Seed: 5}, kind, []*turns{to}, size)
			s.scale = 0.5
			l := &s.gates.Layer[0]
			for _, w := range [][]float32{l.Query, l.Key, l.QueryNorm, l.KeyNorm} {
				for i := range w {
					w[i] += float32(0.5 * random.NormFloat64())
				}
			}
			loss := func() float64 {
				s.grads[0] = slices.Clone(s.grads[0])
				keep := s.grads[0]
				for h := range s.grads[0] {
					s.grads[0][h] = gateGrad{zeros(len(keep[h].query)), zeros(len(keep[h].key)), zeros(6), zeros(6)}
				}
				return s.learn([]reading{r}, 1, rand.New(rand.NewPCG(9, 9)))
			}
			loss()
			grads, heads := slices.Clone(s.grads[0]), s.gates.KeyHeads()
			check := func(name string, w []float32, i int, got float64) {
				const step = 1e-2
				old := w[i]
				w[i] = old + step
				up := loss()
				w[i] = old - step
				down := loss()
				w[i] = old
				if slope := (up - down) / (2 * step); math.Abs(slope-got) > 2e-2*math.Abs(slope)+2e-5 {
					t.Errorf("%s %s: %s[%d]: gradient %v, slope %v", kind, pairs, name, i, got, slope)
				}
			}
			for range 8 {
				i := random.IntN(len(l.Key))
				n := len(l.Key) / heads
				check("key", l.Key, i, float64(grads[i/n].key[i%n]))
				if kind == model.SeerPrefill {
					continue
				}
				i = random.IntN(len(l.Query))
				n = len(l.Query) / heads
				check("query", l.Query, i, float64(grads[i/n].query[i%n]))
				i = random.IntN(6)
				check("query norm", l.QueryNorm, i, float64(grads[0].queryNorm[i]+grads[1].queryNorm[i]))
				check("key norm", l.KeyNorm, i, float64(grads[0].keyNorm[i]+grads[1].keyNorm[i]))
			}
		}
	}
}

// Untrained, a gate ranks blocks about as the mean of their turned keys does.
func TestGateBeginsWithTheMeanKey(t *testing.T) {
	size := model.GateHeads{Query: 4, KV: 2, Dim: 16, Width: 16}
	const blocks = 12
	for _, pairs := range []tensor.Pairing{tensor.Halves, tensor.Neighbours} {
		rope := model.Rope{Freq: []float32{1, 0.3, 0.1, 0.03, 0.01, 0.003}, Scale: 1.2, Pairs: pairs}
		if pairs == tensor.Neighbours {
			rope.Freq = append(rope.Freq, 0.001, 0.0003)
		}
		to := newTurns(rope, blocks*blockTokens)
		for _, kind := range []model.GateKind{model.SeerPrefill, model.SeerDecode} {
			random := rand.New(rand.NewPCG(11, 12))
			s := newGateSchool(&GateTraining{Steps: 1, Seed: 5}, kind, []*turns{to}, size)
			s.scale = 0.3
			r := reading{tokens: blocks * blockTokens, q: noise(random, blocks*blockTokens*4*16, 1), k: noise(random, blocks*blockTokens*2*16, 1)}
			for b := range blocks { // of each block queries look for something, and keys have something
				looks, has := noise(random, 4*16, 1), noise(random, 2*16, 1)
				for i := b * blockTokens; i < (b+1)*blockTokens; i++ {
					axpy(r.q[i*4*16:][:4*16], looks, 1)
					axpy(r.k[i*2*16:][:2*16], has, 1)
				}
			}
			s.sit([]reading{r}, random)
			got := s.result().Recalls[1]
			t.Logf("%s, pairs %v: gate %.3f, mean of keys %.3f, best %.3f", kind, pairs, got.Gate, got.Untrained[0], got.Best)
			if got.Gate < 0.9*got.Untrained[0] || got.Untrained[0] < 0.4 {
				t.Errorf("%s, pairs %v: %+v", kind, pairs, got)
			}
		}
	}
}

// toy is attention that looks something up: one key of each block holds the block's code in the first channels, the others a little of its
// opposite and noise beside it, and queries hold the code of a block before. The mean of a block's keys says the opposite of what attention
// does; a gate has to learn that its largest and smallest values say it, and in which channels.
func toy(random *rand.Rand, kind model.GateKind, size model.GateHeads, blocks int) reading {
	const signs = 8
	r := reading{tokens: blocks * blockTokens}
	r.q, r.k = noise(random, r.tokens*size.Query*size.Dim, 1), noise(random, r.tokens*size.KV*size.Dim, 1)
	codes := make([][]float32, blocks)
	for b := range codes {
		codes[b] = make([]float32, signs)
		for i := range codes[b] {
			codes[b][i] = float32(2*random.IntN(2) - 1)
		}
	}
	about := 0
	for t := range r.tokens {
		b := t / blockTokens
		for kv := range size.KV {
			k := r.k[(t*size.KV+kv)*size.Dim:][:size.Dim]
			for i, v := range codes[b] {
				k[i] = -0.1 * v
			}
			for i := signs; i < size.Dim; i++ {
				k[i] *= 3
			}
		}
		if t%blockTokens == 0 || kind == model.SeerDecode { // a gate for prompts sees the queries of a block as one
			about = random.IntN(max(1, b))
		}
		for h := range size.Query {
			copy(r.q[(t*size.Query+h)*size.Dim:][:size.Dim], noise(random, size.Dim, 0.3))
			for i, v := range codes[about] {
				r.q[(t*size.Query+h)*size.Dim+i] = 6 * v
			}
		}
	}
	for b, code := range codes {
		at := b*blockTokens + random.IntN(blockTokens)
		for kv := range size.KV {
			for i, v := range code {
				r.k[(at*size.KV+kv)*size.Dim+i] = 4 * v
			}
		}
	}
	return r
}

// Trained on a recall task, gates find in a quarter of the blocks nearly all that attention reads; the mean of keys does not.
func TestGateLearnsToRecall(t *testing.T) {
	size := model.GateHeads{Query: 4, KV: 2, Dim: 16, Width: 16}
	const layers, steps, blocks = 2, 40, 12
	to := newTurns(model.Rope{Freq: make([]float32, 8), Scale: 1, Pairs: tensor.Halves}, blocks*blockTokens)
	for i, kind := range []model.GateKind{model.SeerPrefill, model.SeerDecode, model.SeerPrefill, model.SeerDecode} {
		target := []GateTarget{Peak, Mass}[i/2]
		s := newGateSchool(&GateTraining{Steps: steps, Rows: 64, Rate: 1e-2, Seed: 1, Target: target}, kind, slices.Repeat([]*turns{to}, layers), size)
		s.scale = 0.25
		random := rand.New(rand.NewPCG(7, 7))
		read := func() []reading { return []reading{toy(random, kind, size, blocks), toy(random, kind, size, blocks)} }
		first := 0.0
		for step := range steps {
			loss := s.learn(read(), 1, random)
			if step == 0 {
				first = loss
			}
			if err := s.step(step, loss); err != nil {
				t.Fatal(err)
			}
		}
		s.rows = 0
		s.sit(read(), random)
		got := s.result()
		r := got.Recalls[1]
		t.Logf("%s by %s: loss %.3f, then %.3f; at %v: gate %.3f, best %.3f, mean of keys %.3f", kind, target, first, got.Loss, r.Density, r.Gate, r.Best, r.Untrained[0])
		if r.Gate <= 0.95 || r.Best < r.Gate || r.Best < r.Peak || r.Peak < 0.95 || r.Untrained[0] > r.Gate-0.1 || got.Loss > first/2 {
			t.Errorf("%s by %s: loss %v of %v, %+v", kind, target, got.Loss, first, r)
		}
	}
}

// What is learnt does not depend on how many goroutines work, and other seeds learn otherwise.
func TestGateLearningRepeats(t *testing.T) {
	size := model.GateHeads{Query: 4, KV: 2, Dim: 8, Width: 8}
	to := newTurns(model.Rope{Freq: []float32{1, 0.1}, Scale: 1, Pairs: tensor.Halves}, 512)
	learn := func(seed uint64) string {
		s := newGateSchool(&GateTraining{Steps: 3, Rows: 32, Seed: seed}, model.SeerDecode, []*turns{to, to}, size)
		s.scale = 1
		random := rand.New(rand.NewPCG(seed, 7))
		for step := range 3 {
			fixed := rand.New(rand.NewPCG(1, 1))
			if err := s.step(step, s.learn([]reading{toy(fixed, model.SeerDecode, size, 8), toy(fixed, model.SeerDecode, size, 8)}, 1, random)); err != nil {
				t.Fatal(err)
			}
		}
		return fmt.Sprint(s.gates.Layer)
	}
	cores := runtime.GOMAXPROCS(1)
	alone := learn(1)
	runtime.GOMAXPROCS(max(3, cores))
	together, other := learn(1), learn(2)
	runtime.GOMAXPROCS(cores)
	if alone != together || alone == other {
		t.Error("the same seed learns another gate, or another seed the same")
	}
}

func TestAdamRate(t *testing.T) {
	a := adam{rate: 1e-3, last: 1e-5, steps: 100}
	for step, want := range map[int]float64{0: 5e-5, 19: 1e-3, 20: 1e-3, 60: (1e-3 + 1e-5) / 2, 100: 1e-5} {
		if got := a.at(step); math.Abs(got-want) > 1e-9 {
			t.Errorf("step %d: %v, want %v", step, got, want)
		}
	}
	w := []float32{1, 1}
	a = adam{rate: 0.5, steps: 1}
	a.weigh(w)
	a.step(0, [][]float32{{100, -1e-3}}) // the first step goes by the rate whatever the gradient, here that of the warm-up's end
	if math.Abs(float64(w[0])-0.5) > 1e-3 || math.Abs(float64(w[1])-1.5) > 1e-3 {
		t.Errorf("%v", w)
	}
}

// The keys of one block are what queries look for: all scores but the nearest block's put it first, of the blocks that are not read anyhow.
func TestUntrainedScoresFindABlock(t *testing.T) {
	const blocks, wanted, row = 8, 3, 7
	r := reading{tokens: blocks * blockTokens, q: zeros(blocks * blockTokens * 2 * 4), k: zeros(blocks * blockTokens * 4)}
	for i := range r.q {
		r.q[i] = 1
	}
	for i := wanted * blockTokens * 4; i < (wanted+1)*blockTokens*4; i++ {
		r.k[i] = 0.5
	}
	a := r.attend(model.GateHeads{Query: 2, KV: 1, Dim: 4, Width: 4}, 1, newTurns(model.Rope{Scale: 1}, r.tokens))
	for kind, at := range map[model.GateKind]int{model.SeerPrefill: row, model.SeerDecode: row * blockTokens} {
		n := len(UntrainedOf(kind)) * blocks
		all := truth{untrained: slices.Collect(slices.Chunk(zeros(n), blocks))}
		a.guess(kind, 0, at, all)
		for i, by := range UntrainedOf(kind) {
			scores := all.untrained[i]
			for b := 1; b < row-1; b++ {
				if by == Nearest && scores[b] >= scores[b+1] || by != Nearest && b != wanted && scores[b] >= scores[wanted] {
					t.Errorf("%s, %s: %v", kind, by, scores)
				}
			}
			if by == Nearest && slices.Max(scores) != scores[0] {
				t.Errorf("%s, %s: %v", kind, by, scores)
			}
		}
	}
}
