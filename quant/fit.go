package quant

import "math"

// The K formats find their numbers in one way. A block is 256 values in sub-blocks of n = 16 or 32. Value x of sub-block
// j is kept as code q and restored as
//
//	x ≈ s*q - m    with s = d*scale[j] and m = dmin*minimum[j]
//
// where q, scale and minimum are small whole numbers and d, dmin are binary16. Formats around zero have no minimum: m = 0,
// and q can be negative. Wanted is the least sum of squared errors E. All that E needs of a sub-block is six sums:
//
//	E(s, m) = Σx² - 2s Σxq + 2m Σx + s² Σq² - 2sm Σq + nm²
//
// Three steps take turns. Each is the best choice of its own unknowns while the others stay:
//
//	codes      q = round((x+m) / s), clamped
//	sub-block  ∂E/∂s = ∂E/∂m = 0:  s = (n Σxq - Σq Σx) / (n Σq² - (Σq)²) and m = (s Σq - Σx) / n
//	           where there is no minimum, or m would be negative:  s = Σxq / Σq² and m = 0
//	block      for each value a = scale*q and b = minimum, so x ≈ d*a - dmin*b:
//	           d Σa² - dmin Σab = Σax  and  d Σab - dmin Σb² = Σbx
//
// Turns end in the nearest of many minima, which rounding makes. So a sub-block begins from several lines around the one
// that its extremes ask for, and then tries every pair (scale, minimum) that can be stored near its own (s, m), each with
// the codes and the error of that pair: what is chosen is not rounded any more.

// grid says which whole numbers a K format has.
type grid struct {
	sub              int // values per sub-block
	top, zero        int // codes as stored are 0..top; q = code - zero
	scaleLo, scaleHi int
	minimumHi        int // minimums are 0..minimumHi; 0: the format has none
}

// superblock is a block of a K format in numbers: value i, of sub-block j, is
// d*scale[j]*(code[i]-zero) - dmin*minimum[j].
type superblock struct {
	d, dmin        uint16 // binary16
	scale, minimum [16]int
	code           [256]byte // as stored
}

// line restores q as scale*q - minimum.
type line struct{ scale, minimum float64 }

// moments are the sums over a sub-block that its error depends on.
type moments struct {
	n, x, xx  float64 // of the values
	q, qq, xq float64 // with the codes
}

// fitting is the work on one block: its values, and for each sub-block the sums and the best line of the last turn.
type fitting struct {
	*grid
	value [256]float64
	sum   [16]moments
	line  [16]line
}

// Values end at far, beyond what any K format reaches (65504*128*32), and scales below faint, which is below what binary16
// holds, divide nothing: so no quotient overflows an int.
const (
	far   = 1 << 29
	faint = 0x1p-30
)

// fit finds the numbers of 256 values. NaN counts as 0, infinity as far.
func (g *grid) fit(src []float32) (best superblock) {
	f := fitting{grid: g}
	b := f.begin(src)
	least := math.Inf(1)
	for _, reach := range [...]int{3, 1, 1} {
		if e := f.search(&b, reach); e < least {
			least, best = e, b
		}
		f.balance(&b)
	}
	f.encode(&best)
	return best
}

// begin takes the values in, gives each sub-block its first line, and puts the largest scale and minimum on the largest
// whole numbers.
func (f *fitting) begin(src []float32) superblock {
	var steepest, lowest float64
	for j := range f.sum[:256/f.sub] {
		sum := moments{n: float64(f.sub)}
		x := f.of(j)
		for i, v := range src[j*f.sub:][:f.sub] {
			if v == v {
				x[i] = float64(min(max(v, -far), far))
			}
			sum.x += x[i]
			sum.xx += x[i] * x[i]
		}
		f.sum[j] = sum
		f.line[j] = f.start(j)
		if s := f.line[j].scale; math.Abs(s) > math.Abs(steepest) {
			steepest = s
		}
		lowest = max(lowest, f.line[j].minimum)
	}
	extreme := f.scaleHi
	if f.scaleLo < 0 {
		extreme = f.scaleLo
	}
	return superblock{
		d:    outward(float32(steepest / float64(extreme))),
		dmin: outward(float32(lowest / float64(max(1, f.minimumHi)))),
	}
}

// outward rounds to binary16 away from zero, at most to the largest finite one. Nothing that a small d is for gets out of
// reach, as it would where d rounds to 0.
func outward(v float32) uint16 {
	h := scale(v)
	if r := F16ToF32(h); max(r, -r) < max(v, -v) && h&0x7fff < 0x7bff {
		h++
	}
	return h
}

// of is the values of sub-block j.
func (f *fitting) of(j int) []float64 { return f.value[j*f.sub:][:f.sub] }

