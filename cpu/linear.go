//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"fmt"

	"github.com/winnow-llm/winnow/tensor"
)

func fillLinear(e *entry, o *tensor.Linear) {
	if o.X.Cols != o.W.Cols || o.Y.Cols != o.W.Rows {
		panic(fmt.Sprintf("winnow: bug: cpu: %s times %s gives %s", o.X, o.W, o.Y))
	}
	e.runs(e.kernels.linear)
	w := weights(&o.W)
	e.operands(o.X, o.W, o.B, o.Y, o.N)
	e.numbers(o.X.Rows, o.W.Cols, o.W.Rows, int(w.kind))
}
