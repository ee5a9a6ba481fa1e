package store

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// What can be wrong with another machine, beside ErrNoModel, ErrFormat, ErrUnsupported and ErrDigest.
var (
	ErrRemote = errors.New("unexpected answer") // it breaks the protocol or its own words, or has troubles of its own
	ErrDenied = errors.New("access denied")     // it knows the user too little
	ErrPlain  = errors.New("plain HTTP is for insecure pulls and pushes only")
)

// Remote is how models come from other machines, and go there.
type Remote struct {
	Client      *http.Client // nil = one with proxies by the standard variables, and without a limit of time for a body
	Insecure    bool         // plain HTTP, and certificates of anybody
	Identity    string       // file of the ed25519 key that registries know the user by; made when it is needed and not there
	HuggingFace string       // base address of the hub; "" = https://huggingface.co
	Token       string       // for the hub; "" = none
	Parallel    int          // ranges fetched at once; 0 = 8

	pace pace // zero = usualPace
}

// pace is how patient a pull or a push is.
type pace struct {
	stall   time.Duration // a connection on which nothing moves for so long is replaced
	backoff time.Duration // before the second try; it doubles with each further one
	longest time.Duration // before any try, whatever the other side asks for
}

var usualPace = pace{stall: 30 * time.Second, backoff: 500 * time.Millisecond, longest: time.Minute}

// RemoteError says which machine did not give or not take what it was asked to, and why.
type RemoteError struct {
	Host   string // name or address, with the port where there is one
	What   string // "manifest of qwen3:8b", "blob sha256:..."
	Status int    // HTTP; 0 = it did not answer, or the status is not the trouble
	Limit  string // what is broken, with the numbers that break it
	Err    error  // a sentinel of this package, or the network's error

	passing bool          // asking again may help
	after   time.Duration // but not sooner; 0 = it does not say
}

func (e *RemoteError) Error() string {
	s := e.Host + ": " + e.What
	if e.Status != 0 {
		s += fmt.Sprintf(": HTTP %d", e.Status)
	}
	if e.Limit != "" {
		s += ": " + e.Limit
	}
	return s + ": " + e.Err.Error()
}

func (e *RemoteError) Unwrap() error { return e.Err }

// parallel is how many ranges are fetched at once.
func (r Remote) parallel() int {
	if r.Parallel <= 0 {
		return 8
	}
	return r.Parallel
}

// client makes requests and follows no redirect by itself. The func closes what it alone has open.
func (r Remote) client() (*http.Client, func()) {
	c := &http.Client{}
	if r.Client != nil {
		*c = *r.Client
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if r.Client != nil {
		return c, func() {}
	}
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext, // and so no HTTP/2, in which all ranges would share one connection
		TLSHandshakeTimeout:    15 * time.Second,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        time.Minute,
		MaxIdleConnsPerHost:    r.parallel(),
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true,
	}
	if r.Insecure {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // as the user asks for; what is pulled is checked by its digest
	}
	c.Transport = t
	return c, t.CloseIdleConnections
}
