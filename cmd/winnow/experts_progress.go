package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/winnow-llm/winnow/configs"
)

// tokenProgress shows how many tokens a model has read. One goroutine calls it.
type tokenProgress interface {
	see(tokens int64) // the first call tells how many an earlier run has read
	close()           // the last state stays on the screen
}

// showTokens shows progress where notes go: as a bar on a terminal, else in lines.
func showTokens(c *cobra.Command, total int64) tokenProgress {
	if out := terminalOf(c.ErrOrStderr()); out != nil && configs.ReadScreen().Codes {
		return &tokenBar{screen: mpb.New(mpb.WithOutput(out), mpb.WithWidth(64), mpb.WithRefreshRate(150*time.Millisecond)), total: total}
	}
	return &tokenLines{out: c.ErrOrStderr(), total: total}
}

// tokenLines is progress for logs: every tenth.
type tokenLines struct {
	out   io.Writer
	total int64
	seen  bool
	tenth int64
}

func (l *tokenLines) see(tokens int64) {
	tenth := 10 * tokens / l.total
	switch {
	case !l.seen && tokens > 0:
		fmt.Fprintf(l.out, "goes on from token %d of %d\n", tokens, l.total)
	case l.seen && tenth > l.tenth:
		fmt.Fprintf(l.out, "%d of %d tokens\n", tokens, l.total)
	}
	l.seen, l.tenth = true, tenth
}

func (l *tokenLines) close() {}

// tokenBar is progress for a terminal.
type tokenBar struct {
	screen *mpb.Progress
	total  int64
	bar    *mpb.Bar // nil until something was seen
	last   time.Time
}

func (b *tokenBar) see(tokens int64) {
	now := time.Now()
	if b.bar == nil {
		b.bar = b.screen.AddBar(b.total, mpb.PrependDecorators(decor.Name("tokens ", decor.WCSyncSpaceR), decor.Percentage(decor.WCSyncSpace)),
			mpb.AppendDecorators(decor.CountersNoUnit("%d / %d", decor.WCSyncSpace), decor.OnComplete(decor.EwmaETA(decor.ET_STYLE_GO, 30, decor.WCSyncSpace), "")))
		b.bar.SetCurrent(tokens)
		b.bar.SetRefillCurrent() // read earlier, and says nothing of the speed
	} else if tokens > b.bar.Current() {
		b.bar.EwmaSetCurrent(tokens, now.Sub(b.last))
	}
	b.last = now
}

func (b *tokenBar) close() {
	if b.bar != nil {
		b.bar.Abort(false) // one that is full stays so
	}
	b.screen.Wait()
}
