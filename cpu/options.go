// Package cpu is a device: C kernels for the machine's own processor, on threads of their own. Without kernels for the machine,
// or built without cgo, it is the reference device.
package cpu

// Options say how a device works.
type Options struct {
	Variant string       // "amx", "avx512", "avx2", "dotprod", "neon", "go" (the operations' plain Go), or "" for the best that this machine has
	Threads int          // threads that work, the caller included; 0 = one a physical core
	OneNode bool         // memory and threads lie as the system likes, on machines of several memory nodes too, see distribute
	Packed  Packed       // where packed weights are kept
	Log     func(string) // receives the start-up line and what is slower than it could be, each once; may be nil
}

func (o Options) say(line string) {
	if o.Log != nil {
		o.Log(line)
	}
}
