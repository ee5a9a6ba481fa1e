package attentiontest

import (
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// groupsOf is what an op plans, if it plans groups.
func groupsOf(c tensortest.Case) (o interface{ Reference() }, g *attention.Groups) {
	switch o := c.Make(c.NewWorld(tensortest.Seed, c.All())).Op.(type) {
	case *attention.SelectMInference:
		return o, &o.Groups
	case *attention.SelectFlexPrefill:
		return o, &o.Groups
	}
	return nil, nil
}

// What selectors of groups plan keeps the invariants of a plan, and is no plan of everything.
func TestPlansOfGroupsHold(t *testing.T) {
	seen := 0
	for _, c := range Cases() {
		groups := strings.HasPrefix(c.Name, "minference/") || strings.HasPrefix(c.Name, "flexprefill/")
		if !groups || strings.Contains(c.Name, " F16 ") {
			continue
		}
		seen++
		o, g := groupsOf(c)
		o.Reference()
		l, p := g.Layout, g.Plan
		sparse := 0
		n := int(l.Tiles.N.I32()[0])
		for tile := range n {
			if l.Tiles.Policy.I32()[tile] != 1 {
				for h := range p.Groups { // nobody else has planned it
					p.Write(tile*p.Groups+h, 0, 0, nil, nil)
				}
			} else if p.Local.I32()[tile*p.Groups] > 0 {
				sparse++
			}
		}
		if err := p.Check(l, g.Heads); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if sparse < n/3 {
			t.Errorf("%s: %d of %d tiles leave keys away", c.Name, sparse, n)
		}
	}
	if seen == 0 {
		t.Error("there are no cases")
	}
}
