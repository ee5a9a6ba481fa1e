package compress

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"

	"github.com/winnow-llm/winnow/model"
)

// gateSchool is the training of the gates of one kind.
type gateSchool struct {
	gates *model.Gates
	goal  GateTarget
	rows  int
	scale float32  // of the model's scores
	to    []*turns // by layer
	fit   adam

	grads  [][]gateGrad // by layer and head: of a step
	loss   float64      // sums of what was held out
	seen   int
	recall []gateRecall // by layer
}

// newGateSchool begins with the scores of blocks' mean keys, for layers that turn by to, and small random weights beside them. The paper
// begins with random ones alone; where attention is spread evenly, these would take long to come as far as the mean.
func newGateSchool(ask *GateTraining, kind model.GateKind, to []*turns, size model.GateHeads) *gateSchool {
	layers := len(to)
	g := &model.Gates{Kind: kind, Heads: size, Norms: kind == model.SeerDecode, Layer: make([]model.GateLayer, layers)}
	s := &gateSchool{gates: g, goal: ask.Target, to: to, rows: ask.Rows, recall: make([]gateRecall, layers)}
	random := rand.New(rand.NewPCG(ask.Seed, 0))
	normal := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(0.002 * random.NormFloat64())
		}
		return v
	}
	for i := range g.Layer {
		l := &g.Layer[i]
		l.Key = normal(g.KeyHeads() * 3 * size.Dim * size.Width)
		if n := g.QueryInputs(); n > 0 {
			l.Query = normal(g.KeyHeads() * n * size.Width)
		}
		addMeanKey(g, l, to[i])
		if g.Norms {
			l.QueryNorm, l.KeyNorm = ones(size.Width), ones(size.Width)
		}
		heads := make([]gateGrad, g.KeyHeads())
		for h := range heads {
			heads[h] = gateGrad{
				query: zeros(len(l.Query) / len(heads)), key: zeros(len(l.Key) / len(heads)),
				queryNorm: zeros(len(l.QueryNorm)), keyNorm: zeros(len(l.KeyNorm)),
			}
		}
		s.grads = append(s.grads, heads)
		for _, w := range [][]float32{l.Query, l.Key, l.QueryNorm, l.KeyNorm} {
			s.fit.weigh(w)
		}
	}
	rate := ask.Rate
	if rate == 0 {
		rate = 1e-3
	}
	s.fit.rate, s.fit.steps = rate, ask.Steps
	if kind == model.SeerDecode {
		s.fit.last = min(1e-5, rate)
	}
	return s
}

// addMeanKey makes a layer's gate score a block by the mean of its keys as they are when turned, about: the mean before RoPE, turned to the middle of
// the block, and each pair of channels as much shorter as turning a block's positions makes its mean. Queries of a block are a mean likewise.
func addMeanKey(g *model.Gates, l *model.GateLayer, to *turns) {
	dim, width := g.Heads.Dim, g.Heads.Width
	for h := range g.KeyHeads() {
		key := nth(l.Key, h, g.KeyHeads())[2*dim*width:] // of the mean
		for i := 2 * to.half; i < dim; i++ {
			key[i*width+i] += 1
		}
		for j := range to.half {
			a, b := to.pair(j)
			cos, sin := to.mean(j)
			if l.Query == nil {
				cos, sin = cos*cos+sin*sin, 0
			}
			key[a*width+a] += cos
			key[a*width+b] += sin
			key[b*width+a] -= sin
			key[b*width+b] += cos
		}
		if l.Query == nil {
			continue
		}
		query := nth(l.Query, h, g.KeyHeads())
		for i := range len(query) / width {
			query[i*width+i%dim] += float32(dim*width) / float32(len(query))
		}
	}
}

func zeros(n int) []float32 { return make([]float32, n) }

func ones(n int) []float32 {
	v := zeros(n)
	for i := range v {
		v[i] = 1
	}
	return v
}

