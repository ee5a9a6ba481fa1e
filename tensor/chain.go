package tensor

import (
	"cmp"
	"math"
	"slices"
)

// candidate is an id that may be chosen.
type candidate struct {
	id     int32
	weight float64 // unnormalised probability: exp of its scaled logit less the largest
	rank   float64 // what steps order by, the least first; less its weight unless a step says otherwise
}

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

// choose runs the rest of the chain. Each step shortens the list of candidates.
func choose(logits, params []float32, draws []int32) int32 {
	best := argmax(logits)
	if params[Temperature] <= 0 {
		return best
	}
	weigh := func(id int32) candidate {
		w := math.Exp(float64(logits[id]-logits[best]) / float64(params[Temperature]))
		return candidate{id, w, -w}
	}
	all := make([]candidate, len(logits))
	var total float64
	for id := range all {
		all[id] = weigh(int32(id))
		total += all[id].weight
	}
	list := all
	if k := int(params[TopK]); k > 0 && k < len(all) {
		list = first(all, k)
		total = sum(list)
	}
	if p := float64(params[TypicalP]); p < 1 {
		list = typical(list, p, total)
		total = sum(list)
	}
	if p := float64(params[TopP]); p < 1 {
		list = fewest(list, p*total)
	}
	return draw(minP(list, float64(params[MinP])), uniform(draws))
}

// first is the first k candidates in their order. It may reorder all.
func first(all []candidate, k int) []candidate {
	order := func(a, b candidate) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.id, b.id)) }
	if k >= len(all)/8 {
		slices.SortFunc(all, order)
		return all[:min(k, len(all))]
	}
	best := make([]candidate, 0, k+1)
	for _, c := range all { // nearly all are behind the last of the best
		if len(best) == k && order(c, best[k-1]) > 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(best, c, order)
		best = slices.Insert(best, at, c)[:min(len(best)+1, k)]
	}
	return best
}

// fewest keeps the first candidates, in their order, whose weights reach mass, at least one. Mostly they are few.
func fewest(list []candidate, mass float64) []candidate {
	for k := 64; ; k *= 16 {
		var have float64
		best := first(list, k)
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

// typical keeps the fewest candidates that reach share p of the total weight, those first whose information, -log of the probability, is
// nearest to the entropy: what one would expect to be told (Meister et al. 2022, Locally Typical Sampling, section 4).
func typical(list []candidate, p, total float64) []candidate {
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
		list[i].rank = -c.weight
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
