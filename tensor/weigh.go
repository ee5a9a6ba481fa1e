package tensor

import "math"

// How Sample weighs the ids of a row. Draws must not depend on the device, so every operation on float64 here is one that all processors round
// alike, in a given order: products and sums that are not fused, for which the conversions stand.

// row is a row of logits from which an id is drawn. Steps that keep few ids do not touch the others: a vocabulary may have 200 000.
type row struct {
	logits  []float32
	top     float32 // the largest logit
	inverse float64 // 1 / temperature
}

// faintest is the least scaled logit, taken from the largest, that has a weight. Smaller ones count as faintest, without weight.
const faintest = -700

// weigh is an id's weight, its unnormalised probability, and the scaled logit less the largest whose exponential it is. An id whose logit is no
// number has no weight.
func (r *row) weigh(id int) (weight, scaled float64) {
	x := float64(r.logits[id]-r.top) * r.inverse
	if !(x >= faintest) {
		return 0, faintest
	}
	return exp(x), x
}

// exp is e^x within a share of 1e-11, for x from faintest to 1: 2^n times the Taylor polynomial of e^y, y = x - n ln 2.
func exp(x float64) float64 {
	const shift = 3 << 51 // adding it rounds to whole numbers, which its low bits then hold
	t := float64(x*math.Log2E) + shift
	n := t - shift
	y := x - float64(n*0x1.62e42feep-1) // ln 2 in two parts; n times the first is exact
	y -= float64(n * 0x1.a39ef35793c76p-33)
	p := 1. / 362880
	for _, c := range [...]float64{1. / 40320, 1. / 5040, 1. / 720, 1. / 120, 1. / 24, 1. / 6, 1. / 2, 1, 1} {
		p = float64(p*y) + c
	}
	return math.Float64frombits(math.Float64bits(p) + math.Float64bits(t)<<52)
}

// ln is the natural logarithm of x > 0 within a share of 1e-15: of the mantissa m in [1/2, 2] as twice the artanh of (m-1)/(m+1), by its series.
func ln(x float64) float64 {
	m, e := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m *= 2
		e--
	}
	s := (m - 1) / (m + 1)
	q := float64(s * s)
	p := 1. / 23
	for k := 21; k > 0; k -= 2 {
		p = float64(p*q) + 1/float64(k)
	}
	return float64(2*s*p) + float64(float64(e)*math.Ln2)
}

// Sums over a row are those of its pieces, in order; that of a piece is made in lanes, whose ids are as many apart, which are then added in halves.
const (
	pieceIDs  = 4096
	sumsLanes = 16
)

// pieces is the sum of weights of each piece, and of weights times scaled logits.
func (r *row) pieces() (weights, moments []float64) {
	for from := 0; from < len(r.logits); from += pieceIDs {
		var w, m [sumsLanes]float64
		for id := from; id < min(from+pieceIDs, len(r.logits)); id++ {
			weight, scaled := r.weigh(id)
			w[id%sumsLanes] += weight
			m[id%sumsLanes] += float64(weight * scaled)
		}
		weights, moments = append(weights, folded(w)), append(moments, folded(m))
	}
	return weights, moments
}

func folded(v [sumsLanes]float64) float64 {
	for half := sumsLanes / 2; half > 0; half /= 2 {
		for i := range half {
			v[i] += v[i+half]
		}
	}
	return v[0]
}

func added(v []float64) (total float64) {
	for _, x := range v {
		total += x
	}
	return total
}

// argmax is the first id of the largest logit; 0 where none is a number.
func argmax(logits []float32) int32 {
	best := 0
	for i, v := range logits {
		if v > logits[best] || logits[best] != logits[best] && v == v {
			best = i
		}
	}
	return int32(best)
}
