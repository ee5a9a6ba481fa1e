package attention

import (
	"math"
	"testing"
)

func TestTurningAKnob(t *testing.T) {
	for _, k := range []Knob{
		{Default: 1024, Max: 1 << 24}, {Default: 5e-4, Max: 1, Down: true}, {Default: 0.9, Max: 1}, {Default: 12, Min: 1, Max: 100, Down: true},
		{Default: 0, Max: 64}, {Default: 4096, Min: 64, Max: 1 << 20},
	} {
		last := 0.0
		for i := range 101 {
			v := k.Turn(float64(i)/100, 8192)
			if err := k.Check(v); err != nil {
				t.Error(err)
			}
			if i > 0 && (k.Down && v >= last || !k.Down && v <= last) {
				t.Errorf("%+v: %v after %v", k, v, last)
			}
			last = v
		}
		if most := min(k.Max, 8192); k.Down && last != k.Min || !k.Down && last != most {
			t.Errorf("%+v ends at %v", k, last)
		}
	}
	// A threshold near 0 is turned by factors: half way between 1 and 0 are 5e-6 times 2e5 to the half.
	if v := (&Knob{Default: 5e-4, Max: 1, Down: true}).Turn(0.5, 100); math.Abs(v-5e-6*(math.Sqrt(2e5+1)-1)) > 1e-9 {
		t.Error(v)
	}
}
