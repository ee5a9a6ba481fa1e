package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve answers requests from a listener until ctx ends. Then it refuses new ones, lets those in progress end for DrainTimeout, ends
// what is left with a last error event, and closes the listener. It is called once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.loopback = listensLocally(ln.Addr())
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // it tells of clients' broken connections
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	select {
	case err := <-failed:
		s.cutOff()
		return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.drain()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	err := server.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	<-failed
	if err != nil {
		return fmt.Errorf("close connections: %w", err)
	}
	return nil
}

// drain lets requests end by themselves, and after DrainTimeout makes them.
func (s *Server) drain() {
	empty := s.gate.close()
	s.log.Info("draining", "timeout", s.opt.DrainTimeout)
	timer := time.NewTimer(s.opt.DrainTimeout)
	defer timer.Stop()
	select {
	case <-empty:
	case <-timer.C:
	}
	s.cutOff()
	select {
	case <-empty:
	case <-time.After(closeTimeout):
	}
}

// gate counts requests in progress: at most so many at once, and none any more once it is closed.
type gate struct {
	most int

	mu     sync.Mutex
	inside int
	closed bool
	empty  chan struct{} // closed when the gate is and nobody is inside
}

func newGate(most int) *gate { return &gate{most: most, empty: make(chan struct{})} }

// enter lets a request in, or says why not.
func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return errDraining
	case g.inside == g.most:
		return errBusy
	}
	g.inside++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.closed && g.inside == 0 {
		close(g.empty)
	}
}

// close shuts the gate for good. What it returns is closed when the last request has left.
func (g *gate) close() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		if g.closed = true; g.inside == 0 {
			close(g.empty)
		}
	}
	return g.empty
}

// draining says whether the gate is closed.
func (g *gate) draining() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}
