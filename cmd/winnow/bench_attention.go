package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/configs"
)

// attentionBench is what winnow bench --attention is asked for.
type attentionBench struct {
	on             bool
	selectors      []string
	all            bool // none were named, so all are measured that work without a model
	keys           []int
	heads, kv, dim int
	recalls        []float64
	knob           float64 // NaN = searched
	alpha          float64
	phase          string
	inputs         string // file; "" = drawn
	batch, rounds  int    // rounds: 0 = three, one beyond 32,768 keys
	chunks         int    // of a prompt that are measured; 0 = all
}

// attentionResult is one selector on one layer's inputs. Dense attention is measured in turn with it.
type attentionResult struct {
	Selector string `json:"selector"`
	Phase    string `json:"phase"`
	Keys     int    `json:"keys"`
	Heads    int    `json:"heads"`
	KVHeads  int    `json:"kv_heads"`
	Dim      int    `json:"dim"`
	Batch    int    `json:"batch"`
	Device   string `json:"device"`
	NThreads int    `json:"n_threads"`

	Target       float64 `json:"target"` // recall that was asked for
	Knob         string  `json:"knob,omitempty"`
	Value        float64 `json:"value"`                   // of the knob
	Reached      bool    `json:"reached"`                 // the target, by the sampled rows
	OracleBlocks bool    `json:"oracle_blocks,omitempty"` // in place of a gate's, which no model stands behind: chosen outside of what is timed

	Ms            float64 `json:"ms"` // selection and attention of the whole prompt, or of one step
	MsDense       float64 `json:"ms_dense"`
	Speedup       float64 `json:"speedup"`
	Rounds        int     `json:"rounds"`
	Measured      float64 `json:"measured"`       // share of the prompt's pairs of query and key that was timed; ms are of the whole prompt by it
	Density       float64 `json:"density"`        // share of the visible keys that is read: mean of the sampled rows and heads
	Work          float64 `json:"work"`           // keys read over keys visible, summed over all that was timed
	Recall        float64 `json:"recall"`         // share of the softmax on keys that are read: mean of the sampled rows and heads
	OracleDensity float64 `json:"oracle_density"` // the least density with the recall that was asked for
	MaxError      float64 `json:"max_error"`      // largest difference to a dense output, of the sampled rows
}

// attentionFlags adds the flags of --attention.
func attentionFlags(c *cobra.Command, a *attentionBench) {
	f := c.Flags()
	f.BoolVar(&a.on, "attention", false, "instead, without MODEL: measure selectors of keys on one layer's queries, keys and values")
	f.StringSliceVar(&a.selectors, "selectors", nil, "of --attention: their names (default: all of the phase that need no model)")
	f.IntSliceVar(&a.keys, "keys", []int{8192}, "of --attention: lengths of the sequence")
	f.IntVar(&a.heads, "heads", 32, "of --attention: query heads; a file says itself")
	f.IntVar(&a.kv, "kv-heads", 8, "of --attention: key-value heads; a file says itself")
	f.IntVar(&a.dim, "dim", 128, "of --attention: values a head; a file says itself")
	f.Float64SliceVar(&a.recalls, "recall", []float64{0.98}, "of --attention: shares of the softmax that each selector's knob is turned to reach")
	f.Float64Var(&a.knob, "knob", math.NaN(), "of --attention: what the knob is turned to instead")
	f.Float64Var(&a.alpha, "alpha", 1, "of --attention: how strongly drawn queries look for one key")
	f.StringVar(&a.phase, "phase", "prefill", "of --attention: prefill or decode")
	f.StringVar(&a.inputs, "inputs", "", "of --attention: safetensors file with q [heads, keys, dim], k and v [kv heads, keys, dim] (default: drawn)")
	f.IntVar(&a.batch, "batch", 1, "of --attention: sequences of a decode step")
	f.IntVar(&a.rounds, "rounds", 0, "of --attention: how often a prompt is measured (default: 3, beyond 32768 keys 1)")
	f.IntVar(&a.chunks, "chunks", 0, "of --attention: how many steps of a prompt are measured, spread evenly over it (default: all)")
}

// phases are those by name.
var phases = map[string]attention.Phases{"prefill": attention.Prefill, "decode": attention.Decode}

