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
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// opsResult is where the time of a prompt and of generation goes, op by op, beside what the machine can do. Every op is waited for, so the whole is
// slower than a benchmark without.
type opsResult struct {
	Model     string     `json:"model"`
	Device    string     `json:"device"`
	NThreads  int        `json:"n_threads"`
	RoofGBs   float64    `json:"roof_gb_s"`   // what as many threads read from memory
	RoofGBs1  float64    `json:"roof_gb_s_1"` // what one thread reads
	RoofPeaks []roofPeak `json:"peaks"`       // what as many threads compute, by kind of arithmetic
	Phases    []opPhase  `json:"phases"`
}

// roofPeak is a kind of arithmetic, on numbers in registers.
type roofPeak struct {
	Name string  `json:"name"`
	Gops float64 `json:"gop_s"`
}

// opPhase is one request.
type opPhase struct {
	Phase   string   `json:"phase"` // prefill or decode
	Tokens  int      `json:"tokens"`
	Seconds float64  `json:"seconds"` // from the request to its last token
	Ops     []opCost `json:"ops"`     // most time first
}

// opCost is what all runs of one class of op took: of one type, with weights of one format.
type opCost struct {
	Op        string  `json:"op"`
	Weights   string  `json:"weights,omitempty"` // format of its weights
	Calls     int     `json:"calls"`
	Seconds   float64 `json:"seconds"`
	Share     float64 `json:"share"`      // of the phase
	GBs       float64 `json:"gb_s"`       // bytes that cannot but be read and written
	ReadShare float64 `json:"read_share"` // of roof_gb_s; operands in caches may take it past 1
	Gops      float64 `json:"gop_s"`      // products and sums, each counted
	Peak      string  `json:"peak"`       // the one that its arithmetic has
	PeakShare float64 `json:"peak_share"`
	Bound     string  `json:"bound"`      // the roof that allows less: "memory", or the peak
	RoofShare float64 `json:"roof_share"` // of the time that this roof allows

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
	sums := &opSums{}
	m.device = tensor.Traced(m.device, sums.add)
	r := opsResult{Model: name, Device: m.device.Name(), NThreads: cfg.Threads}
	if err := r.measureRoofs(&cfg); err != nil { // before the model takes what memory there is
		return err
	}
	n, err := m.network(name, b.limits(cfg.Rows))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()

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
			p.Ops[i].rate(p.Seconds, &r)
		}
		r.Phases = append(r.Phases, p)
	}
	if b.asJSON || b.form == "json" {
		return writeJSON(c.OutOrStdout(), r)
	}
	return printOps(c.OutOrStdout(), &r)
}

// measureRoofs finds out what the machine can do.
func (r *opsResult) measureRoofs(cfg *configs.Config) error {
	peaks, err := cpu.Peaks(cpu.Options{Variant: variant(cfg), Threads: r.NThreads})
	if err != nil {
		return err
	}
	for _, p := range peaks {
		r.RoofPeaks = append(r.RoofPeaks, roofPeak(p))
	}
	r.RoofGBs, r.RoofGBs1 = readBandwidth(r.NThreads), readBandwidth(1)
	return nil
}

// peak is how many operations a second there are of a kind of arithmetic; 0 where it was not measured.
func (r *opsResult) peak(name string) float64 {
	for _, p := range r.RoofPeaks {
		if p.Name == name {
			return p.Gops * 1e9
		}
	}
	return 0
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
	ops map[opClass]*opCost
}

// opClass is what spans are added up by.
type opClass struct {
	op      string
	weights *quant.Format
}

func (s *opSums) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops = map[opClass]*opCost{}
}

// stop gives the sums, most time first.
func (s *opSums) stop() (all []opCost) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.ops {
		all = append(all, *c)
	}
	s.ops = nil
	slices.SortFunc(all, func(a, b opCost) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Op, b.Op), cmp.Compare(a.Weights, b.Weights))
	})
	return all
}

func (s *opSums) add(span tensor.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ops == nil {
		return
	}
	class := opClass{span.Op, span.Weights}
	c := s.ops[class]
	if c == nil {
		c = &opCost{Op: span.Op, Weights: weightsName(span.Weights), Peak: cpu.PeakOf(span.Weights)}
		s.ops[class] = c
	}
	c.Calls++
	c.Seconds += span.Duration.Seconds()
	c.bytes += span.Bytes
	c.flops += span.Flops
}

// weightsName is the name of a format of weights without what a device says of their layout behind it; "" for none.
func weightsName(f *quant.Format) string {
	if f == nil {
		return ""
	}
	name, _, _ := strings.Cut(f.Name, " ")
	return name
}

// rate fills in what follows from the sums and the machine's roofs.
func (c *opCost) rate(phase float64, r *opsResult) {
	took, peak := max(c.Seconds, 1e-9), r.peak(c.Peak)
	c.Share, c.GBs, c.Gops = c.Seconds/phase, float64(c.bytes)/took/1e9, float64(c.flops)/took/1e9
	c.ReadShare = c.GBs / r.RoofGBs
	if peak > 0 {
		c.PeakShare = c.Gops * 1e9 / peak
	}
	c.Bound, c.RoofShare = "memory", c.ReadShare
	if c.PeakShare > c.ReadShare {
		c.Bound, c.RoofShare = c.Peak, c.PeakShare
	}
}

func printOps(out io.Writer, r *opsResult) error {
	for _, p := range r.Phases {
		fmt.Fprintf(out, "%s: %d tokens in %.1f ms\n", p.Phase, p.Tokens, p.Seconds*1e3)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "op\tcalls\tms\tof phase\tGB/s\tof reads\tGop/s\tof peak\tnearer roof\t")
		rest := p.Seconds
		for _, c := range p.Ops {
			fmt.Fprintf(w, "%s\t%d\t%.2f\t%.1f %%\t%.1f\t%.0f %%\t%.1f\t%.1f %%\t%s\t\n", strings.TrimSpace(c.Op+" "+c.Weights), c.Calls,
				c.Seconds*1e3, 100*c.Share, c.GBs, 100*c.ReadShare, c.Gops, 100*c.PeakShare, c.Bound)
			rest -= c.Seconds
		}
		fmt.Fprintf(w, "between ops\t\t%.2f\t%.1f %%\t\t\t\t\t\t\n\n", rest*1e3, 100*rest/p.Seconds)
		if err := w.Flush(); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%s on %s, every op waited for; memory reads %.1f GB/s with %d threads, %.1f with one\n",
		r.Model, r.Device, r.RoofGBs, r.NThreads, r.RoofGBs1)
	var peaks []string
	for _, p := range r.RoofPeaks {
		peaks = append(peaks, fmt.Sprintf("%s %.0f", p.Name, p.Gops))
	}
	_, err := fmt.Fprintf(out, "peaks in Gop/s with %d threads: %s\n", r.NThreads, strings.Join(peaks, ", "))
	return err
}