// start finds a line for sub-block j that need not be storable.
func (f *fitting) start(j int) (best line) {
	x, sum, least := f.of(j), f.sum[j], math.Inf(1)
	try := func(l line) bool {
		sum.q, sum.qq, sum.xq = f.round(x, l)
		l = f.solve(&sum)
		e := sum.err(l)
		better := e < least
		if better {
			least, best = e, l
		}
		return better
	}
	lo, hi := x[0], x[0]
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	if f.minimumHi > 0 { // both ends of the range, out or in by a part of the step between codes
		lo = min(lo, 0)
		step := (hi - lo) / float64(f.top)
		for _, a := range [...]float64{-0.2, 0.4} {
			for _, b := range [...]float64{-0.2, 0.4} {
				try(line{step * (1 - (a+b)/float64(f.top)), max(0, -lo-a*step)})
			}
		}
	} else { // the value of largest magnitude on the lowest code, a little beyond it, or above it
		if hi > -lo {
			lo = hi
		}
		for k := range 12 {
			try(line{scale: lo / -float64(f.zero) * (0.94 + 0.03*float64(k))})
		}
	}
	for range 2 {
		if !try(best) {
			break
		}
	}
	return best
}

// search gives every sub-block the whole numbers of least error within reach of its line, for the d and dmin of b, and
// the line that is best for the codes they give. It returns the error of the block.
func (f *fitting) search(b *superblock, reach int) (total float64) {
	d, dmin := float64(F16ToF32(b.d)), float64(F16ToF32(b.dmin))
	for j := range f.sum[:256/f.sub] {
		if f.sum[j].xx == 0 {
			b.scale[j], b.minimum[j] = 0, 0
			continue
		}
		x, sum, least := f.of(j), f.sum[j], math.Inf(1)
		s0, s1 := window(f.line[j].scale/d, reach, f.scaleLo, f.scaleHi)
		m0, m1 := window(f.line[j].minimum/dmin, reach, 0, f.minimumHi)
		for s := s0; s <= s1; s++ {
			for m := m0; m <= m1; m++ {
				l := line{d * float64(s), dmin * float64(m)}
				sum.q, sum.qq, sum.xq = f.round(x, l)
				if e := sum.err(l); e < least {
					least, f.sum[j] = e, sum
					b.scale[j], b.minimum[j] = s, m
				}
			}
		}
		total += least
		f.line[j] = f.solve(&f.sum[j])
	}
	return total
}

// window is the whole numbers in lo..hi within reach of v. Where v has no value, 0/0, it is around 0.
func window(v float64, reach, lo, hi int) (from, to int) {
	mid := int(math.Round(min(max(v, float64(lo)), float64(hi))))
	if v != v {
		mid = 0
	}
	return max(mid-reach, lo), min(mid+reach, hi)
}

// balance sets d and dmin to the best ones for the whole numbers of b and the codes of the last search.
func (f *fitting) balance(b *superblock) {
	var aa, ab, bb, ax, bx float64
	for j := range f.sum[:256/f.sub] {
		sum, s, m := &f.sum[j], float64(b.scale[j]), float64(b.minimum[j])
		aa += s * s * sum.qq
		ab += s * m * sum.q
		bb += m * m * sum.n
		ax += s * sum.xq
		bx += m * sum.x
	}
	det := aa*bb - ab*ab
	switch {
	case det > 1e-9*aa*bb:
		b.d = scale(float32((ax*bb - ab*bx) / det))
		b.dmin = scale(float32((ab*ax - aa*bx) / det))
	case aa > 0: // no minimums, or proportional to what d scales
		b.d = scale(float32((ax + float64(F16ToF32(b.dmin))*ab) / aa))
	}
}

// encode writes the codes that are nearest for the scales and minimums of b.
func (f *fitting) encode(b *superblock) {
	d, dmin := float64(F16ToF32(b.d)), float64(F16ToF32(b.dmin))
	for j := range f.sum[:256/f.sub] {
		inv, shift := f.divide(line{d * float64(b.scale[j]), dmin * float64(b.minimum[j])})
		code := b.code[j*f.sub:][:f.sub]
		for i, v := range f.of(j) {
			code[i] = byte(min(max(int(v*inv+shift), 0), f.top))
		}
	}
}

// divide returns the numbers for which v*inv + shift, cut to a whole number, is the stored code of v on line l.
func (g *grid) divide(l line) (inv, shift float64) {
	if math.Abs(l.scale) >= faint {
		inv = 1 / l.scale
	}
	return inv, l.minimum*inv + float64(g.zero) + 0.5
}

// round returns Σq, Σq² and Σxq of the codes that are nearest to x on line l.
func (g *grid) round(x []float64, l line) (q, qq, xq float64) {
	inv, shift := g.divide(l)
	top, zero := g.top, g.zero
	var sum, squares int
	for _, v := range x {
		c := min(max(int(v*inv+shift), 0), top) - zero
		sum += c
		squares += c * c
		xq += v * float64(c)
	}
	return float64(sum), float64(squares), xq
}

// solve is the best line for the codes in m.
func (g *grid) solve(m *moments) line {
	if g.minimumHi > 0 {
		if det := m.n*m.qq - m.q*m.q; det > 0 {
			s := (m.n*m.xq - m.q*m.x) / det
			if low := (s*m.q - m.x) / m.n; low >= 0 {
				return line{s, low}
			}
		} else if m.x < 0 {
			return line{0, -m.x / m.n}
		}
	}
	if m.qq == 0 {
		return line{}
	}
	return line{scale: m.xq / m.qq}
}

// err is the squared error of line l on the sub-block.
func (m *moments) err(l line) float64 {
	s, low := l.scale, l.minimum
	return m.xx - 2*s*m.xq + 2*low*m.x + s*s*m.qq - 2*s*low*m.q + m.n*low*low
}
