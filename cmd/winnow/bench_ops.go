package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// opsResult is where the time of a prompt and of generation goes, op by op, beside the machine's roof. Every op is waited for, so the
// whole is slower than a benchmark without.
type opsResult struct {
	Model      string    `json:"model"`
	Device     string    `json:"device"`
	NThreads   int       `json:"n_threads"`
	RoofGBs    float64   `json:"roof_gb_s"`     // what this machine reads from memory
	RoofGFlops float64   `json:"roof_gflop_s"`  // what the device computes in a product that its caches hold
	RoofFormat string    `json:"weight_format"` // of that product's weights: the one that most weights of the model have
	Phases     []opPhase `json:"phases"`
}

// opPhase is one request.
type opPhase struct {
	Phase   string   `json:"phase"` // prefill or decode
	Tokens  int      `json:"tokens"`
	Seconds float64  `json:"seconds"` // from the request to its last token
	Ops     []opCost `json:"ops"`     // most time first
}

// opCost is what all runs of one class of op took.
type opCost struct {
	Op        string  `json:"op"`
	Calls     int     `json:"calls"`
	Seconds   float64 `json:"seconds"`
	Share     float64 `json:"share"` // of the phase
	GBs       float64 `json:"gb_s"`
	GFlops    float64 `json:"gflop_s"`
	RoofShare float64 `json:"roof_share"` // of the time that the nearer roof allows; operands in caches may take it past 1

	bytes, flops int64
}

// runOps traces one prompt (-p) and one generation (-n).
func (b *benchmark) runOps(c *cobra.Command, name string) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	if len(b.threads) > 0 {
		cfg.Threads = b.threads[0]
	}
	if cfg.Threads <= 0 {
		cfg.Threads = runtime.NumCPU()
	}
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	weights := &weighed{Device: m.device, bytes: map[*quant.Format]int64{}}
	sums := &opSums{}
	m.device = tensor.Traced(weights, sums.add)
	n, err := m.network(name, b.limits(cfg.Rows))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()

	f := weights.most()
	r := opsResult{Model: name, Device: m.device.Name(), NThreads: cfg.Threads, RoofGBs: readBandwidth(cfg.Threads), RoofFormat: f.Name}
	if r.RoofGFlops, err = productRate(weights.Device, f); err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	w := &workout{network: n, draw: rand.New(rand.NewPCG(1, 2)), experts: b.experts}
	past := w.ids(b.depths[0])
	if err := w.cache(ctx, past); err != nil {
		return err
	}
	for _, t := range firstOfEach(b.tests()) {
		p, err := w.trace(ctx, t, past, sums)
		if err != nil {
			return err
		}
		for i := range p.Ops {
			p.Ops[i].rate(p.Seconds, r.RoofGBs, r.RoofGFlops)
		}
		r.Phases = append(r.Phases, p)
	}
	if b.asJSON || b.form == "json" {
		return writeJSON(c.OutOrStdout(), r)
	}
	return printOps(c.OutOrStdout(), &r)
}

// firstOfEach is the first test of a prompt and the first of generation.
func firstOfEach(tests []trial) (out []trial) {
	for i, t := range tests {
		if !slices.ContainsFunc(tests[:i], func(u trial) bool { return (u.gen > 0) == (t.gen > 0) }) {
			out = append(out, t)
		}
	}
	return out
}

// trace runs a test twice and keeps the second: the first pages memory in.
func (w *workout) trace(ctx context.Context, t trial, past []int32, sums *opSums) (opPhase, error) {
	p := opPhase{Phase: "decode", Tokens: t.gen}
	prompt, most := 1, t.gen // the first token comes of a step of one row as well
	if t.prompt > 0 {
		p.Phase, p.Tokens, prompt, most = "prefill", t.prompt, t.prompt, 1
	}
	for range 2 {
		sums.start()
		started := time.Now()
		if _, err := w.ask(ctx, w.after(past, prompt), most); err != nil {
			return p, err
		}
		p.Seconds = time.Since(started).Seconds()
	}
	p.Ops = sums.stop()
	return p, nil
}

