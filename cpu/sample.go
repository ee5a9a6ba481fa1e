//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/tensor"

func fillSample(e *entry, o *tensor.Sample) {
	e.runs(e.kernels.sample)
	e.operands(o.Logits, o.Params, o.Draws, o.Start, o.Edits, o.Biases, o.IDs, o.Best, o.Probs, o.N)
	e.numbers(o.Logits.Rows, o.Logits.Cols, o.Best.Cols, o.Probs.Cols)
}
