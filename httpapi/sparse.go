package httpapi

import (
	"fmt"

	"github.com/winnow-llm/winnow/serve"
)

// mostBudget bounds a number of keys.
const mostBudget = 1 << 24

// readSparse reads sparse: by which selectors the tokens read. Whether the model is served with them shows later.
func readSparse(o *object) *serve.Sparsity {
	in := o.inner("sparse")
	if in == nil {
		return nil
	}
	x := &serve.Sparsity{
		Prefill: first(in.text("prefill"), ""), Decode: first(in.text("decode"), ""),
		Budget: int(first(in.integer("budget", 1, mostBudget), 0)), Recall: first(in.share("recall"), 0), Threshold: in.number("threshold", -1e6, 1e6),
	}
	if x.Pages = first(in.text("pages"), ""); x.Pages != "" && x.Pages != serve.AllPages && x.Pages != serve.FewPages {
		in.bad("pages", "is %.40q, want %q or %q", x.Pages, serve.AllPages, serve.FewPages)
	}
	for _, name := range in.unseen() {
		in.bad(fmt.Sprintf("%.64q", name), "is unknown: there are prefill, decode, budget, recall, threshold, pages")
	}
	return x
}

// sparseUsage is what the tokens that were computed read, over all query heads and layers whose keys selectors chose.
type sparseUsage struct {
	Density   float64  `json:"density"`             // share of the visible keys that were read
	Read      int64    `json:"keys_read"`           // summed over tokens, query heads and layers
	Visible   int64    `json:"keys_visible"`        // likewise
	Recall    *float64 `json:"recall"`              // share of the softmax that the probed tokens read, the mean; null where none was
	Least     *float64 `json:"least_recall"`        // of a probed token
	Probes    int      `json:"probes"`              // tokens of which the rest was looked at too
	Budget    int      `json:"budget,omitempty"`    // keys that decoding keeps by the end; of several answers, the most
	Held      int      `json:"pages_held"`          // pages of the cache at the end; of several answers, the sum
	Freed     int      `json:"pages_freed"`         // pages that were given back, or not needed at all; likewise
	Fallbacks []string `json:"fallbacks,omitempty"` // what was changed for the sake of recall, and why
}

// tallySparse sums up answers; nil where all of them read everything.
func tallySparse(all []serve.Usage) *sparseUsage {
	var u sparseUsage
	var mass float64
	least, asked := 1.0, false
	for _, one := range all {
		x := one.Sparse
		if x == nil {
			continue
		}
		asked = true
		u.Read, u.Visible, u.Probes = u.Read+int64(x.Read), u.Visible+int64(x.Visible), u.Probes+x.Probes
		mass, least, u.Budget = mass+x.Mass, min(least, x.Least), max(u.Budget, x.Budget)
		u.Held, u.Freed = u.Held+x.Held, u.Freed+x.Freed
		u.Fallbacks = append(u.Fallbacks, x.Fallbacks...)
	}
	if !asked {
		return nil
	}
	if u.Density = 1; u.Visible > 0 {
		u.Density = float64(u.Read) / float64(u.Visible)
	}
	if u.Probes > 0 {
		mean := mass / float64(u.Probes)
		u.Recall, u.Least = &mean, &least
	}
	return &u
}
