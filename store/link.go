package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxTries     = 6        // in a row that bring nothing
	maxRedirects = 10       // of one request
	minGain      = 64 << 10 // bytes; a try that gains fewer, and not all, brings nothing
)

var errStalled = errors.New("nothing arrives any more")

// link is the conversation of one pull or push with a machine and with those that it sends us to. Any goroutine may use it.
type link struct {
	client   *http.Client
	home     *url.URL // whose scheme and host credentials are for; they go nowhere else
	identity string   // file of the key that challenges are answered with; "" = they are not
	insecure bool
	pace     pace
	slots    chan struct{} // one for each range that may be fetched at once
	close    func()

	answered atomic.Bool // somebody is there: from then on troubles of the network may pass
	mu       sync.Mutex
	token    string // for home; "" = none

	seeing sync.Mutex
	see    func(Progress)
}

// link begins a conversation with the machine at home. It ends with close.
func (r Remote) link(home *url.URL, see func(Progress)) *link {
	l := &link{home: home, insecure: r.Insecure, pace: r.pace, slots: make(chan struct{}, r.parallel()), see: see}
	if l.pace == (pace{}) {
		l.pace = usualPace
	}
	l.client, l.close = r.client()
	return l
}

// tell hands a state on, one at a time.
func (l *link) tell(p Progress) {
	if l.see != nil {
		l.seeing.Lock()
		defer l.seeing.Unlock()
		l.see(p)
	}
}

// call is a request that can be made again: after a challenge, after a failure, at the address that it is redirected to.
type call struct {
	what   string // for errors
	method string
	url    *url.URL
	header http.Header
	body   func() io.Reader // nil = none
	length int64            // bytes of body
}

// do makes a call, answers a challenge of home, and follows redirects of what has no body. The answer may have any other status; its
// Request.URL is the address that it came from.
func (l *link) do(ctx context.Context, c call) (*http.Response, error) {
	asked, left := false, !l.isHome(c.url)
	if err := l.permits(c, nil); err != nil {
		return nil, err
	}
	for hops := 0; ; {
		token := ""
		if !left {
			token = l.credential()
		}
		resp, err := l.send(ctx, c, token)
		if err != nil {
			return nil, err
		}
		switch status := resp.StatusCode; {
		case status == http.StatusUnauthorized && !left && !asked && l.identity != "":
			asked = true
			challenges := resp.Header.Values("WWW-Authenticate")
			drop(resp)
			if err := l.authorize(ctx, challenges, token); err != nil {
				return nil, err
			}
		case redirects(status) && (c.method == http.MethodGet || c.method == http.MethodHead):
			next, err := resp.Location()
			drop(resp)
			if err != nil {
				return nil, &RemoteError{Host: c.url.Host, What: c.what, Status: status, Limit: "redirects to nowhere", Err: ErrRemote}
			}
			if hops++; hops > maxRedirects {
				return nil, &RemoteError{Host: c.url.Host, What: c.what, Limit: fmt.Sprintf("more than %d redirects", maxRedirects), Err: ErrRemote}
			}
			from := c.url
			c.url = next
			if err := l.permits(c, from); err != nil {
				return nil, err
			}
			left = left || !l.isHome(next)
		default:
			return resp, nil
		}
	}
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

func (l *link) isHome(u *url.URL) bool {
	return u.Scheme == l.home.Scheme && strings.EqualFold(u.Host, l.home.Host)
}

// permits says whether a call may be made to where its address leads; from is the address that redirects there, nil = nobody does.
func (l *link) permits(c call, from *url.URL) error {
	e := &RemoteError{Host: c.url.Host, What: c.what, Err: ErrRemote}
	if from != nil {
		e.Host = from.Host
	}
	switch {
	case c.url.Scheme != "https" && c.url.Scheme != "http" || c.url.Host == "":
		e.Limit = fmt.Sprintf("leads to %.100q, which is no address of the web", c.url.Redacted())
	case from != nil && from.Scheme == "https" && c.url.Scheme == "http":
		e.Limit = "redirects from https to http://" + c.url.Host
	case c.url.Scheme == "http" && !l.insecure:
		e.Err = ErrPlain
	case from != nil && !l.insecure && inward(c.url) && !inward(from):
		e.Limit = "redirects into a private network: " + c.url.Host
	default:
		return nil
	}
	return e
}

// inward says whether an address is, as it is written, of this machine or of a private network.
func inward(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	ip = ip.Unmap()
	return err == nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified())
}

