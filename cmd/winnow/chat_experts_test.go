package main

import (
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/serve"
)

// A wish about experts is set, shown, taken back, and leaves earlier copies as they were.
func TestExpertParameters(t *testing.T) {
	var g serve.Generation
	for _, name := range []string{"moe_top_k", "moe_min_p", "moe_skip_beta", "moe_mass"} {
		before := g
		if err := setParameter(&g, name, []string{"1"}); err != nil {
			t.Fatal(err)
		}
		p, err := findParameter(name)
		if err != nil || p.wish(&g) != "1" || p.wish(&before) != "" || !p.experts {
			t.Errorf("%s is %q, before it was %q, %v", name, p.wish(&g), p.wish(&before), err)
		}
		for _, bad := range []string{"-1", "x", "1e9"} {
			if err := setParameter(&g, name, []string{bad}); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s %s: %v", name, bad, err)
			}
		}
	}
	for _, name := range []string{"moe_min_p", "moe_mass", "moe_skip_beta", "moe_top_k"} {
		if err := setParameter(&g, name, []string{"default"}); err != nil {
			t.Fatal(err)
		}
	}
	if g.Experts != nil {
		t.Errorf("%+v is left", g.Experts)
	}
}
