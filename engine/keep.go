package engine

import (
	"slices"
	"sync"
	"time"

	"github.com/winnow-llm/winnow/attention"
)

// keeper moves pages between the model's memory and Prefixes. The loop copies to and from buffers; reading and writing itself is for goroutines of the
// keeper's own, so that nobody who generates waits for a disk.
type keeper struct {
	to      Prefixes
	bytes   int         // of a page
	most    int         // pages of a restore
	buffers chan []byte // that no page is in; nil ones are still to be made
	writes  chan kept   // has room for all buffers
	room    []byte      // of the restore under way
	work    sync.WaitGroup

	mu      sync.Mutex
	pending map[pageID]bool // on their way out
	paused  time.Time       // until then nothing is kept, since the last one could not be
}

// kept is a page on its way out.
type kept struct {
	spilled
	bytes []byte
}

// Sizes of a keeper.
const (
	keepBytes    = 64 << 20 // pages on their way out
	restoreBytes = 16 << 20 // pages of a restore
	keepPause    = 10 * time.Second
	closeTime    = 10 * time.Second // for what is idle when an engine is closed
)

// openKeeper lets an engine keep pages, if its options say where.
func (e *Engine) openKeeper(opt *Options) {
	if opt.Prefixes == nil {
		return
	}
	e.root = e.scheduler.pool.root(opt.Identity)
	e.scheduler.pool.spills = true
	e.keeper = newKeeper(opt.Prefixes, e.model.PageBytes(), e.loop.kick)
	e.scheduler.stored = opt.Prefixes.Has // what is on its way out cannot be read yet
}

// newKeeper starts the goroutine that writes. It ends with close. kick is called after each page.
func newKeeper(to Prefixes, bytes int, kick func()) *keeper {
	n := min(max(keepBytes/bytes, mostSaved), 64)
	k := &keeper{
		to: to, bytes: bytes, most: min(max(restoreBytes/bytes, 1), 64), buffers: make(chan []byte, n), writes: make(chan kept, n),
		pending: map[pageID]bool{},
	}
	for range n {
		k.buffers <- nil
	}
	k.work.Go(func() {
		for w := range k.writes {
			ok := k.to.Save(w.id, w.depth, w.tokens[:], w.bytes)
			k.mu.Lock()
			delete(k.pending, w.id)
			if !ok {
				k.paused = time.Now().Add(keepPause)
			}
			k.mu.Unlock()
			k.buffers <- w.bytes
			kick()
		}
	})
	return k
}

// stored says whether a page is kept, or about to be.
func (k *keeper) stored(id pageID) bool {
	k.mu.Lock()
	pending := k.pending[id]
	k.mu.Unlock()
	return pending || k.to.Has(id)
}

// spare is how many pages may be kept at once.
func (k *keeper) spare() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Now().Before(k.paused) {
		return 0
	}
	return len(k.buffers)
}

// buffer is a free one; nil where there is none until late, or where nothing is kept for the moment.
func (k *keeper) buffer(late time.Time) (buf []byte) {
	k.mu.Lock()
	paused := time.Now().Before(k.paused)
	k.mu.Unlock()
	if paused {
		return nil
	}
	select {
	case buf = <-k.buffers:
	default:
		select {
		case buf = <-k.buffers:
		case <-time.After(time.Until(late)):
			return nil
		}
	}
	if buf == nil {
		buf = make([]byte, k.bytes)
	}
	return buf
}

// keep copies pages that are to be kept, and says of how many that is under way. Those for which there is no buffer, after waiting so long
// altogether, are not kept. Only who steps the model calls it.
func (e *Engine) keep(pages []spilled, wait time.Duration) (n int) {
	k, late := e.keeper, time.Now().Add(wait)
	for _, p := range pages {
		if k.stored(p.id) {
			continue
		}
		buf := k.buffer(late)
		if buf == nil {
			return n
		}
		e.model.ReadPage(p.page, buf)
		if err := e.model.Queue().Sync(); err != nil {
			k.buffers <- buf // the next step meets the device's failure too, and reports it
			return n
		}
		k.mu.Lock()
		k.pending[p.id] = true
		k.mu.Unlock()
		k.writes <- kept{p, buf}
		n++
	}
	return n
}

// endangered are pages to be kept in this turn: those that were evicted for it, and a few that will be.
func (e *Engine) endangered() (out []spilled) {
	if e.keeper == nil {
		return nil
	}
	p := e.scheduler.pool
	out, p.lost = slices.Clone(p.lost), p.lost[:0]
	if n := min(e.keeper.spare()-len(out), mostSaved); n > 0 {
		out = append(out, p.endangered(n, e.keeper.stored)...)
	}
	return out
}

// fetch begins to restore pages, if there are some to restore. The engine's mutex is held.
func (e *Engine) fetch() {
	if e.keeper == nil {
		return
	}
	k := e.keeper
	r := e.scheduler.seek(k.most)
	if r == nil {
		return
	}
	k.work.Go(func() {
		k.room = resize(k.room, len(r.ids)*k.bytes)
		bytes, whole := k.room, 0
		for i, id := range r.ids {
			tokens := r.tokens[i*attention.PageTokens:][:attention.PageTokens]
			if !k.to.Load(id, r.from+i, tokens, bytes[i*k.bytes:][:k.bytes]) {
				break
			}
			whole++
		}
		e.mu.Lock()
		r.whole, r.bytes, r.done = whole, bytes, true
		e.mu.Unlock()
		e.loop.kick()
	})
}

// restored writes the pages that were read since the last turn to the model's memory. Only the loop calls it, without the engine's mutex: until the
// next plan nobody else is given the pages, even if the sequence leaves.
func (e *Engine) restored() {
	if e.keeper == nil {
		return
	}
	e.mu.Lock()
	r := e.scheduler.restore
	if r == nil || !r.done {
		e.mu.Unlock()
		return
	}
	to := slices.Clone(e.scheduler.landing())
	e.mu.Unlock()
	for i, page := range to {
		e.model.WritePage(page, r.bytes[i*e.keeper.bytes:][:e.keeper.bytes])
	}
	err := e.model.Queue().Sync()
	e.mu.Lock()
	defer e.mu.Unlock()
	r.seq.lacking = r.seq.lacking || err != nil
	e.scheduler.land(err == nil)
}

// closeKeeper keeps what is idle, beginnings first, as far as there is time, and ends the keeper. Nobody steps the model any more.
func (e *Engine) closeKeeper() {
	k := e.keeper
	if k == nil {
		return
	}
	p := e.scheduler.pool
	var idle []spilled
	for at := p.idle.Back(); at != nil; at = at.Prev() {
		idle = append(idle, p.spilled(at.Value.(int32)))
	}
	e.keep(idle, closeTime)
	close(k.writes)
	k.work.Wait()
	e.keeper = nil
}
