package serve

import "time"

// Lease is a loaded model in use: it stays open at least until Release. It is of one goroutine.
type Lease struct {
	*Model
	Loading time.Duration // how long its holder waited for it to load; 0 = it was there

	slot    *slot
	keep    *time.Duration
	release func()
}

// Keep says how long the model stays loaded after Release if nobody asks for it: below 0 for ever, 0 not at all. It holds until another
// lease says otherwise, or the model is unloaded; pinned models stay in any case.
func (l *Lease) Keep(d time.Duration) { l.keep = &d }

// Release gives the model back. A second Release does nothing.
func (l *Lease) Release() { l.release() }
