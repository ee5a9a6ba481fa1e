package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/store"
)

// progress shows how far a pull or a push is. One goroutine at a time calls it.
type progress interface {
	see(store.Progress)
	close() // the last state stays on the screen
}

// showProgress shows progress where notes go: as bars on a terminal, else in lines.
func showProgress(c *cobra.Command) progress {
	if out := terminalOf(c.ErrOrStderr()); out != nil && configs.ReadScreen().Codes {
		return &bars{out: out, open: func() *mpb.Progress {
			return mpb.New(mpb.WithOutput(out), mpb.WithWidth(64), mpb.WithRefreshRate(150*time.Millisecond))
		}}
	}
	return &lines{out: c.ErrOrStderr(), tenths: map[string]int64{}}
}

// lines is progress for logs: each status once, and of each file every tenth.
type lines struct {
	out    io.Writer
	tenths map[string]int64 // of each file by its digest; of a status without a file, that it was shown
}

const littleFile = 1 << 20 // bytes; of smaller files only their ends are shown

func (l *lines) see(p store.Progress) {
	if p.Digest == "" || p.Total == 0 { // no file, or one that does not move
		if _, shown := l.tenths[p.Status]; !shown {
			l.tenths[p.Status] = 1
			fmt.Fprintln(l.out, p.Status)
		}
		return
	}
	tenth := int64(10)
	if p.Completed < p.Total {
		tenth = int64(10 * float64(p.Completed) / float64(p.Total))
	}
	last, shown := l.tenths[p.Digest]
	if shown && tenth <= last || tenth < 10 && p.Total < littleFile {
		return
	}
	l.tenths[p.Digest] = tenth
	fmt.Fprintf(l.out, "%s: %d%% of %s\n", p.Status, 10*tenth, size(p.Total))
}

func (l *lines) close() {}

// bars is progress for a terminal: a bar for each file, and lines above bars that still move, or below those that are full.
type bars struct {
	out    io.Writer
	open   func() *mpb.Progress
	screen *mpb.Progress       // nil where no bar moves
	files  map[string]*fileBar // by digest; nil = it is full and stays
	said   []string
}

// fileBar is the bar of one file.
type fileBar struct {
	*mpb.Bar
	seen time.Time
}

func (b *bars) see(p store.Progress) {
	if p.Digest == "" || p.Total == 0 {
		b.say(p.Status)
		return
	}
	if f, known := b.files[p.Digest]; known && f == nil {
		return
	}
	if b.screen == nil {
		b.screen = b.open()
	}
	if b.files == nil {
		b.files = map[string]*fileBar{}
	}
	f := b.files[p.Digest]
	if f == nil {
		f = &fileBar{Bar: b.screen.AddBar(p.Total,
			mpb.PrependDecorators(decor.Name(p.Status, decor.WCSyncSpaceR), decor.Percentage(decor.WCSyncSpace)),
			mpb.AppendDecorators(
				decor.Counters(decor.SizeB1000(0), "% .1f / % .1f", decor.WCSyncSpace),
				decor.OnComplete(decor.EwmaSpeed(decor.SizeB1000(0), "% .1f", 30, decor.WCSyncSpace), ""),
				decor.OnComplete(decor.EwmaETA(decor.ET_STYLE_GO, 30, decor.WCSyncSpace), ""),
			)), seen: time.Now()}
		b.files[p.Digest] = f
		f.SetCurrent(p.Completed)
		f.SetRefillCurrent() // came earlier, and says nothing of the speed
		return
	}
	now := time.Now()
	if p.Completed > f.Current() {
		f.EwmaSetCurrent(p.Completed, now.Sub(f.seen))
	} else {
		f.SetCurrent(p.Completed)
	}
	f.seen = now
}

// say writes a status, once.
func (b *bars) say(status string) {
	if slices.Contains(b.said, status) {
		return
	}
	b.said = append(b.said, status)
	if b.screen == nil || b.rest() {
		fmt.Fprintln(b.out, status)
		return
	}
	fmt.Fprintln(b.screen, status) // drawn with the bars, the next time that one moves
}

// rest leaves the bars as they are when all are full, and says whether they are.
func (b *bars) rest() bool {
	for _, f := range b.files {
		if f != nil && !f.AbortedOrCompleted() {
			return false
		}
	}
	b.screen.Wait()
	b.screen = nil
	for digest := range b.files {
		b.files[digest] = nil
	}
	return true
}

func (b *bars) close() {
	if b.screen == nil {
		return
	}
	for _, f := range b.files {
		if f != nil {
			f.Abort(false) // one that is full stays so
		}
	}
	b.rest()
}
