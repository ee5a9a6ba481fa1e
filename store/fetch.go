package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// seeEvery is how often the progress of a file is told.
const seeEvery = 100 * time.Millisecond

// copyBytes is the most that is written at once.
const copyBytes = 256 << 10

var errNoRanges = errors.New("answers with the whole file where a part was asked for")

// wanted is a file on another machine, and what it has to turn out to be.
type wanted struct {
	link   *link
	url    *url.URL
	what   string // for errors: "blob sha256:..."
	status string // for progress
	digest string // "sha256:" and 64 hex, checked
	size   int64  // bytes
	path   string // where it goes
	came   bool   // by this fetch: it was not there

	mu sync.Mutex
	at *url.URL // where redirects lead; nil = not known, or not any more

	telling sync.Mutex // not mu, which is held while the address is asked for
	told    time.Time
}

// fetchAll fetches files side by side.
func (l *link) fetchAll(ctx context.Context, files []*wanted) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cap(l.slots))
	for _, w := range files {
		g.Go(func() error { return w.fetch(ctx) })
	}
	return g.Wait()
}

// fetch puts the file in its place, unless it is there. It goes on with what is there of it; what another process or goroutine is
// fetching, it waits for. What remains of a file that fails is what the next fetch goes on with, or nothing.
func (w *wanted) fetch(ctx context.Context) (err error) {
	p, err := holdPartial(ctx, w.path, w.size, func(have int64) { w.tell(have, false) })
	if err != nil {
		return err
	}
	if p == nil {
		w.tell(w.size, true)
		return nil
	}
	defer func() { err = errors.Join(err, p.release()) }()
	w.tell(p.have.Load(), true)
	err = w.ranges(ctx, p)
	if errors.Is(err, errNoRanges) {
		err = w.whole(ctx, p)
	}
	if err != nil {
		return err
	}
	w.tell(w.size, true)
	w.link.tell(Progress{Status: "verifying sha256 digest"})
	if err := p.finish(ctx, w.digest); errors.Is(err, ErrDigest) {
		return w.wrong(err, "")
	} else if err != nil {
		return err
	}
	w.came = true
	return nil
}

// tell says how far the file is: now, or when it was last said long enough ago.
func (w *wanted) tell(have int64, now bool) {
	w.telling.Lock()
	due := now || time.Since(w.told) >= seeEvery
	if due {
		w.told = time.Now()
	}
	w.telling.Unlock()
	if due {
		w.link.tell(Progress{Status: w.status, Digest: w.digest, Total: w.size, Completed: have})
	}
}

func (w *wanted) wrong(err error, limit string, args ...any) *RemoteError {
	return &RemoteError{Host: w.url.Host, What: w.what, Limit: fmt.Sprintf(limit, args...), Err: err}
}