// opSums adds up spans by the class of their op while it is asked to.
type opSums struct {
	mu  sync.Mutex // spans come from the loop's goroutine
	ops map[string]*opCost
}

func (s *opSums) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops = map[string]*opCost{}
}

// stop gives the sums, most time first.
func (s *opSums) stop() (all []opCost) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.ops {
		all = append(all, *c)
	}
	s.ops = nil
	slices.SortFunc(all, func(a, b opCost) int { return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Op, b.Op)) })
	return all
}

func (s *opSums) add(span tensor.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ops == nil {
		return
	}
	c := s.ops[span.Op]
	if c == nil {
		c = &opCost{Op: span.Op}
		s.ops[span.Op] = c
	}
	c.Calls++
	c.Seconds += span.Duration.Seconds()
	c.bytes += span.Bytes
	c.flops += span.Flops
}

// rate fills in what follows from the sums: roofs are in 1e9 a second.
func (c *opCost) rate(phase, roofBytes, roofFlops float64) {
	bytes, flops, took := float64(c.bytes)/1e9, float64(c.flops)/1e9, max(c.Seconds, 1e-9)
	c.Share, c.GBs, c.GFlops = c.Seconds/phase, bytes/took, flops/took
	c.RoofShare = max(bytes/roofBytes, flops/roofFlops) / took
}

// weighed is a device that notes in which formats weights come.
type weighed struct {
	tensor.Device
	bytes map[*quant.Format]int64
}

func (w *weighed) Load(m tensor.Mat) (tensor.Mat, error) {
	w.bytes[m.Format] += int64(m.Bytes())
	return w.Device.Load(m)
}

func (w *weighed) most() *quant.Format {
	best := quant.F32
	for f, n := range w.bytes {
		if n > w.bytes[best] || n == w.bytes[best] && f.Name < best.Name {
			best = f
		}
	}
	return best
}

// productRate is how many billion operations a second a device does in a product whose operands its caches hold, with weights of a
// format: the best of a tenth of a second.
func productRate(d tensor.Device, f *quant.Format) (rate float64, err error) {
	const rows, in, out = 128, 1024, 512
	op := &tensor.Linear{W: tensor.Mat{Rows: out, Cols: in, Format: f}}
	op.W.Buf = tensor.NewMemory(make([]byte, op.W.Bytes()))
	for _, m := range []struct {
		at   *tensor.Mat
		cols int
	}{{&op.X, in}, {&op.Y, out}} {
		if *m.at, err = tensor.NewMat(d, quant.F32, rows, m.cols); err != nil {
			return 0, err
		}
		defer d.Free(m.at.Buf)
	}
	if op.W, err = d.Load(op.W); err != nil {
		return 0, err
	}
	q := d.Queue()
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
		started := time.Now()
		q.Run(op)
		if err := q.Sync(); err != nil {
			return 0, err
		}
		_, flops := op.Cost()
		rate = max(rate, float64(flops)/time.Since(started).Seconds()/1e9)
	}
	return rate, nil
}

func printOps(out io.Writer, r *opsResult) error {
	for _, p := range r.Phases {
		fmt.Fprintf(out, "%s: %d tokens in %.1f ms\n", p.Phase, p.Tokens, p.Seconds*1e3)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "op\tcalls\tms\tof phase\tGB/s\tGFLOP/s\tof roof\t")
		rest := p.Seconds
		for _, c := range p.Ops {
			fmt.Fprintf(w, "%s\t%d\t%.2f\t%.1f %%\t%.1f\t%.1f\t%.0f %%\t\n", c.Op, c.Calls, c.Seconds*1e3, 100*c.Share, c.GBs, c.GFlops, 100*c.RoofShare)
			rest -= c.Seconds
		}
		fmt.Fprintf(w, "between ops\t\t%.2f\t%.1f %%\t\t\t\t\n\n", rest*1e3, 100*rest/p.Seconds)
		if err := w.Flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "%s on %s, every op waited for; %d threads read %.1f GB/s and do %.1f GFLOP/s in a product with %s that caches hold\n",
		r.Model, r.Device, r.NThreads, r.RoofGBs, r.RoofGFlops, r.RoofFormat)
	return err
}
