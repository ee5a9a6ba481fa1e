package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestChunkEndsAnywhere breaks a prompt that is computed in parts beside a stream, at every sync of the device in turn: by a failure of the
// device, by its client leaving, and by the engine closing. Whoever is not concerned gets what he gets alone, and no page is lost.
func TestChunkEndsAnywhere(t *testing.T) {
	all := requests(7)
	stream, prompt := all[1], all[6]
	stream.MaxTokens = 20
	want := alone(t, []Request{stream, prompt})
	var between atomic.Bool // some run had a chunk between two layers
	for at := range 42 {    // at 0 nothing breaks
		for _, how := range []string{"fails", "left", "closed"} {
			e, d := open(t, ample)
			e.mu.Lock()
			e.scheduler.pace.cost = [2]time.Duration{time.Hour, time.Hour} // so that a part is one block of eight rows
			e.mu.Unlock()
			ctx, leave := context.WithCancel(t.Context())
			syncs := 0
			var over atomic.Bool // both have ended: what follows must not break
			d.atSync = func() error {
				if n := e.parts.block; n > 0 && n < e.model.Blocks() {
					between.Store(true)
				}
				if syncs++; syncs == at && !over.Load() {
					switch how {
					case "fails":
						return errors.New("broken")
					case "left":
						leave()
					case "closed":
						go e.Close()
					}
				}
				return nil
			}
			var beside sync.WaitGroup
			started := false
			var tokens []Token
			var err error
			for tok, serr := range e.Generate(t.Context(), stream) {
				if err = serr; err != nil {
					break
				}
				if tokens = append(tokens, tok); !started {
					started = true
					beside.Go(func() {
						got, err := collect(e.Generate(ctx, prompt))
						if err == nil {
							if err := same(got, want[1]); err != nil {
								t.Errorf("%s at %d: the prompt: %v", how, at, err)
							}
						} else if !errors.Is(err, map[string]error{"fails": ErrStep, "left": context.Canceled, "closed": ErrClosed}[how]) {
							t.Errorf("%s at %d: the prompt: %v", how, at, err)
						}
					})
				}
			}
			beside.Wait()
			over.Store(true)
			if err == nil {
				err = same(tokens, want[0])
			}
			if err != nil && !(how == "fails" && errors.Is(err, ErrStep)) && !(how == "closed" && errors.Is(err, ErrClosed)) {
				t.Errorf("%s at %d: the stream: %v", how, at, err)
			}
			if how != "closed" {
				empty(t, e)
			}
			leave()
			e.Close()
			if u := e.Usage(); u.PagesUsed != 0 || u.Running != 0 {
				t.Errorf("%s at %d: left %+v", how, at, u)
			}
		}
	}
	if !between.Load() {
		t.Error("the prompt was never computed in parts")
	}
}
