package attention

import (
	"cmp"
	"math"
)

// Turn is the knob's value at x from 0, where it reads least, to 1, where it reads most, for sequences of so many keys. It is linear in x where
// the default is in the midst of what the knob can be, else logarithmic. A knob that counts keys goes up to all of them.
func (k *Knob) Turn(x float64, keys int) float64 {
	low, high := k.Min, k.Max
	if k.Default >= 1 {
		high = min(high, max(float64(keys), low))
	}
	if k.Down {
		x = 1 - x
	}
	switch {
	case x <= 0:
		return low
	case x >= 1:
		return high
	case k.Default-low >= 0.05*(high-low):
		return low + x*(high-low)
	}
	offset := cmp.Or((k.Default-low)/100, (high-low)/1e6) // what the logarithm starts from
	return min(high, max(low, low+offset*(math.Exp(x*math.Log((high-low)/offset+1))-1)))
}