// send makes one request. It fails when nothing moves for the time of the pace, and so does reading the answer, whose Close ends it.
func (l *link) send(ctx context.Context, c call, token string) (*http.Response, error) {
	inner, cancel := context.WithCancelCause(ctx)
	w := &watch{ctx: inner, cancel: cancel, stall: l.pace.stall}
	w.timer = time.AfterFunc(w.stall, func() { cancel(errStalled) })
	var body io.Reader
	if c.body != nil {
		body = &watchedReader{w, c.body()}
	}
	req, err := http.NewRequestWithContext(inner, c.method, c.url.String(), body)
	if err != nil {
		w.end()
		return nil, l.failure(ctx, c, err)
	}
	for k, v := range c.header {
		req.Header[k] = v
	}
	req.Header.Set("Accept-Encoding", "identity")
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "winnow")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if c.body != nil {
		req.ContentLength = c.length
	}
	resp, err := l.client.Do(req)
	if err != nil {
		if context.Cause(inner) == errStalled {
			err = errStalled
		}
		w.end()
		return nil, l.failure(ctx, c, err)
	}
	l.answered.Store(true)
	resp.Body = &watchedBody{w, resp.Body}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		resp.Body.Close()
		return nil, &RemoteError{Host: c.url.Host, What: c.what, Limit: fmt.Sprintf("encoded as %.40q, which was not asked for", enc), Err: ErrRemote}
	}
	return resp, nil
}

// failure is an error of the network with the machine's name, and without the address, which may hold secrets.
func (l *link) failure(ctx context.Context, c call, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	_, forged := errors.AsType[*tls.CertificateVerificationError](err)
	dns, lost := errors.AsType[*net.DNSError](err)
	return &RemoteError{Host: c.url.Host, What: c.what, Err: err, passing: l.answered.Load() && !forged && !(lost && dns.IsNotFound)}
}

// watch ends a request on which nothing moves.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

func (w *watch) moved(n int) {
	if n > 0 && w.ctx.Err() == nil {
		w.timer.Reset(w.stall)
	}
}

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// watchedReader is the body of a request.
type watchedReader struct {
	*watch
	io.Reader
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.moved(n)
	return n, err
}

// watchedBody is the body of an answer.
type watchedBody struct {
	*watch
	io.ReadCloser
}

func (w *watchedBody) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.moved(n)
	if err != nil && err != io.EOF && context.Cause(w.ctx) == errStalled {
		err = errStalled
	}
	return n, err
}

func (w *watchedBody) Close() error {
	defer w.end()
	return w.ReadCloser.Close()
}

// drop closes an answer whose little body does not matter, so that the connection can serve again.
func drop(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 16<<10)
	resp.Body.Close()
}

// refusal makes an error of an answer whose status is not as it should be, and closes it.
func refusal(resp *http.Response, what string) *RemoteError {
	e := &RemoteError{Host: resp.Request.URL.Host, What: what, Status: resp.StatusCode, Err: ErrRemote}
	var said struct {
		Error  string
		Errors []struct{ Message string }
	}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	resp.Body.Close()
	if json.Unmarshal(raw, &said) == nil {
		if len(said.Errors) > 0 {
			said.Error = cmp.Or(said.Error, said.Errors[0].Message)
		}
		if said.Error != "" {
			e.Limit = fmt.Sprintf("%.200q", said.Error)
		}
	}
	switch s := resp.StatusCode; {
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		e.Err = ErrDenied
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s == http.StatusTooEarly || s >= 500 && s != http.StatusNotImplemented:
		e.passing, e.after = true, retryAfter(resp.Header.Get("Retry-After"))
	}
	return e
}

// retryAfter reads seconds or a date; 0 where it says neither.
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// persist repeats try until it works, or fails in a way that does not pass, or has failed six times in a row without getting anywhere;
// try says how many bytes it has gained.
func (l *link) persist(ctx context.Context, try func() (int64, error)) error {
	for tries := 0; ; {
		gained, err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e, ok := errors.AsType[*RemoteError](err)
		if !ok || !e.passing {
			return err
		}
		if gained >= minGain {
			tries = 0
		}
		if tries++; tries >= maxTries {
			return err
		}
		wait := l.pace.backoff << (tries - 1)
		wait = min(l.pace.longest, max(e.after, wait/2+rand.N(wait)))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// read gives the whole body of an answer with status 200, of at most limit bytes, and its headers.
func (l *link) read(ctx context.Context, c call, limit int64) (raw []byte, h http.Header, err error) {
	err = l.persist(ctx, func() (int64, error) {
		resp, err := l.do(ctx, c)
		if err != nil {
			return 0, err
		}
		if resp.StatusCode != http.StatusOK {
			return 0, refusal(resp, c.what)
		}
		defer resp.Body.Close()
		h = resp.Header
		if resp.ContentLength <= limit {
			raw, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
		}
		switch {
		case err != nil:
			return 0, l.failure(ctx, c, err)
		case resp.ContentLength > limit || int64(len(raw)) > limit:
			return 0, &RemoteError{Host: c.url.Host, What: c.what, Limit: fmt.Sprintf("more than %d bytes", limit), Err: ErrFormat}
		}
		return 0, nil
	})
	return raw, h, err
}