// ranges fetches the chunks that are not there, several at once.
func (w *wanted) ranges(ctx context.Context, p *partial) error {
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(cap(w.link.slots))
	for i := range p.done {
		if _, n := p.rest(i); n == 0 {
			continue
		}
		if inner.Err() != nil {
			break
		}
		g.Go(func() error { return w.link.persist(inner, func() (int64, error) { return w.chunk(inner, p, i) }) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// chunk makes one try at the rest of chunk i and says how far it got.
func (w *wanted) chunk(ctx context.Context, p *partial, i int) (int64, error) {
	release, err := w.link.slot(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	off, n := p.rest(i)
	resp, err := w.ask(ctx, http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, off+n-1)}})
	if err != nil {
		return 0, err
	}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		defer resp.Body.Close()
		if n, err = contentRange(resp.Header.Get("Content-Range"), off, n, w.size); err != nil {
			return 0, w.wrong(ErrRemote, "%v", err)
		}
	case http.StatusOK:
		defer resp.Body.Close()
		if off != 0 || n != w.size {
			return 0, errNoRanges
		}
		if p.discard = true; resp.ContentLength >= 0 && resp.ContentLength != n {
			return 0, w.wrong(ErrRemote, "%d bytes, should be %d", resp.ContentLength, n)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		drop(resp)
		return 0, w.wrong(ErrRemote, "ends before byte %d, should have %d bytes", off, w.size)
	default:
		return 0, refusal(resp, w.what)
	}
	got, err := w.take(ctx, resp, p, off, n)
	if _, lacks := p.rest(i); err == nil && lacks > 0 {
		short := w.wrong(ErrRemote, "gives %d of %d bytes", n, n+lacks)
		short.passing = true
		err = short
	}
	return got, err
}

// slot waits for the right to fetch a range.
func (l *link) slot(ctx context.Context) (release func(), err error) {
	select {
	case l.slots <- struct{}{}:
		return func() { <-l.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// contentRange checks the header of an answer to a request for n bytes at off of a file of size bytes, and gives the bytes that it
// promises, which may be fewer.
func contentRange(h string, off, n, size int64) (int64, error) {
	bad := fmt.Errorf("range %.60q, asked for bytes %d-%d of %d", h, off, off+n-1, size)
	span, ok := strings.CutPrefix(h, "bytes ")
	span, total, ok2 := strings.Cut(span, "/")
	first, last, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, bad
	}
	from, err := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if err != nil || err2 != nil || from != off || to < off || to >= off+n {
		return 0, bad
	}
	if total != "*" && total != strconv.FormatInt(size, 10) {
		return 0, bad
	}
	return to - from + 1, nil
}

// whole fetches the file in one piece from a machine that knows no ranges. Each try begins from zero, but what has come in ranges is given up
// only for an answer that says to have the right length: any page of any proxy can stand where a file should be.
func (w *wanted) whole(ctx context.Context, p *partial) error {
	return w.link.persist(ctx, func() (int64, error) {
		release, err := w.link.slot(ctx)
		if err != nil {
			return 0, err
		}
		defer release()
		resp, err := w.ask(ctx, nil)
		if err != nil {
			return 0, err
		}
		if resp.StatusCode != http.StatusOK {
			return 0, refusal(resp, w.what)
		}
		defer resp.Body.Close()
		if n := resp.ContentLength; n >= 0 && n != w.size {
			return 0, w.wrong(ErrRemote, "%d bytes, should be %d", n, w.size)
		} else if n < 0 && !p.discard && p.have.Load() > 0 {
			return 0, w.wrong(ErrRemote, "all in one and of unknown length, where a part of %d bytes was asked for", w.size)
		}
		p.discard = true
		if err := p.reset(); err != nil {
			return 0, err
		}
		_, err = w.take(ctx, resp, p, 0, w.size)
		return 0, err
	})
}

// ask requests the file where it was last found, or finds it. An address that has run out is forgotten, and the error passes.
func (w *wanted) ask(ctx context.Context, h http.Header) (*http.Response, error) {
	c := call{what: w.what, method: http.MethodGet, url: w.url, header: h}
	w.mu.Lock()
	if at := w.at; at != nil {
		w.mu.Unlock()
		c.url = at
		resp, err := w.link.do(ctx, c)
		if err != nil || resp.StatusCode < 400 || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			return resp, err
		}
		e := refusal(resp, w.what)
		if !e.passing {
			e.passing = true
			w.mu.Lock()
			if w.at == at {
				w.at = nil
			}
			w.mu.Unlock()
		}
		return nil, e
	}
	defer w.mu.Unlock() // others wait for what this one finds
	resp, err := w.link.do(ctx, c)
	if err == nil && resp.StatusCode < 300 {
		w.at = resp.Request.URL
	}
	return resp, err
}

// take copies n bytes, which belong at off, and says how many came. The answer has to end there.
func (w *wanted) take(ctx context.Context, resp *http.Response, p *partial, off, n int64) (got int64, err error) {
	buf := make([]byte, max(1, min(n, copyBytes)))
	for got < n {
		m, err := resp.Body.Read(buf[:min(n-got, int64(len(buf)))])
		if err2 := p.write(off+got, buf[:m]); err2 != nil {
			return got, err2
		}
		if got += int64(m); m > 0 {
			w.tell(p.have.Load(), false)
		}
		if err == io.EOF && got < n {
			short := w.wrong(ErrRemote, "ends after %d of %d bytes", off+got, off+n)
			short.passing = resp.StatusCode == http.StatusPartialContent
			return got, short
		}
		if err != nil && got < n {
			return got, w.link.failure(ctx, call{what: w.what, url: resp.Request.URL}, err)
		}
	}
	if m, _ := io.ReadFull(resp.Body, buf[:1]); m > 0 {
		return got, w.wrong(ErrRemote, "goes on after its %d bytes", n)
	}
	return got, nil
}
