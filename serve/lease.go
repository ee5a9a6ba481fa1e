package serve

import "time"

// Lease is a loaded model in use: it stays open at least until Release.
type Lease struct {
	*Model
	Loading time.Duration // how long its holder waited for it to load; 0 = it was there

	release func()
}

// Release gives the model back. A second Release does nothing.
func (l *Lease) Release() { l.release() }
