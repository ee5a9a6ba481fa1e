package tensor

import (
	"math"
	"slices"
)

// edit is a row of logits after penalties and biases; the row itself where it has none. A penalty for repetition is Keskar et al. 2019's
// (CTRL, section 4.1), extended to logits below 0; those for presence and frequency are taken away as OpenAI's API describes.
func edit(logits, params []float32, edits []int32, biases []float32) []float32 {
	if len(biases) == 0 {
		return logits
	}
	out := slices.Clone(logits)
	for i, bias := range biases {
		e := rowOf(edits, i, EditColumns)
		v := out[e[EditID]]
		switch seen := e[EditSeen] > 0; {
		case seen && v > 0:
			v /= params[Repetition]
		case seen:
			v *= params[Repetition]
		}
		if n := e[EditCount]; n > 0 {
			v -= params[Presence] + float32(float32(n)*params[Frequency])
		}
		out[e[EditID]] = v + bias
	}
	return out
}

// candidate is an id that may be chosen.
type candidate struct {
	weight float64 // see row.weigh
	rank   float32 // what steps order by, the least first: the negative logit unless a step says otherwise
	id     int32
}

// choose runs the rest of the chain. Each step shortens the list of candidates; no list stands for all ids.
func choose(logits, params []float32, draws []int32) int32 {
	best := argmax(logits)
	if top := float64(logits[best]); params[Temperature] <= 0 || math.IsInf(top, 0) || math.IsNaN(top) {
		return best // greedy; or there is nothing to draw from
	}
	r := &row{logits, logits[best], 1 / float64(params[Temperature])}
	var list []candidate
	if k := int(params[TopK]); k > 0 && k < len(logits) {
		list = r.likeliest(k)
	}
	if p := float64(params[TypicalP]); p < 1 {
		list = r.typical(list, p)
	}
	switch p := float64(params[TopP]); {
	case p < 1 && list == nil:
		list = r.nucleus(p)
	case p < 1:
		list = fewest(list, p*sum(list))
	}
	switch p := float64(params[MinP]); {
	case p > 0 && list == nil:
		list = r.above(p)
	case p > 0:
		list = minP(list, p)
	}
	if list == nil {
		return r.draw(uniform(draws))
	}
	return draw(list, uniform(draws))
}

func (r *row) candidate(id int) candidate {
	weight, _ := r.weigh(id)
	return candidate{weight, r.rank(id), int32(id)}
}

// rank is the negative logit. What is no number comes last.
func (r *row) rank(id int) float32 {
	if v := r.logits[id]; v == v {
		return -v
	}
	return float32(math.Inf(1))
}

// all is every id, by id.
func (r *row) all() []candidate {
	list := make([]candidate, len(r.logits))
	for id := range list {
		list[id] = r.candidate(id)
	}
	return list
}

// few is how many candidates are collected by insertion.
const few = 256

// likeliest is the k likeliest ids, likeliest first.
func (r *row) likeliest(k int) []candidate {
	if k > few {
		list := r.all()
		slices.SortFunc(list, candidate.compare)
		return list[:k]
	}
	if k == 0 {
		return nil
	}
	best := make([]candidate, 0, k+1)
	for id := range r.logits { // nearly all are less likely than the last of the best
		rank := r.rank(id)
		if len(best) == k && rank >= best[k-1].rank {
			continue
		}
		c := candidate{0, rank, int32(id)}
		at, _ := slices.BinarySearchFunc(best, c, candidate.compare)
		best = slices.Insert(best, at, c)[:min(len(best)+1, k)]
	}
	for i, c := range best {
		best[i].weight, _ = r.weigh(int(c.id))
	}
	return best
}

// nucleus is the fewest likeliest ids that have share p of all weight. All those that have less than share 1-p of the mean weight have less
// than share 1-p together, so the others are enough.
func (r *row) nucleus(p float64) []candidate {
	weights, _ := r.pieces()
	total := added(weights)
	return fewest(r.above(0.99*(1-p)*total/float64(len(r.logits))), p*total)
}

// above is the ids that are at least p times as likely as the likeliest, by id.
func (r *row) above(p float64) (list []candidate) {
	least := r.top + float32(math.Log(p)/r.inverse) - 1 // well below where weights are p
	for id, v := range r.logits {
		if v < least {
			continue
		}
		if c := r.candidate(id); c.weight >= p {
			list = append(list, c)
		}
	}
	return list
}

// draw takes the id at share u of all weight, piece by piece and then id by id. What rounding leaves goes to the last id, or piece, that has weight.
func (r *row) draw(u float64) int32 {
	weights, _ := r.pieces()
	left := float64(u * added(weights))
	at := 0
	for i, w := range weights {
		if w == 0 {
			continue
		}
		if at = i; left < w {
			break
		}
		left -= w
	}
	var last int
	for id := at * pieceIDs; id < min((at+1)*pieceIDs, len(r.logits)); id++ {
		w, _ := r.weigh(id)
		if w > 0 {
			last = id
		}
		if left -= w; left < 0 {
			break
		}
	}
	return int32(last)
}

func (c candidate) compare(o candidate) int {
	switch {
	case c.rank < o.rank:
		return -1
	case c.rank > o.rank:
		return 1
	}
	return int(c.id) - int(o.id)
}

// fewest keeps the first candidates whose weights reach mass, at least one, in their order. It reorders the list.
func fewest(list []candidate, mass float64) []candidate {
	mass = max(mass, math.SmallestNonzeroFloat64)
	slices.SortFunc(list, candidate.compare)
	n := 0
	for have := 0.; n < len(list) && have < mass; n++ {
		have += list[n].weight
	}
	return list[:n]
}

// typical keeps the fewest candidates that reach share p of the total weight, those first whose information, -log of the probability, is
// nearest to the entropy: what one would expect to be told (Meister et al. 2022, Locally Typical Sampling, section 4). Both hold the
// logarithm of the total, so what is compared is the scaled logit and its mean.
func (r *row) typical(list []candidate, p float64) []candidate {
	var total, moment float64
	if list == nil {
		weights, moments := r.pieces()
		total, moment = added(weights), added(moments)
		list = r.all()
	} else {
		for _, c := range list {
			weight, scaled := r.weigh(int(c.id))
			total += weight
			moment += float64(weight * scaled)
		}
	}
	mean := moment / total
	for i, c := range list {
		_, scaled := r.weigh(int(c.id))
		list[i].rank = float32(math.Abs(scaled - mean))
	}
	list = fewest(list, p*total)
	for i, c := range list {
		list[i].rank = r.rank(int(c.id))
	}
	return list
}

// minP drops what is less than p times as likely as the likeliest that is left. The order stays.
func minP(list []candidate, p float64) []candidate {
	var most float64
	for _, c := range list {
		most = max(most, c.weight)
	}
	return slices.DeleteFunc(list, func(c candidate) bool { return c.weight < p*most })
}

func sum(list []candidate) (total float64) {
	for _, c := range list {
		total += c.weight
	}
	return total
}

// draw takes the candidate at share u of the list's mass, or the last that has weight where rounding leaves some.
func draw(list []candidate, u float64) int32 {
	left := float64(u * sum(list))
	id := list[len(list)-1].id
	for _, c := range list {
		if c.weight > 0 {
			id = c.id
		}
		if left -= c.weight; left < 0 {
			break
		}
	}
	return id
}
