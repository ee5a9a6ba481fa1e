package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	frames    = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
	frameTime = 100 * time.Millisecond
	patience  = 400 * time.Millisecond // what takes less is not worth a sign
)

// wait shows on a terminal that something takes its time, and how much, until it is stopped. Elsewhere it does nothing.
func (s *session) wait(what string) (stop func()) {
	if !s.waits {
		return func() {}
	}
	over, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		began := time.Now()
		tick := time.NewTicker(frameTime)
		defer tick.Stop()
		for i, shown := 0, false; ; i++ {
			select {
			case <-over:
				if shown {
					fmt.Fprint(s.notes, "\r\x1b[K")
				}
				return
			case <-tick.C:
				if passed := time.Since(began); passed >= patience {
					shown = true
					fmt.Fprintf(s.notes, "\r%c %s%.0f s", []rune(frames)[i%len([]rune(frames))], what, passed.Seconds())
				}
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(over)
		<-left
	})
}

// respond answers, and shows that it waits for the first word.
func (s *session) respond(ctx context.Context, said string) error {
	stop := s.wait("")
	defer stop()
	s.page.first = stop
	return s.answer(ctx, said)
}
