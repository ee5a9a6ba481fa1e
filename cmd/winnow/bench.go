package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
)

// benchmark is what winnow bench is asked for, in llama-bench's words.
type benchmark struct {
	prompts, gens, depths, threads []int
	repetitions                    int
	streams                        int
	asJSON                         bool
	form                           string
	tokenizer, ops                 bool   // what is measured in place of the tests: the tokenizer; each op of one test of each kind
	text                           string // file that the tokenizer is measured with; "" = made of its vocabulary
	experts                        *model.Experts
	attention                      attentionBench
	drafts                         draftBench
}

// benchResult is one test. The first fields have the names and meanings of llama-bench's.
type benchResult struct {
	Model     string    `json:"model"`
	Device    string    `json:"device"`
	Experts   string    `json:"moe,omitempty"` // as --moe asked
	Sparse    string    `json:"sparse,omitempty"`
	NPrompt   int       `json:"n_prompt"` // tokens of the prompt; 0 in a test of generation
	NGen      int       `json:"n_gen"`    // tokens generated; 0 in a test of a prompt
	NDepth    int       `json:"n_depth"`  // tokens cached before them
	NThreads  int       `json:"n_threads"`
	AvgTS     float64   `json:"avg_ts"` // tokens a second
	StddevTS  float64   `json:"stddev_ts"`
	SamplesTS []float64 `json:"samples_ts"`

	BytesPerToken float64 `json:"bytes_per_token"` // memory traffic that the ops cannot avoid
	FlopsPerToken float64 `json:"flops_per_token"`
	GBs           float64 `json:"gb_s"`       // that traffic at avg_ts
	GFlops        float64 `json:"gflop_s"`    // that arithmetic at avg_ts
	RoofGBs       float64 `json:"roof_gb_s"`  // what this machine reads with as many threads, measured in the same run
	RoofShare     float64 `json:"roof_share"` // GBs / RoofGBs

	ExpertsRead *expertsRead `json:"experts_read,omitempty"` // where not all experts are in memory
}