// check says what cannot be measured, and lists the selectors where none are named.
func (a *attentionBench) check() error {
	phase, ok := phases[a.phase]
	if !ok {
		return fmt.Errorf("bench: --phase is prefill or decode, not %q", a.phase)
	}
	known := attention.Kinds(phase)
	if a.all = len(a.selectors) == 0; a.all {
		a.selectors = append([]string{"full"}, slices.DeleteFunc(slices.Clone(known), func(n string) bool { return n == "full" })...)
	}
	for _, name := range a.selectors {
		if !slices.Contains(known, name) {
			return fmt.Errorf("bench: no selector %q serves %s; there are %s", name, a.phase, strings.Join(known, ", "))
		}
	}
	if a.heads < 1 || a.kv < 1 || a.heads%a.kv != 0 || a.dim < 1 || a.batch < 1 || slices.Min(append(a.keys, math.MaxInt)) < 64 {
		return errors.New("bench: --heads is a multiple of --kv-heads, --dim and --batch at least 1, --keys at least 64")
	}
	if len(a.recalls) == 0 || a.rounds < 0 || a.chunks < 0 {
		return errors.New("bench: --recall lists a share, and --rounds and --chunks are not negative")
	}
	for _, r := range a.recalls {
		if !(r > 0 && r <= 1) {
			return fmt.Errorf("bench: --recall is above 0 and at most 1, not %v", r)
		}
	}
	return nil
}

// runAttention measures every selector on every length with every number of threads.
func (b *benchmark) runAttention(c *cobra.Command) error {
	if err := b.attention.check(); err != nil {
		return err
	}
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	if len(b.threads) == 0 {
		b.threads = []int{cmp.Or(cfg.Threads, runtime.NumCPU())}
	}
	if t := slices.Min(b.threads); t < 1 {
		return fmt.Errorf("bench: %d threads", t)
	}
	var results []attentionResult
	for _, keys := range b.attention.keys {
		in, done, err := b.attention.load(keys)
		if err != nil {
			return err
		}
		for _, threads := range b.threads {
			cfg.Threads = threads
			some, err := b.attention.withThreads(cfg, in, log)
			if err != nil {
				return errors.Join(err, done())
			}
			results = append(results, some...)
		}
		if err := done(); err != nil {
			return err
		}
	}
	if b.asJSON || b.form == "json" {
		return writeJSON(c.OutOrStdout(), results)
	}
	return printAttention(c.OutOrStdout(), results)
}

func (a *attentionBench) withThreads(cfg configs.Config, in *attention.Inputs, log *slog.Logger) (results []attentionResult, err error) {
	m, err := openMachine(cfg, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	t := &truth{device: m.device, queue: m.device.Queue(), in: in}
	entry := attentionResult{
		Phase: a.phase, Keys: in.Keys(), Heads: in.Heads, KVHeads: in.KV, Dim: in.Q.Cols, Batch: a.batch, Device: m.device.Name(), NThreads: cfg.Threads,
	}
	if entry.Phase == "prefill" {
		entry.Batch = 1
	}
	for _, names := range a.heats() {
		f, err := newField(a, t, cfg.Rows)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			log.Info("bench", "turned", name, "keys", in.Keys(), "phase", a.phase)
			entry.Selector = name
			err := f.enter(entry)
			if a.all && errors.Is(err, attention.ErrNeedsModel) {
				log.Warn("bench", "selector", name, "left out", err)
			} else if err != nil {
				f.free()
				return nil, fmt.Errorf("%s at %d keys: %w", name, in.Keys(), err)
			}
		}
		log.Info("bench", "measured", len(f.all), "keys", in.Keys(), "phase", a.phase)
		some, err := f.run()
		f.free()
		if err != nil {
			return nil, err
		}
		results = append(results, some...)
	}
	return results, nil
}

// heats are the selectors that are measured side by side: for prompts all of them, since dense attention is what takes long; for single steps,
// which take no time, each by itself, since many sequences take much room.
func (a *attentionBench) heats() [][]string {
	if a.phase == "prefill" {
		return [][]string{a.selectors}
	}
	return slices.Collect(slices.Chunk(a.selectors, 1))
}

func printAttention(out io.Writer, results []attentionResult) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "selector\tkeys\tms\tdense ms\tspeedup\tdensity\toracle\trecall\tof\tmax error\tknob\t")
	for _, r := range results {
		knob := r.Knob
		if knob != "" {
			knob = fmt.Sprintf("%s %.4g", knob, r.Value)
		}
		if !r.Reached {
			knob += " (recall not reached)"
		}
		if r.OracleBlocks {
			knob += " (the oracle's blocks, not a gate's)"
		}
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f\t%.2f\t%.4f\t%.4f\t%.4f\t%.4g\t%.2g\t%s\t\n", r.Selector, r.Keys, r.Ms, r.MsDense, r.Speedup, r.Density,
			r.OracleDensity, r.Recall, r.Target, r.MaxError, knob)
	}
	if err := w.Flush(); err != nil || len(results) == 0 {
		return err
	}
	r := results[0]
	_, err := fmt.Fprintf(out, "%s of one layer, %d heads on %d of %d values, on %s, %.0f %% of it measured\n", r.Phase, r.Heads, r.KVHeads, r.Dim, r.Device,
		100*r.Measured)
	return err
}
