//go:build !(linux && cgo && (amd64 || arm64))

package cpu

import (
	"fmt"

	"github.com/winnow-llm/winnow/tensor"
)

// New gives the reference device: this build has no kernels. Asking for a variant that has some is an error.
func New(o Options) (tensor.Device, error) {
	if o.Variant != "" && o.Variant != "go" {
		return nil, fmt.Errorf("cpu variant %q: this build has no kernels (they need linux, amd64 or arm64, and cgo)", o.Variant)
	}
	o.say("cpu: plain Go, no kernels in this build")
	return tensor.Reference(), nil
}

// Peaks measures what plain Go computes at most.
func Peaks(o Options) ([]Peak, error) {
	if o.Variant != "" && o.Variant != "go" {
		return nil, fmt.Errorf("cpu variant %q: this build has no kernels (they need linux, amd64 or arm64, and cgo)", o.Variant)
	}
	return plainPeaks(o.Threads), nil
}
