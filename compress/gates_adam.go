package compress

import "math"

// adam changes weights by their gradients (Kingma and Ba 2014), without decay: over some steps the rate grows, then falls along a cosine.
type adam struct {
	rate, last  float64 // the highest and the last
	steps       int
	weights     [][]float32
	first, next [][]float32 // moving means of gradients and of their squares
}

const (
	adamFirst, adamNext = 0.9, 0.999 // how much of the means stays
	adamEps             = 1e-8
	adamWarm            = 20  // steps until the rate is highest
	adamMost            = 1.0 // norm of all gradients, above which they are shortened
)

// weigh adds weights that are to change.
func (a *adam) weigh(w []float32) {
	a.weights, a.first, a.next = append(a.weights, w), append(a.first, zeros(len(w))), append(a.next, zeros(len(w)))
}

// at is the rate of a step, counted from 0.
func (a *adam) at(step int) float64 {
	warm := min(adamWarm, max(1, a.steps/2))
	if step < warm {
		return a.rate * float64(step+1) / float64(warm)
	}
	done := float64(step-warm) / float64(max(1, a.steps-warm))
	return a.last + (a.rate-a.last)*(1+math.Cos(math.Pi*done))/2
}

// step takes the gradients of the weights, in the order of weigh.
func (a *adam) step(step int, grads [][]float32) {
	square := 0.0
	for _, g := range grads {
		for _, v := range g {
			square += float64(v) * float64(v)
		}
	}
	shorter := float32(min(1, adamMost/max(math.Sqrt(square), 1e-30)))
	rate := a.at(step)
	fix1, fix2 := 1-math.Pow(adamFirst, float64(step+1)), 1-math.Pow(adamNext, float64(step+1))
	for i, g := range grads {
		w, m, n := a.weights[i], a.first[i], a.next[i]
		for j, v := range g {
			v *= shorter
			m[j] += (1 - adamFirst) * (v - m[j])
			n[j] += (1 - adamNext) * (v*v - n[j])
			w[j] -= float32(rate * (float64(m[j]) / fix1) / (math.Sqrt(float64(n[j])/fix2) + adamEps))
		}
	}
}
