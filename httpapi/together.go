package httpapi

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"sync"

	"github.com/winnow-llm/winnow/serve"
)

// part is a piece of one of several answers, or the error that ended it.
type part struct {
	choice int
	delta  serve.Delta
	err    error
}

// together runs answers side by side, mostChoices at a time, and hands out their parts as they come. The channel is closed when all
// have ended; after ctx is cancelled they end soon, whoever reads or not.
func together(ctx context.Context, answers []iter.Seq2[serve.Delta, error]) <-chan part {
	out := make(chan part)
	room := make(chan struct{}, mostChoices)
	var running sync.WaitGroup
	go func() {
		defer close(out)
		defer running.Wait()
		for i, answer := range answers {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return
			}
			running.Go(func() {
				run(ctx, i, answer, out)
				<-room
			})
		}
	}()
	return out
}

// run ranges over one answer. A panic in it is one request's failure, not the process's.
func run(ctx context.Context, i int, answer iter.Seq2[serve.Delta, error], out chan<- part) {
	send := func(p part) bool {
		select {
		case out <- p:
			return true
		case <-ctx.Done():
			return false
		}
	}
	defer func() {
		if p := recover(); p != nil {
			send(part{choice: i, err: fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())})
		}
	}()
	for d, err := range answer {
		if !send(part{choice: i, delta: d, err: err}) {
			return
		}
	}
}
