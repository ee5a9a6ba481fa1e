package tensor

import (
	"cmp"
	"math"
	"slices"
)

// Columns of Sample.Params. A value that switches its step off stands behind it.
const (
	Temperature  = iota // logits are divided by it; 0 takes the largest
	TopK                // keep the k most likely; 0
	TopP                // keep the fewest most likely whose probabilities reach p; 1
	MinP                // keep what is at least min_p times as likely as the most likely; 0
	SampleParams        // number of columns
)

// Columns of Sample.Draws.
const (
	SeedLow      = iota // low half of the seed
	SeedHigh            // high half
	Position            // position that the new token will take in its sequence
	Alternatives        // how many of the best ids to report beside the chosen one; -1: no log-probabilities at all
	SampleDraws         // number of columns
)

// Sample chooses one id for every row: temperature, then top-k, top-p and min-p, then a draw that depends on (seed, position) alone.
// Ties go to the lower id.
type Sample struct {
	Logits Mat // rows x vocab, F32
	Params Mat // rows x SampleParams, F32
	Draws  Mat // rows x SampleDraws, I32
	IDs    Mat // rows x 1, I32: the chosen ids
	Best   Mat // rows x most alternatives, I32: the best ids by logit, as many as the row asked for
	Probs  Mat // rows x 1+most alternatives, F32: log-probability under the plain softmax of the chosen id, then of Best
	N      Mat // 1 x 1, I32: rows in use
}

// Reference works row by row.
func (o *Sample) Reference() {
	for i := range Live(o.N, o.Logits.Rows) {
		logits := rowOf(o.Logits.F32(), i, o.Logits.Cols)
		draws := rowOf(o.Draws.I32(), i, SampleDraws)
		id := choose(logits, rowOf(o.Params.F32(), i, SampleParams), draws)
		o.IDs.I32()[i] = id
		if n := int(draws[Alternatives]); n >= 0 {
			report(logits, id, rowOf(o.Best.I32(), i, o.Best.Cols)[:n], rowOf(o.Probs.F32(), i, o.Probs.Cols))
		}
	}
}

func rowOf[T any](v []T, i, cols int) []T { return v[i*cols : (i+1)*cols] }

// candidate is an id with its unnormalised probability: exp of its scaled logit less the largest.
type candidate struct {
	id     int32
	weight float64
}

// choose runs the chain. Each step shortens the list of candidates, likeliest first.
func choose(logits, params []float32, draws []int32) int32 {
	best := argmax(logits)
	if params[Temperature] <= 0 {
		return best
	}
	weigh := func(id int32) candidate {
		return candidate{id, math.Exp(float64(logits[id]-logits[best]) / float64(params[Temperature]))}
	}
	all := make([]candidate, len(logits))
	var total float64
	for id := range all {
		all[id] = weigh(int32(id))
		total += all[id].weight
	}
	list := all
	if k := int(params[TopK]); k > 0 && k < len(all) {
		list = likeliest(all, k)
		total = sum(list)
	}
	if p := float64(params[TopP]); p < 1 {
		list = topP(list, p*total)
	}
	return draw(minP(list, float64(params[MinP])), uniform(draws))
}

// likeliest is the first k candidates, likeliest first. It may reorder all.
func likeliest(all []candidate, k int) []candidate {
	order := func(a, b candidate) int { return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.id, b.id)) }
	if k >= len(all)/8 {
		slices.SortFunc(all, order)
		return all[:min(k, len(all))]
	}
	best := make([]candidate, 0, k+1)
	for _, c := range all { // nearly all are worse than the last of the best
		if len(best) == k && order(c, best[k-1]) > 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(best, c, order)
		best = slices.Insert(best, at, c)[:min(len(best)+1, k)]
	}
	return best
}

// minP drops what is less than p times as likely as the likeliest, whose weight is 1. The order stays.
func minP(list []candidate, p float64) []candidate {
	return slices.DeleteFunc(list, func(c candidate) bool { return c.weight < p })
}

// topP keeps the fewest candidates whose weights reach mass, likeliest first, at least one. Mostly they are few.
func topP(list []candidate, mass float64) []candidate {
	for k := 64; ; k *= 16 {
		var have float64
		best := likeliest(list, k)
		for i, c := range best {
			if have += c.weight; have >= mass {
				return best[:i+1]
			}
		}
		if k >= len(list) {
			return best
		}
	}
}

func sum(list []candidate) (total float64) {
	for _, c := range list {
		total += c.weight
	}
	return total
}

// draw takes the candidate at share u of the list's mass.
func draw(list []candidate, u float64) int32 {
	left := u * sum(list)
	for _, c := range list {
		if left -= c.weight; left < 0 {
			return c.id
		}
	}
	return list[len(list)-1].id
}

// uniform is a number in [0, 1) that depends on (seed, position) alone: two rounds of the splitmix64 finaliser (Steele et al. 2014).
func uniform(draws []int32) float64 {
	seed := uint64(uint32(draws[SeedHigh]))<<32 | uint64(uint32(draws[SeedLow]))
	x := mix(mix(seed) + uint64(uint32(draws[Position])))
	return float64(x>>11) / (1 << 53)
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func argmax(logits []float32) int32 {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	return int32(best)
}

// report writes the best ids and the log-probabilities of the chosen id and of the best.
func report(logits []float32, id int32, best []int32, probs []float32) {
	top := logits[argmax(logits)]
	var total float64
	for _, v := range logits {
		total += math.Exp(float64(v - top))
	}
	norm := float64(top) + math.Log(total)
	probs[0] = float32(float64(logits[id]) - norm)
	have := best[:0]
	for i, v := range logits {
		at, _ := slices.BinarySearchFunc(have, v, func(b int32, v float32) int {
			if logits[b] >= v {
				return -1
			}
			return 1
		})
		if at == len(best) {
			continue
		}
		if len(have) < len(best) {
			have = have[:len(have)+1]
		}
		copy(have[at+1:], have[at:])
		have[at] = int32(i)
	}
	for i, b := range have {
		probs[1+i] = float32(float64(logits[b]) - norm)
	}
}

// Operands lists logits, parameters, draws and count, then ids, best and probabilities.
func (o *Sample) Operands() (in, out []*Mat) {
	return []*Mat{&o.Logits, &o.Params, &o.Draws, &o.N}, []*Mat{&o.IDs, &o.Best, &o.Probs}
}

// Cost counts one read of the logits and one operation a value.
func (o *Sample) Cost() (bytes, flops int64) {
	n := int64(Live(o.N, o.Logits.Rows) * o.Logits.Cols)
	return 4 * n, n
}