func benchVerb() *cobra.Command {
	var b benchmark
	c := &cobra.Command{
		Use:   "bench MODEL | bench --attention",
		Short: "Measure prompt processing and generation, beside the machine's memory bandwidth",
		Long: `Every combination of the lists is one test, of a prompt (-p) or of generation (-n), as llama-bench has them; 0 leaves that kind
out. The engine runs them as it runs requests. A depth is a cached prefix, so it should be a multiple of 64 tokens.

--tokenizer measures the model's tokenizer and chat template instead; MODEL may then be a tokenizer.json alone.

--ops traces the first prompt and the first generation of the lists and prints where their time goes, by type of op and format of weights. GB/s
counts what an op cannot but read and write, beside what the machine reads from memory; caches may make it more. Gop/s counts products and sums,
beside the peak of the arithmetic that the op is done in: integer formats multiply with inputs of 12 bits, all else is floats. Both roofs are
measured, and the nearer one is named: an op far below both is slow. In JSON an op has op, weights, calls, seconds, share (of the phase), gb_s,
read_share (of roof_gb_s), gop_s, peak (a name in peaks), peak_share, bound ("memory" or the peak) and roof_share, the larger of the two shares.

--stall N is another test: N streams generate, and a prompt of -p tokens arrives. It says how long the streams then wait for
their tokens, and how much longer the prompt takes than alone.

-f FILE is another test: the request in FILE is answered in up to -n tokens, by turns with tokens that are foretold and computed ahead and without.

--attention needs no MODEL: it measures selectors of keys beside dense attention on one layer's queries, keys and values, each with its
knob turned so that it reaches --recall of the softmax, with the fewest keys. Recall and density are means over 64 sampled rows. All selectors of
a prompt take turns with dense attention in the same run; where --chunks says so, only in some steps, whose time stands for the whole prompt.`,
		Args: func(c *cobra.Command, args []string) error {
			if b.attention.on {
				return cobra.NoArgs(c, args)
			}
			return cobra.ExactArgs(1)(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if b.form != "table" && b.form != "json" || b.repetitions < 1 {
				return fmt.Errorf("bench: -o is table or json, not %q, and -r at least 1", b.form)
			}
			for _, n := range slices.Concat(b.prompts, b.gens, b.depths) {
				if n < 0 {
					return fmt.Errorf("bench: %d tokens", n)
				}
			}
			switch {
			case b.attention.on:
				return b.runAttention(c)
			case b.tokenizer:
				return b.runTokenizer(c, args[0])
			case b.ops:
				return b.runOps(c, args[0])
			case len(b.drafts.files) > 0:
				return b.runDrafts(c, args[0])
			}
			return b.run(c, args[0])
		},
	}
	f := c.Flags()
	f.IntSliceVarP(&b.prompts, "n-prompt", "p", []int{512}, "tokens of a prompt")
	f.IntSliceVarP(&b.gens, "n-gen", "n", []int{128}, "tokens to generate")
	f.IntSliceVarP(&b.depths, "n-depth", "d", []int{0}, "tokens cached before the test")
	f.IntSliceVarP(&b.threads, "threads", "t", nil, "threads (default: the configured number, else all cores)")
	f.IntVarP(&b.repetitions, "repetitions", "r", 5, "times that a test is measured")
	f.BoolVar(&b.tokenizer, "tokenizer", false, "measure the tokenizer and the chat template")
	f.BoolVar(&b.ops, "ops", false, "trace one prompt and one generation and print where their time goes, op by op")
	f.StringVar(&b.text, "text", "", "text file for --tokenizer, of which 1 MiB is used (default: words of the vocabulary)")
	f.IntVar(&b.streams, "stall", 0, "instead: how much a prompt disturbs so many running streams")
	f.BoolVar(&b.asJSON, "json", false, "print one JSON array")
	f.StringVarP(&b.form, "output", "o", "table", "table or json")
	attentionFlags(c, &b.attention)
	draftFlags(c, &b.drafts)
	overlayFlag(c)
	ropeFlags(c)
	moeFlag(c, &b.experts)
	configs.Flags(f, "models", "cpu", "numa", "packed_cache", "packed_cache_bytes", "dtype", "kv_type", "rows", "draft_model", "draft_max", "draft_min_p", "sparse", "sparse_profiles", "duo_heads", "gates", "log")
	return c
}

func (b *benchmark) run(c *cobra.Command, name string) error {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	if len(b.threads) == 0 {
		b.threads = []int{cfg.Threads}
		if cfg.Threads == 0 {
			b.threads[0] = runtime.NumCPU()
		}
	}
	if t := slices.Min(b.threads); t < 1 {
		return fmt.Errorf("bench: %d threads", t)
	}
	ctx, stop := interruptible(c)
	defer stop()
	if b.streams > 0 {
		results, err := b.stall(ctx, cfg, name, log)
		if err != nil {
			return err
		}
		return printStall(c.OutOrStdout(), results, b.asJSON || b.form == "json")
	}
	var results []benchResult
	for _, t := range b.threads {
		cfg.Threads = t
		some, err := b.withThreads(ctx, cfg, name, log)
		if err != nil {
			return err
		}
		results = append(results, some...)
	}
	if b.asJSON || b.form == "json" {
		return writeJSON(c.OutOrStdout(), results)
	}
	return printBench(c.OutOrStdout(), results)
}

// withThreads runs all tests with one number of threads.
func (b *benchmark) withThreads(ctx context.Context, cfg configs.Config, name string, log *slog.Logger) (results []benchResult, err error) {
	m, err := openMachine(cfg, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	roof := readBandwidth(cfg.Threads) // before the model takes what memory there is
	debug.FreeOSMemory()
	meter := &meter{Device: m.device}
	m.device = meter
	n, err := m.network(name, b.limits(cfg.Rows))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()

	w := &workout{network: n, meter: meter, draw: rand.New(rand.NewPCG(1, 2)), experts: b.experts}
	first := benchResult{Model: name, Device: meter.Name(), Experts: askedOf(b.experts), Sparse: spoken(&cfg, n.sparse), NThreads: cfg.Threads, RoofGBs: roof}
	for _, depth := range b.depths {
		for _, test := range b.tests() {
			r := first
			r.NPrompt, r.NGen, r.NDepth = test.prompt, test.gen, depth
			log.Info("bench", "test", r.label(), "threads", r.NThreads)
			if err := w.measure(ctx, &r, b.repetitions); err != nil {
				return nil, fmt.Errorf("%s: %w", r.label(), err)
			}
			results = append(results, r)
		}
	}
	return results, nil
}

// limits hold the longest test; rows are the most tokens of a step, 0 = what the model likes.
func (b *benchmark) limits(rows int) model.Limits {
	most := slices.Max(append(slices.Clone(b.depths), 0)) + slices.Max(slices.Concat(b.prompts, b.gens, []int{0})) + 2
	pages := (most + attention.PageTokens - 1) / attention.PageTokens
	return model.Limits{Rows: rows, Sequences: 1, Wanted: 1, Pages: pages + 1, Context: pages * attention.PageTokens}
}

// trial is a prompt to process or a number of tokens to generate.
type trial struct{ prompt, gen int }

func (b *benchmark) tests() (out []trial) {
	for _, p := range b.prompts {
		if p > 0 {
			out = append(out, trial{prompt: p})
		}
	}
	for _, n := range b.gens {
		if n > 0 {
			out = append(out, trial{gen: n})
		}
	}
	return out
}

// label is the test's name as llama-bench prints it: pp512, tg64 @ d4096.
func (r *benchResult) label() string {
	s := fmt.Sprintf("tg%d", r.NGen)
	if r.NPrompt > 0 {
		s = fmt.Sprintf("pp%d", r.NPrompt)
	}
	if r.NDepth > 0 {
		s += fmt.Sprintf(" @ d%d", r.NDepth)
	}
	return s
}

// workout runs tests on one network.
type workout struct {
	*network
	meter   *meter
	draw    *rand.Rand
	experts *model.Experts // with how few tokens make do
}

// measure warms up with the costs being counted, then takes the samples.
func (w *workout) measure(ctx context.Context, r *benchResult, repetitions int) error {
	past := w.ids(r.NDepth)
	if err := w.warmUp(ctx, r, past); err != nil {
		return err
	}
	before := w.traffic()
	for range repetitions {
		took, err := w.sample(ctx, r, past)
		if err != nil {
			return err
		}
		r.SamplesTS = append(r.SamplesTS, float64(r.NPrompt+r.NGen)/took.Seconds())
	}
	r.ExpertsRead = readSince(before, w.traffic(), repetitions*(r.NPrompt+r.NGen))
	r.AvgTS, r.StddevTS = meanAndDeviation(r.SamplesTS)
	r.GBs, r.GFlops = r.BytesPerToken*r.AvgTS/1e9, r.FlopsPerToken*r.AvgTS/1e9
	r.RoofShare = r.GBs / r.RoofGBs
	return nil
}

// warmUp caches the past and counts what the test costs.
func (w *workout) warmUp(ctx context.Context, r *benchResult, past []int32) error {
	if r.NPrompt == 0 {
		return w.countStep(ctx, r, w.after(past, 1))
	}
	if err := w.cache(ctx, past); err != nil {
		return err
	}
	return w.count(r, r.NPrompt, func() error { _, err := w.ask(ctx, w.after(past, r.NPrompt), 1); return err })
}

// cache leaves the past in the prefix cache.
func (w *workout) cache(ctx context.Context, past []int32) error {
	if len(past) == 0 {
		return nil
	}
	_, err := w.ask(ctx, past, 1)
	return err
}

// sample is how long the test takes once: a prompt from the request to its first token; generation from the first token, which the prompt
// brings, to the last, NGen steps later.
func (w *workout) sample(ctx context.Context, r *benchResult, past []int32) (time.Duration, error) {
	if r.NPrompt > 0 {
		s, err := w.ask(ctx, w.after(past, r.NPrompt), 1)
		if err != nil {
			return 0, err
		}
		return s.Queued + s.Prefill, nil
	}
	s, err := w.ask(ctx, w.after(past, 1), r.NGen+1)
	if err != nil {
		return 0, err
	}
	return s.Decode, nil
}

// count notes the cost of what work does, for each of n tokens.
func (w *workout) count(r *benchResult, n int, work func() error) error {
	w.meter.start()
	err := work()
	bytes, flops := w.meter.stop()
	r.BytesPerToken, r.FlopsPerToken = float64(bytes)/float64(n), float64(flops)/float64(n)
	return err
}

// countStep notes the cost of generating a token: that of three tokens after a prompt less that of one, halved.
func (w *workout) countStep(ctx context.Context, r *benchResult, prompt []int32) error {
	if _, err := w.ask(ctx, prompt, 1); err != nil { // caches the prefix
		return err
	}
	var one benchResult
	if err := w.count(&one, 2, func() error { _, err := w.ask(ctx, prompt, 1); return err }); err != nil {
		return err
	}
	if err := w.count(r, 2, func() error { _, err := w.ask(ctx, prompt, 3); return err }); err != nil {
		return err
	}
	r.BytesPerToken -= one.BytesPerToken
	r.FlopsPerToken -= one.FlopsPerToken
	return nil
}

// after is a prompt of n tokens after what is cached. They are new ones each time, so that nothing of them is.
func (w *workout) after(past []int32, n int) []int32 { return slices.Concat(past, w.ids(n)) }

// meanAndDeviation are the mean and the standard deviation of a sample.
func meanAndDeviation(v []float64) (mean, deviation float64) {
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		deviation += (x - mean) * (x - mean) / max(1, float64(len(v)-1))
	}
	return mean, math.Sqrt(deviation)
}

// writeJSON prints results as programs read them.
func writeJSON(out io.Writer, results any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(results)
}

func printBench(out io.Writer, results []benchResult) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "test\tthreads\ttokens/s\t+-\tMB/token\tGB/s\tof roof\tGFLOP/s\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f %%\t%.1f\t\n",
			r.label(), r.NThreads, r.AvgTS, r.StddevTS, r.BytesPerToken/1e6, r.GBs, 100*r.RoofShare, r.GFlops)
	}
	if err := w.Flush(); err != nil || len(results) == 0 {
		return err
	}
	if err := printExpertsRead(out, results); err != nil {
		return err
	}
	var roofs []string
	for i, r := range results {
		if i == 0 || results[i-1].NThreads != r.NThreads {
			roofs = append(roofs, fmt.Sprintf("%.1f GB/s with %d", r.RoofGBs, r.NThreads))
		}
	}
	name := results[0].Model
	if results[0].Experts != "" {
		name += " with " + results[0].Experts
	}
	_, err := fmt.Fprintf(out, "%s on %s; memory reads %s threads\n", name, results[0].Device, strings.Join(roofs, ", "))
	return err
}
