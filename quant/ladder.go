package quant

import "math"

// ladder says where a format may put the evenly spaced levels of a block: base + code*step, with codes 0..top.
type ladder struct {
	top   int
	zero  bool                                    // 0 is a level or lies between two
	place func(step, base float64) (s, b float32) // as near as the format gets to what is asked for
}

// halves is a ladder with step and base in binary16.
func halves(top int) *ladder {
	return &ladder{top: top, place: func(step, base float64) (s, b float32) {
		return toF16(step), F16ToF32(scale(float32(base)))
	}}
}

// cuts are how many codes' worth of the range of the values is left out at either end; below 0, the range is widened.
var cuts = []float64{-1, -0.25, 0, 0.25, 0.5, 0.75, 1}

// fit searches ladder and codes of a block. Leaving out the ends of the range clips them and brings the levels closer;
// widening it finds values again that are stored already and do not use the outer codes. Each ladder that beats those
// before is refitted to its codes.
func (l *ladder) fit(in *[32]float32) laddered {
	lo, hi := float64(in[0]), float64(in[0])
	for _, v := range in {
		lo, hi = min(lo, float64(v)), max(hi, float64(v))
	}
	if l.zero {
		lo, hi = min(lo, 0), max(hi, 0)
	}
	r := laddered{err: math.Inf(1)}
	put := func(step, base float64) bool {
		s, b := l.place(step, base)
		return r.try(in, l.top, s, b)
	}
	put(0, (lo+hi)/2)
	for _, below := range cuts {
		for _, above := range cuts {
			step := (hi - lo) / (float64(l.top) + below + above)
			if put(step, lo+float64(below*step)) {
				put(r.refit(in))
			}
		}
	}
	return r
}

// laddered is the ladder with the least squared error of those tried so far, and the codes of the block on it. The
// conversions of products keep the sums the same on every machine.
type laddered struct {
	step, base float32
	codes      codes
	err        float64
}

// try gives each value the nearest level and keeps the result if it beats those before.
func (r *laddered) try(in *[32]float32, top int, step, base float32) bool {
	var tried codes
	var err, inv float64
	s, b, high := float64(step), float64(base), float64(top)
	if step != 0 {
		inv = 1 / s
	}
	for i, v := range in {
		x := float64(v) - b
		y := x * inv
		if y < 0 {
			y = 0
		} else if y > high {
			y = high
		}
		k := uint8(y + 0.5)
		tried[i] = k
		diff := x - float64(float64(k)*s)
		if err += float64(diff * diff); err >= r.err {
			return false
		}
	}
	r.step, r.base, r.codes, r.err = step, base, tried, err
	return true
}

// refit is the step and base with the least squared error for the codes found.
func (r *laddered) refit(in *[32]float32) (step, base float64) {
	var q, qq, x, xq float64
	for i, v := range in {
		k := float64(r.codes[i])
		q += k
		qq += k * k
		x += float64(v)
		xq += float64(k * float64(v))
	}
	det := 32*qq - q*q // whole numbers: 0 where all codes are equal
	if det == 0 {
		return 0, x / 32
	}
	step = (float64(32*xq) - float64(q*x)) / det
	return step, (x - float64(step*q)) / 32
}
