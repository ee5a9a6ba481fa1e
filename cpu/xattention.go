//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillSelectXAttention(e *entry, o *attention.SelectXAttention) {
	e.runs(e.kernels.select_xattention)
	e.byHead(&o.Groups, o.Gamma)
	e.numbers(o.Stride, o.Mean, o.Unit, o.Cut, o.Lead)
}
