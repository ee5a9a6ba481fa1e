package moe

import "github.com/winnow-llm/winnow/tensor"

// Bank holds experts of one storage format on one device, stacked: expert slot s has rows s*width to (s+1)*width of Gate and Up and rows
// s*dim to (s+1)*dim of Down. A layer may have several banks; every physical expert is in exactly one.
type Bank struct {
	Gate tensor.Mat // slots*width x dim
	Up   tensor.Mat // slots*width x dim
	Down tensor.Mat // slots*dim x width
	Slot []int32    // physical expert -> slot in this bank, -1 = in another bank
}
