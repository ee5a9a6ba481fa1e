//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/attention/attentiontest"
	"github.com/winnow-llm/winnow/moe/moetest"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// some is every seventh case: a number that divides none of the ranges that the lists run through.
func some() []tensortest.Case {
	var picked []tensortest.Case
	for i, c := range slices.Concat(tensortest.Cases(), attentiontest.Cases(), moetest.Cases()) {
		if i%7 == 0 {
			picked = append(picked, c)
		}
	}
	return picked
}

// No kernel touches memory beside its operands: a page that may not be touched stands before or behind each of them.
func TestCasesAtGuardPages(t *testing.T) {
	for _, v := range variants(t) {
		for _, e := range []end{front, back} {
			d := guarded(t, v, 2, e)
			for _, c := range some() {
				trial := c.Make(c.NewWorld(tensortest.Seed, c.All()))
				p, err := tensortest.PlaceTight(d, trial.Op)
				if err != nil {
					t.Fatal(err)
				}
				p.Queue.Run(trial.Op)
				finish(t, p.Queue)
				p.Free()
			}
		}
	}
}

// A shadow beside the device finds nothing, and the device computes the same under it.
func TestShadowedAgrees(t *testing.T) {
	for _, v := range variants(t) {
		name := ""
		d := tensor.Shadowed(open(t, v, 2), func(m tensor.Mismatch) { t.Errorf("%s: %v", name, m) })
		for _, c := range some() {
			if name = c.Name; c.Rows < 20 {
				tensortest.Check(t, d, c, tensortest.Seed)
			}
		}
	}
}
