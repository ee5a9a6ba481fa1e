package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
)

// Of the streams that a long prompt disturbs.
const (
	streamPrompt = 64   // tokens
	streamMost   = 2048 // tokens that one may generate until the prompt is read
	streamAlone  = 64   // tokens before the prompt arrives
)

// stallResult is how a long prompt and running streams disturb each other. A gap is the time between two tokens of a stream.
type stallResult struct {
	Model    string `json:"model"`
	Device   string `json:"device"`
	Experts  string `json:"moe,omitempty"` // as --moe asked
	NThreads int    `json:"n_threads"`
	Streams  int    `json:"streams"`
	NPrompt  int    `json:"n_prompt"`
	Rounds   int    `json:"rounds"`

	AloneP50  float64 `json:"gap_alone_p50_ms"` // between the same tokens of streams that no prompt disturbs
	DuringP50 float64 `json:"gap_p50_ms"`       // from its arrival to its first token
	DuringP99 float64 `json:"gap_p99_ms"`
	Longest   float64 `json:"gap_longest_ms"`    // of all streams and rounds
	P99Ratio  float64 `json:"gap_p99_ratio"`     // to AloneP50
	Alone     float64 `json:"ttft_alone_ms"`     // of the prompt; median over rounds
	Beside    float64 `json:"ttft_beside_ms"`    // with the streams; likewise
	TTFTRatio float64 `json:"ttft_beside_ratio"` // the median of the rounds' ratios
}

// stall measures every prompt length with every number of threads.
func (b *benchmark) stall(ctx context.Context, cfg configs.Config, name string, log *slog.Logger) (results []stallResult, err error) {
	for _, threads := range b.threads {
		cfg.Threads = threads
		for _, prompt := range b.prompts {
			r, err := b.stallOf(ctx, cfg, stallResult{Model: name, Experts: askedOf(b.experts), NThreads: threads, Streams: b.streams, NPrompt: prompt, Rounds: b.repetitions}, log)
			if err != nil {
				return nil, fmt.Errorf("stall by a prompt of %d tokens: %w", prompt, err)
			}
			results = append(results, r)
		}
	}
	return results, nil
}

func (b *benchmark) stallOf(ctx context.Context, cfg configs.Config, r stallResult, log *slog.Logger) (_ stallResult, err error) {
	m, err := openMachine(cfg, log)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	pagesOf := func(tokens int) int { return (tokens + attention.PageTokens - 1) / attention.PageTokens }
	long, short := pagesOf(r.NPrompt+2), pagesOf(streamPrompt+streamMost)
	n, err := m.network(r.Model, model.Limits{
		Rows: cfg.Rows, Sequences: r.Streams + 1, Wanted: r.Streams + 1,
		Pages: long + r.Streams*short, Context: max(long, short) * attention.PageTokens,
	})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	r.Device = m.device.Name()
	w := &workout{network: n, draw: rand.New(rand.NewPCG(1, 2)), experts: b.experts}
	if err := w.touch(ctx, long+r.Streams*short); err != nil {
		return r, err
	}
	var all stallRound
	for i := range r.Rounds {
		log.Info("stall", "round", i+1, "of", r.Rounds, "prompt", r.NPrompt, "streams", r.Streams)
		one, err := w.stall(ctx, r.Streams, r.NPrompt)
		if err != nil {
			return r, err
		}
		all.quiet, all.during = append(all.quiet, one.quiet...), append(all.during, one.during...)
		all.alone, all.beside = append(all.alone, one.alone...), append(all.beside, one.beside...)
	}
	r.sum(all)
	return r, nil
}

// stallRound is what was measured, in milliseconds: gaps of all streams, times to the prompt's first token.
type stallRound struct{ quiet, during, alone, beside []float64 }

func (r *stallResult) sum(all stallRound) {
	r.AloneP50, r.DuringP50, r.DuringP99 = percentile(all.quiet, 50), percentile(all.during, 50), percentile(all.during, 99)
	r.Longest, r.Alone, r.Beside = percentile(all.during, 100), percentile(all.alone, 50), percentile(all.beside, 50)
	r.P99Ratio = r.DuringP99 / r.AloneP50
	var ratios []float64
	for i := range all.alone {
		ratios = append(ratios, all.beside[i]/all.alone[i])
	}
	r.TTFTRatio = percentile(ratios, 50)
}

