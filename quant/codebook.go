package quant

import "math"

// codebook is what the codes of a format stand for, in units of a block's scale: whole numbers, in any order.
type codebook struct {
	levels []float32   // by code
	wide   [32]float64 // the same, for sums
	lo, hi float32     // the outermost levels
	near   []uint8     // code of the level nearest to each cell: cell i reaches from lo + i/2 to lo + (i+1)/2
}

// newCodebook fills the table of nearest codes. The middle between two whole numbers is a multiple of 1/2, so no cell has
// it inside.
func newCodebook(levels ...float32) *codebook {
	c := &codebook{levels: levels}
	for k, v := range levels {
		c.wide[k], c.lo, c.hi = float64(v), min(c.lo, v), max(c.hi, v)
	}
	c.near = make([]uint8, int(2*(c.hi-c.lo))+1)
	for i := range c.near {
		middle := c.lo + (float32(i)+0.5)/2
		for k, v := range levels {
			if abs(v-middle) < abs(levels[c.near[i]]-middle) {
				c.near[i] = uint8(k)
			}
		}
	}
	return c
}

// integers is the codebook of a format whose code k stands for lo+k.
func integers(lo, hi int) *codebook {
	var levels []float32
	for v := lo; v <= hi; v++ {
		levels = append(levels, float32(v))
	}
	return newCodebook(levels...)
}

func abs(v float32) float32 { return max(v, -v) }

// decode restores 32 values from 16 bytes of nibbles.
func (c *codebook) decode(dst []float32, src []byte, d float32) {
	lo, hi, levels := dst[:16:16], dst[16:32:32], c.levels[:16]
	for j, b := range src[:16] {
		lo[j] = levels[b&15] * d
		hi[j] = levels[b>>4] * d
	}
}

// fit searches scale and codes of a block. It puts the value of largest magnitude on points around both outermost levels:
// beyond them it is clipped, short of them the levels lie closer. And it puts it on every level, which finds the scale
// of values that come from this codebook. Each scale that beats those before is refitted to its codes.
func (c *codebook) fit(in *[32]float32, round func(float64) float32) scaled {
	b := scaled{err: math.Inf(1)}
	b.try(c, in, 0)
	e := float64(extreme(in[:]))
	put := func(level float64) {
		if b.try(c, in, round(e/level)) {
			b.try(c, in, round(b.refit(c, in)))
		}
	}
	points := 5 * len(c.levels) / 8
	for i := range points {
		r := 0.7 + 0.5*float64(i)/float64(points)
		put(r * float64(c.lo))
		put(r * float64(c.hi))
	}
	for _, v := range c.levels {
		if v != 0 {
			put(float64(v))
		}
	}
	return b
}

// scaled is the scale with the least squared error of those tried so far, and the codes of the block at that scale. The
// conversions of products keep the sums the same on every machine.
type scaled struct {
	scale float32
	codes codes
	err   float64
}

// try gives each value the nearest level at scale d and keeps the result if it beats those before.
func (b *scaled) try(c *codebook, in *[32]float32, d float32) bool {
	var tried codes
	var err, inv float64
	scale, lo, hi := float64(d), float64(c.lo), float64(c.hi)
	if d != 0 {
		inv = 1 / scale
	}
	for i, v := range in {
		x := float64(v)
		y := x * inv
		if y < lo {
			y = lo
		} else if y > hi {
			y = hi
		}
		k := c.near[int(2*(y-lo))]
		tried[i] = k
		diff := x - float64(c.wide[k&31]*scale)
		if err += float64(diff * diff); err >= b.err {
			return false
		}
	}
	b.scale, b.codes, b.err = d, tried, err
	return true
}

// refit is the scale with the least squared error for the codes found.
func (b *scaled) refit(c *codebook, in *[32]float32) float64 {
	var xq, qq float64
	for i, v := range in {
		q := float64(c.levels[b.codes[i]])
		xq += float64(float64(v) * q)
		qq += q * q // whole numbers
	}
	if qq == 0 {
		return 0
	}
	return xq / qq
}