// input is what a head is shown of some rows of a sequence.
func (s *gateSchool) input(r *reading, head int, rows, sees []int) *gateInput {
	size, in := s.gates.Heads, &gateInput{sees: sees}
	if s.gates.Kind == model.SeerDecode {
		in.queries, in.pos, in.pools = r.tokensOf(head, rows, size), rows, r.pooled(head, size)
		return in
	}
	in.queries, in.pools = r.meansOf(head, rows, size), r.pooled(head/(size.Query/size.KV), size)
	for _, b := range rows {
		in.pos = append(in.pos, b*blockTokens)
	}
	return in
}

// judge shows rows of a sequence to every head of every layer, as many layers at a time as keep all cores busy, and hands to see what each head
// makes of them.
func (s *gateSchool) judge(layers []reading, random *rand.Rand, see func(layer, head int, h *gateHead, j *judged, t truth, in *gateInput)) {
	rows, sees := choose(s.gates.Kind, layers[0].tokens, s.rows, random)
	blocks, heads := layers[0].tokens/blockTokens, s.gates.KeyHeads()
	some := (runtime.GOMAXPROCS(0) + heads - 1) / heads
	for lo := 0; lo < len(layers); lo += some {
		read := make([]*attended, min(some, len(layers)-lo))
		inParallel(len(read), func(i int) { read[i] = layers[lo+i].attend(s.gates.Heads, s.scale, s.to[lo+i]) })
		inParallel(len(read)*heads, func(i int) {
			l, head := lo+i/heads, i%heads
			h, in := headOf(s.gates, l, head, s.to[l]), s.input(&layers[l], head, rows, sees)
			see(l, head, h, h.judge(in), read[i/heads].of(s.gates.Kind, head, rows, sees, blocks), in)
		})
	}
}

// learn adds the gradients of a sequence, times weight, and gives its loss.
func (s *gateSchool) learn(layers []reading, weight float32, random *rand.Rand) float64 {
	heads := s.gates.KeyHeads()
	losses := make([]float64, len(layers)*heads)
	s.judge(layers, random, func(l, head int, h *gateHead, j *judged, t truth, in *gateInput) {
		losses[l*heads+head] = h.loss(j, t.taught(s.goal), in, &s.grads[l][head], weight/float32(heads))
	})
	return average(losses)
}

func average(v []float64) (sum float64) {
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// step changes the weights by the gradients of a step, whose loss says whether there are any numbers left.
func (s *gateSchool) step(step int, loss float64) error {
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return fmt.Errorf("%w: step %d of the %s gates has a loss of %v", ErrNumber, step, s.gates.Kind, loss)
	}
	var all [][]float32
	for l, heads := range s.grads {
		var query, key []float32
		queryNorm, keyNorm := zeros(len(s.gates.Layer[l].QueryNorm)), zeros(len(s.gates.Layer[l].KeyNorm))
		for _, g := range heads {
			query, key = append(query, g.query...), append(key, g.key...)
			axpy(queryNorm, g.queryNorm, 1)
			axpy(keyNorm, g.keyNorm, 1)
			for _, v := range [][]float32{g.query, g.key, g.queryNorm, g.keyNorm} {
				clear(v)
			}
		}
		all = append(all, query, key, queryNorm, keyNorm)
	}
	s.fit.step(step, all)
	return nil
}

// sit measures the gates on a sequence.
func (s *gateSchool) sit(layers []reading, random *rand.Rand) {
	heads := s.gates.KeyHeads()
	losses, recalls := make([]float64, len(layers)*heads), make([]gateRecall, len(layers)*heads)
	s.judge(layers, random, func(l, head int, h *gateHead, j *judged, t truth, in *gateInput) {
		losses[l*heads+head] = h.loss(j, t.taught(s.goal), in, nil, 1)
		recalls[l*heads+head].add(s.gates.Kind, j, t, in.sees)
	})
	s.loss += average(losses)
	s.seen++
	for i := range recalls {
		s.recall[i/heads].join(&recalls[i])
	}
}

// result is the gates with what they are worth.
func (s *gateSchool) result() TrainedGates {
	out := TrainedGates{Gates: s.gates, Loss: s.loss / float64(max(1, s.seen))}
	var all gateRecall
	for l := range s.recall {
		all.join(&s.recall[l])
		out.Layers = append(out.Layers, s.recall[l].told(1))
	}
	for i := range gateDensities {
		out.Recalls = append(out.Recalls, all.told(i))
	}
	return out
}
