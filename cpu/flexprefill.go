//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillSelectFlexPrefill(e *entry, o *attention.SelectFlexPrefill) {
	e.runs(e.kernels.select_flexprefill)
	e.groups(&o.Groups, o.Gamma)
	e.numbers(o.Least)
	e.floats(o.Tau)
}
