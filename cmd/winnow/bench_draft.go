package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/serve"
)

// draftBench is what winnow bench is asked for where it measures drafts.
type draftBench struct {
	how   string
	files []string
}

// draftResult is the answer to one file's request, with drafted tokens and without.
type draftResult struct {
	Model    string  `json:"model"`
	File     string  `json:"file"`
	NThreads int     `json:"n_threads"`
	NPrompt  int     `json:"n_prompt"`
	NGen     int     `json:"n_gen"`
	PlainTS  float64 `json:"plain_ts"`   // tokens a second, the median
	DraftTS  float64 `json:"drafted_ts"` // likewise
	Ratio    float64 `json:"ratio"`      // of those two
	Drafted  int     `json:"drafted"`    // tokens, of one answer
	Accepted int     `json:"accepted"`   // of them, tokens of the answer

	ModelDrafted  int64   `json:"model_drafted"`  // of the drafted tokens of an answer, those of the draft model, or of the model's own layer for that
	ModelAccepted int64   `json:"model_accepted"` // of them, tokens of the answer
	ModelSeconds  float64 `json:"model_seconds"`  // that the draft model took for an answer
}

func draftFlags(c *cobra.Command, b *draftBench) {
	c.Flags().StringVar(&b.how, "speculative", "auto", "how tokens are drafted in a test of -f: ngram, draft or always (default auto: draft where there is a draft model or a layer of the model for that, else ngram)")
	c.Flags().StringSliceVarP(&b.files, "file", "f", nil, "instead: answer the request in this file, with drafted tokens and without")
}

// runDrafts measures each file's request.
func (b *benchmark) runDrafts(c *cobra.Command, name string) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	if cfg.Speculative = b.drafts.how; !drafting(&cfg).On() {
		return fmt.Errorf("bench: --speculative is %q, want ngram, draft or always", cfg.Speculative)
	}
	if len(b.threads) > 0 {
		cfg.Threads = b.threads[0]
	}
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	path, err := modelPath(cfg.Models, name)
	if err != nil {
		return err
	}
	if err := m.draftFor(serve.Source{Name: name, Weights: path}); err != nil {
		return err
	}
	model, err := m.open(name, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()
	var results []draftResult
	for _, file := range b.drafts.files {
		log.Info("bench", "file", file)
		r := draftResult{Model: name, File: file, NThreads: cmp.Or(cfg.Threads, runtime.NumCPU())}
		if err := b.bothWays(ctx, model, &r); err != nil {
			return fmt.Errorf("bench: %s: %w", file, err)
		}
		results = append(results, r)
	}
	if b.asJSON || b.form == "json" {
		return writeJSON(c.OutOrStdout(), results)
	}
	return printDrafts(c.OutOrStdout(), results)
}

// bothWays answers a file's request without drafts and with them, by turns. The first turn caches the prompt and is not counted.
func (b *benchmark) bothWays(ctx context.Context, m *serve.Model, r *draftResult) error {
	asked, err := os.ReadFile(r.File)
	if err != nil {
		return err
	}
	speeds := map[int][]float64{}
	before := drafted(m)
	for i := range b.repetitions + 1 {
		for _, most := range []int{0, engine.MostDraft} {
			u, err := b.answer(ctx, m, string(asked), most)
			if err != nil {
				return err
			}
			if u.Completion < 2 {
				return fmt.Errorf("the answer has %d tokens, too few to measure", u.Completion)
			}
			if i > 0 {
				speeds[most] = append(speeds[most], float64(u.Completion-1)/(u.Total-u.First).Seconds())
			}
			now := drafted(m)
			r.ModelDrafted, r.ModelAccepted, r.ModelSeconds = now.Drafted-before.Drafted, now.Accepted-before.Accepted, now.Seconds-before.Seconds
			before = now
			r.NPrompt, r.NGen, r.Drafted, r.Accepted = u.Prompt, u.Completion, u.Accepted+u.Rejected, u.Accepted
		}
	}
	r.PlainTS, r.DraftTS = percentile(speeds[0], 50), percentile(speeds[engine.MostDraft], 50)
	r.Ratio = r.DraftTS / r.PlainTS
	return nil
}

// drafted is what the model's drafter did, be it a draft model or a head.
func drafted(m *serve.Model) serve.DraftCounts {
	if u := m.Usage(); u.ByHead.Rows > 0 {
		return u.ByHead
	}
	return m.Usage().ByModel
}

// answer is what one greedy answer took. It has as many tokens as the most of -n says, or as the model gives it.
func (b *benchmark) answer(ctx context.Context, m *serve.Model, asked string, most int) (usage serve.Usage, err error) {
	g := serve.Generation{MaxTokens: max(1, slices.Max(append(b.gens, 0))), Temperature: new(float32(0)), Drafts: &most}
	prompt, err := m.Prompt(ctx, serve.ChatRequest{Messages: []serve.Turn{{Role: "user", Content: asked}}})
	if errors.Is(err, serve.ErrNoTemplate) {
		prompt, err = m.Encode(asked), nil
	}
	if err != nil {
		return usage, err
	}
	for d, err := range m.Complete(ctx, serve.CompletionRequest{IDs: prompt, Generation: g}) {
		if err != nil {
			return usage, err
		}
		if d.Usage != nil {
			usage = *d.Usage
		}
	}
	return usage, nil
}

func printDrafts(out io.Writer, results []draftResult) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "file\tprompt\tanswer\ttokens/s\twith drafts\tratio\tdrafted\taccepted\tby model\taccepted\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%.1f\t%.2f\t%d\t%d\t%d\t%d\t\n", r.File, r.NPrompt, r.NGen, r.PlainTS, r.DraftTS, r.Ratio, r.Drafted, r.Accepted, r.ModelDrafted, r.ModelAccepted)
	}
	return w.Flush()
}