// stall lets a prompt arrive alone, then beside streams that have been running for a while, and then lets streams run as far without it: a
// gap grows with the tokens before it.
func (w *workout) stall(ctx context.Context, streams, prompt int) (out stallRound, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	alone, err := w.firstToken(ctx, w.ids(prompt))
	if err != nil {
		return out, err
	}
	var arrived, read time.Time
	disturbed, err := w.run(ctx, streams, streamMost, func() error {
		arrived = time.Now()
		beside, err := w.firstToken(ctx, w.ids(prompt))
		read = arrived.Add(beside)
		return err
	})
	if err != nil {
		return out, err
	}
	reached := 0
	for _, tokens := range disturbed {
		if len(tokens) == streamMost {
			return out, fmt.Errorf("a stream of %d tokens ended before the prompt was read", streamMost)
		}
		reached = max(reached, len(tokens))
		out.during = append(out.during, gaps(tokens, arrived, read)...)
	}
	quiet, err := w.run(ctx, streams, reached, nil)
	if err != nil {
		return out, err
	}
	for _, tokens := range quiet {
		out.quiet = append(out.quiet, gaps(tokens, tokens[min(streamAlone, reached)-1], tokens[reached-1])...)
	}
	out.alone, out.beside = []float64{milliseconds(alone)}, []float64{milliseconds(read.Sub(arrived))}
	return out, nil
}

// run lets streams generate, calls meanwhile, if there is such a func, when each has streamAlone tokens, and gives when their tokens came: of
// each most, or those until meanwhile returned.
func (w *workout) run(ctx context.Context, streams, most int, meanwhile func() error) (all [][]time.Time, err error) {
	type ending struct {
		tokens []time.Time
		err    error
	}
	ready, read, ended := make(chan bool, streams), make(chan bool), make(chan ending, streams)
	for range streams {
		ids := w.ids(streamPrompt)
		go func() {
			tokens, err := w.stream(ctx, ids, most, ready, read)
			ended <- ending{tokens, err}
		}()
	}
	if meanwhile != nil {
		for range streams {
			select {
			case <-ready:
			case e := <-ended:
				return nil, cmp.Or(e.err, errors.New("a stream ended early"))
			}
		}
		err = meanwhile()
		close(read)
	}
	for range streams {
		e := <-ended
		all, err = append(all, e.tokens), errors.Join(err, e.err)
	}
	return all, err
}

// touch writes to every page of the cache once, as a server has that runs for a while: what is measured are steps, not the system's first
// touch of memory, which takes milliseconds where it is virtual.
func (w *workout) touch(ctx context.Context, pages int) error {
	for ; pages > 0; pages -= streamMost / attention.PageTokens {
		if _, err := w.ask(ctx, w.ids(min(pages*attention.PageTokens, streamMost)), 1); err != nil {
			return err
		}
	}
	return nil
}

// firstToken is how long a prompt takes from the request to its first token.
func (w *workout) firstToken(ctx context.Context, prompt []int32) (time.Duration, error) {
	started := time.Now()
	_, err := w.ask(ctx, prompt, 1)
	return time.Since(started), err
}

// stream notes when its tokens come. It tells ready when it has streamAlone, and ends with its last or the first after read was closed.
func (w *workout) stream(ctx context.Context, prompt []int32, most int, ready, read chan bool) (tokens []time.Time, err error) {
	for _, err := range w.engine.Generate(ctx, engine.Request{Prompt: prompt, MaxTokens: most, Experts: w.experts, Alternatives: -1}) {
		if err != nil {
			return nil, err
		}
		if tokens = append(tokens, time.Now()); len(tokens) == streamAlone {
			ready <- true
		}
		select {
		case <-read:
			return tokens, nil
		default:
		}
	}
	return tokens, nil
}

// gaps are those of one stream that end after from and begin before to, in milliseconds.
func gaps(tokens []time.Time, from, to time.Time) (list []float64) {
	for i := 1; i < len(tokens); i++ {
		if tokens[i].After(from) && tokens[i-1].Before(to) {
			list = append(list, milliseconds(tokens[i].Sub(tokens[i-1])))
		}
	}
	return list
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// percentile is the smallest value that p percent of the sample do not exceed; 0 of none.
func percentile(v []float64, p int) float64 {
	if len(v) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(v))
	return sorted[max(0, (p*len(v)+99)/100-1)]
}

func printStall(out io.Writer, results []stallResult, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(results)
	}
	for _, r := range results {
		if _, err := fmt.Fprintf(out, `%s on %s, %d threads: %d streams, a prompt of %d tokens, %d rounds
gap between tokens, undisturbed  p50 %.1f ms
gap while the prompt is read     p50 %.1f ms, p99 %.1f ms (%.1f times the undisturbed p50), longest %.1f ms
first token of the prompt        %.0f ms alone, %.0f ms beside the streams (ratio %.2f)
`, r.Model, r.Device, r.NThreads, r.Streams, r.NPrompt, r.Rounds, r.AloneP50, r.DuringP50, r.DuringP99, r.P99Ratio, r.Longest,
			r.Alone, r.Beside, r.TTFTRatio); err != nil {
			return err
		}
	}
	return nil
}
