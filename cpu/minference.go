//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillSelectMInference(e *entry, o *attention.SelectMInference) {
	e.runs(e.kernels.select_minference)
	e.groups(&o.Groups, o.Times)
	e.numbers(o.Columns, o.Diagonals)
}
