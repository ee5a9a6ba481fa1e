package cpu

import "github.com/winnow-llm/winnow/tensor"

// Packed is a folder in which a device keeps weights as its kernels read them, so that the next start reads them in place of packing them
// anew. It may lose any file, and a file that is not whole is not used.
type Packed struct {
	Dir   string // made when something is kept; "" = nothing is
	Limit int64  // most bytes of files there, the one not used longest goes first; 0 = no limit
}

// Files are the files that a model's weights are about to be loaded from.
type Files struct {
	Name   string   // of the model, for the log
	Key    string   // tells apart files with other bytes, and what decides which of their weights are loaded
	Mapped [][]byte // where the files are mapped, always in the same order; the mappings outlast the loading
}

// Loading says that weights of these files are being loaded onto a device of New's, until done is called. Those that lie in the files as they are
// given to Load are taken from the device's folder of packed weights where it has them; where it had not, and packing them has taken long, they are
// kept there from now on, in the background. Other devices do nothing.
func Loading(d tensor.Device, f Files) (done func()) {
	if k, ok := d.(interface{ loading(Files) func() }); ok {
		return k.loading(f)
	}
	return func() {}
}
