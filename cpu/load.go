//go:build linux && cgo && amd64

package cpu

import "github.com/winnow-llm/winnow/tensor"

// Load copies a weight.
func (d *device) Load(w tensor.Mat) (tensor.Mat, error) {
	m, err := tensor.NewMat(d, w.Format, w.Rows, w.Cols)
	if err != nil {
		return tensor.Mat{}, err
	}
	copy(m.Raw(), w.Raw())
	m.Name = w.Name
	return m, nil
}
