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
	for _, name := range in.unseen() {
		in.bad(fmt.Sprintf("%.64q", name), "is unknown: there are prefill, decode, budget, recall, threshold")
	}
	return x
}
