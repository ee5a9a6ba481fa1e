//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillSelectAnchor(e *entry, o *attention.SelectAnchor) {
	e.runs(e.kernels.select_anchor)
	e.byHead(&o.Groups, o.Theta)
	soft := 0
	if o.Soft {
		soft = 1
	}
	e.numbers(o.Block, o.Unit, o.Single, max(o.Block, attention.PageTokens), o.Lead, o.Every, soft)
}
