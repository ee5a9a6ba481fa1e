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
	streamMost   = 4096 // tokens that one may generate until the prompt is read
	streamSettle = 8    // tokens whose gaps are not counted
	streamAlone  = 64   // tokens before the prompt arrives
)

// stallResult is how a long prompt and running streams disturb each other. A gap is the time between two tokens of a stream.
type stallResult struct {
	Model    string `json:"model"`
	Device   string `json:"device"`
	NThreads int    `json:"n_threads"`
	Streams  int    `json:"streams"`
	NPrompt  int    `json:"n_prompt"`
	Rounds   int    `json:"rounds"`

	BeforeP50 float64 `json:"gap_before_p50_ms"` // without the prompt
	DuringP50 float64 `json:"gap_p50_ms"`        // from its arrival to its first token
	DuringP99 float64 `json:"gap_p99_ms"`
	Longest   float64 `json:"gap_longest_ms"`    // of all streams and rounds
	P99Ratio  float64 `json:"gap_p99_ratio"`     // to BeforeP50
	Alone     float64 `json:"ttft_alone_ms"`     // of the prompt; median over rounds
	Beside    float64 `json:"ttft_beside_ms"`    // with the streams; likewise
	TTFTRatio float64 `json:"ttft_beside_ratio"` // the median of the rounds' ratios
}

// stall measures every prompt length with every number of threads.
func (b *benchmark) stall(ctx context.Context, cfg configs.Config, name string, log *slog.Logger) (results []stallResult, err error) {
	for _, threads := range b.threads {
		cfg.Threads = threads
		for _, prompt := range b.prompts {
			r, err := b.stallOf(ctx, cfg, stallResult{Model: name, NThreads: threads, Streams: b.streams, NPrompt: prompt, Rounds: b.repetitions}, log)
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
		Rows: max(cmp.Or(cfg.Rows, 512), r.Streams+1), Sequences: r.Streams + 1, Wanted: r.Streams + 1,
		Pages: long + r.Streams*short, Context: max(long, short) * attention.PageTokens,
	})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	r.Device = m.device.Name()
	w := &workout{network: n, draw: rand.New(rand.NewPCG(1, 2))}
	var all stallRound
	for i := range r.Rounds {
		log.Info("stall", "round", i+1, "of", r.Rounds, "prompt", r.NPrompt, "streams", r.Streams)
		one, err := w.stall(ctx, r.Streams, r.NPrompt)
		if err != nil {
			return r, err
		}
		all.before, all.during = append(all.before, one.before...), append(all.during, one.during...)
		all.alone, all.beside = append(all.alone, one.alone...), append(all.beside, one.beside...)
	}
	r.sum(all)
	return r, nil
}

// stallRound is what was measured, in milliseconds: gaps of all streams, times to the prompt's first token.
type stallRound struct{ before, during, alone, beside []float64 }

func (r *stallResult) sum(all stallRound) {
	r.BeforeP50, r.DuringP50, r.DuringP99 = percentile(all.before, 50), percentile(all.during, 50), percentile(all.during, 99)
	r.Longest, r.Alone, r.Beside = percentile(all.during, 100), percentile(all.alone, 50), percentile(all.beside, 50)
	r.P99Ratio = r.DuringP99 / r.BeforeP50
	var ratios []float64
	for i := range all.alone {
		ratios = append(ratios, all.beside[i]/all.alone[i])
	}
	r.TTFTRatio = percentile(ratios, 50)
}

// stall lets a prompt arrive alone, and then beside streams that have been running for a while.
func (w *workout) stall(ctx context.Context, streams, prompt int) (out stallRound, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	alone, err := w.firstToken(ctx, w.ids(prompt))
	if err != nil {
		return out, err
	}
	type ending struct {
		tokens []time.Time
		err    error
	}
	ready, read, ended := make(chan bool, streams), make(chan bool), make(chan ending, streams)
	for range streams {
		ids := w.ids(streamPrompt)
		go func() {
			tokens, err := w.stream(ctx, ids, ready, read)
			ended <- ending{tokens, err}
		}()
	}
	for range streams {
		select {
		case <-ready:
		case e := <-ended:
			return out, e.err
		}
	}
	arrived := time.Now()
	beside, err := w.firstToken(ctx, w.ids(prompt))
	if err != nil {
		return out, err
	}
	close(read)
	for range streams {
		e := <-ended
		if e.err != nil {
			return out, e.err
		}
		out.gaps(e.tokens, arrived, arrived.Add(beside))
	}
	out.alone, out.beside = []float64{milliseconds(alone)}, []float64{milliseconds(beside)}
	return out, nil
}

// firstToken is how long a prompt takes from the request to its first token.
func (w *workout) firstToken(ctx context.Context, prompt []int32) (time.Duration, error) {
	started := time.Now()
	_, err := w.ask(ctx, prompt, 1)
	return time.Since(started), err
}

// stream notes when its tokens come. It tells ready that it runs, and ends with the first token after read was closed.
func (w *workout) stream(ctx context.Context, prompt []int32, ready, read chan bool) (tokens []time.Time, err error) {
	for _, err := range w.engine.Generate(ctx, engine.Request{Prompt: prompt, MaxTokens: streamMost, Alternatives: -1}) {
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
	return nil, fmt.Errorf("a stream of %d tokens ended before the prompt was read", len(tokens))
}

// gaps adds those of one stream: before the prompt arrived, and until it was read.
func (s *stallRound) gaps(tokens []time.Time, arrived, read time.Time) {
	for i := streamSettle; i < len(tokens); i++ {
		gap := milliseconds(tokens[i].Sub(tokens[i-1]))
		switch {
		case !tokens[i].After(arrived):
			s.before = append(s.before, gap)
		case tokens[i-1].Before(read):
			s.during = append(s.during, gap)
		}
	}
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
`, r.Model, r.Device, r.NThreads, r.Streams, r.NPrompt, r.Rounds, r.BeforeP50, r.DuringP50, r.DuringP99, r.P99Ratio, r.Longest,
			r.Alone, r.Beside, r.TTFTRatio); err != nil {
			return err
		}
	}
	return nil
}
