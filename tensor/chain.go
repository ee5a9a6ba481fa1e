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
			v -= params[Presence] + float32(n)*params[Frequency]
		}
		out[e[EditID]] = v + bias
	}
	return out
}

// row is a row of logits from which an id is drawn. Steps that keep few ids do not touch the others: a vocabulary may have 200 000.
type row struct {
	logits      []float32
	top         float32 // the largest logit
	temperature float64
}

// candidate is an id that may be chosen.
type candidate struct {
	id     int32
	weight float64 // unnormalised probability, see row.weight
	rank   float64 // what steps order by, the least first: the negative logit unless a step says otherwise
}

// choose runs the rest of the chain. Each step shortens the list of candidates; no list stands for all ids.
func choose(logits, params []float32, draws []int32) int32 {
	best := argmax(logits)
	if top := float64(logits[best]); params[Temperature] <= 0 || math.IsInf(top, 0) || math.IsNaN(top) {
		return best // greedy; or there is nothing to draw from
	}
	r := &row{logits, logits[best], float64(params[Temperature])}
	var list []candidate
	if k := int(params[TopK]); k > 0 && k < len(logits) {
		list = r.likeliest(k)
	}
	if p := float64(params[TypicalP]); p < 1 {
		list = typical(r.listed(list), p)
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

// weight is an id's unnormalised probability: exp of its scaled logit less the largest. An id whose logit is no number has none.
func (r *row) weight(id int) float64 {
	if w := math.Exp(float64(r.logits[id]-r.top) / r.temperature); w >= 0 {
		return w
	}
	return 0
}

func (r *row) candidate(id int) candidate {
	return candidate{int32(id), r.weight(id), -float64(r.logits[id])}
}

// listed is the list, or all ids where there is none.
func (r *row) listed(list []candidate) []candidate {
	if list == nil {
		list = make([]candidate, len(r.logits))
		for id := range list {
			list[id] = r.candidate(id)
		}
	}
	return list
}

// few is how many candidates are collected by insertion.
const few = 256

// likeliest is the k likeliest ids, likeliest first.
func (r *row) likeliest(k int) []candidate {
	if k > few {
		return leading(r.listed(nil), k)
	}
	best := make([]candidate, 0, k+1)
	for id, v := range r.logits { // nearly all are less likely than the last of the best
		if len(best) == k && -float64(v) >= best[k-1].rank {
			continue
		}
		c := candidate{int32(id), 0, -float64(v)}
		at, _ := slices.BinarySearchFunc(best, c, candidate.compare)
		best = slices.Insert(best, at, c)[:min(len(best)+1, k)]
	}
	for i, c := range best {
		best[i].weight = r.weight(int(c.id))
	}
	return best
}

// nucleus is the fewest likeliest ids that have share p of all weight. All those that have less than share 1-p of the mean weight have less
// than share 1-p together, so the others are enough.
func (r *row) nucleus(p float64) []candidate {
	var total float64
	for id := range r.logits {
		total += r.weight(id)
	}
	return fewest(r.above(0.99*(1-p)*total/float64(len(r.logits))), p*total)
}

// above is the ids that are at least p times as likely as the likeliest, by id.
func (r *row) above(p float64) (list []candidate) {
	least := r.top + float32(r.temperature*math.Log(p)) - 1 // well below where weights are p
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

// draw takes the id at share u of all weight.
func (r *row) draw(u float64) int32 {
	var total float64
	for id := range r.logits {
		total += r.weight(id)
	}
	left := u * total
	for id := range r.logits {
		if left -= r.weight(id); left < 0 {
			return int32(id)
		}
	}
	return int32(len(r.logits) - 1)
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

// leading is the first k candidates in their order. It reorders the list.
func leading(list []candidate, k int) []candidate {
	k = min(k, len(list))
	for rest, missing := list, k; missing > 0 && missing < len(rest); {
		switch before, after := halve(rest); {
		case missing <= before:
			rest = rest[:before]
		case missing >= after:
			rest, missing = rest[after:], missing-after
		default:
			missing = 0
		}
	}
	slices.SortFunc(list[:k], candidate.compare)
	return list[:k]
}

// fewest keeps the first candidates whose weights reach mass, at least one, in their order. It reorders the list.
func fewest(list []candidate, mass float64) []candidate {
	mass = max(mass, math.SmallestNonzeroFloat64)
	from, to, have := 0, len(list), 0. // those before from are kept, those from to on are not
	for to-from > few {
		before, after := halve(list[from:to])
		less := have + sum(list[from:][:before])
		more := less + sum(list[from+before:from+after])
		switch {
		case less >= mass:
			to = from + before
		case more >= mass:
			from, to, have = from+before, from+after, less
		default:
			from, have = from+after, more
		}
	}
	slices.SortFunc(list[from:to], candidate.compare)
	for from < to && have < mass {
		have += list[from].weight
		from++
	}
	slices.SortFunc(list[:from], candidate.compare)
	return list[:from]
}

// halve reorders a list around one of its candidates: those before go first, those from after on go last, what is between is in its place
// (Hoare 1961, Algorithm 63: Partition).
func halve(list []candidate) (before, after int) {
	pivot := list[len(list)/2]
	i, j := 0, len(list)-1
	for i <= j {
		for list[i].compare(pivot) < 0 {
			i++
		}
		for list[j].compare(pivot) > 0 {
			j--
		}
		if i <= j {
			list[i], list[j] = list[j], list[i]
			i++
			j--
		}
	}
	return j + 1, i
}

// typical keeps the fewest candidates that reach share p of the total weight, those first whose information, -log of the probability, is
// nearest to the entropy: what one would expect to be told (Meister et al. 2022, Locally Typical Sampling, section 4).
func typical(list []candidate, p float64) []candidate {
	total := sum(list)
	var entropy float64
	for _, c := range list {
		if c.weight > 0 {
			entropy -= c.weight / total * math.Log(c.weight/total)
		}
	}
	for i, c := range list {
		list[i].rank = math.Abs(-math.Log(c.weight/total) - entropy)
	}
	list = fewest(list, p*total)
	for i, c := range list {
		list[i].rank = -c.weight // orders as its logit does
	}
	return list
}

// minP drops what is less than p times as likely as the likeliest that is left. The order stays.
func minP(list []candidate, p float64) []candidate {
	if p <= 0 {
		return list
	}
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

func argmax(logits []float32) int32 {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	return int32(best)
}
