package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

// shortening is what winnow experts shortlist is asked for.
type shortening struct {
	texts  []string
	tokens int64 // most; 0 = all
	length int   // tokens a sequence
	leaves int   // experts of a shortlist; 0 = the fewest that do
	recall float64
	worse  float64 // percent
	seed   uint64
	out    string

	checkpoint *store.Checkpoint
	text       *corpus
	device     *machine
	options    model.Options
}

func expertsShortlistVerb() *cobra.Command {
	var s shortening
	c := &cobra.Command{
		Use:   "shortlist MODEL --text FILE -o OUT.gguf",
		Short: "Have a tree find the experts that a router chooses among, so that it reads fewer of its rows",
		Long: `shortlist fits to the router of each layer a tree that finds the likeliest experts of a token; the router then reads its own rows of these
alone and chooses among them as before. A copy of MODEL with the trees is written; its weights, the routers' among them, are those of MODEL.

Of the text every fifth sequence is held out. On these the shortlists are measured: the share of the router's weights that their experts have
(--recall), and the perplexity of the model (--worse). If either falls short, nothing is written.

It is an experiment more than a saving: a router is about a hundredth of a token's work, a tree misses experts of most routers, and Winnow runs
trees in plain code. How long both take on this machine is printed at the end.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			err := s.check()
			if err == nil {
				err = s.run(c, args[0])
			}
			if err != nil {
				return fmt.Errorf("experts shortlist: %w", err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringArrayVar(&s.texts, "text", nil, `file of text, any number of times; "-" or none = standard input`)
	f.Int64Var(&s.tokens, "tokens", 0, "read at most so many tokens; 0 = all")
	f.IntVar(&s.length, "length", 512, "tokens of a sequence")
	f.IntVar(&s.leaves, "leaves", 0, "experts of a shortlist; 0 = the fewest that reach --recall")
	f.Float64Var(&s.recall, "recall", 0.999, "share of the router's weights that a shortlist must find in every layer")
	f.Float64Var(&s.worse, "worse", 0.2, "percent that perplexity may grow by")
	f.Uint64Var(&s.seed, "seed", 0, "seed of the fit")
	f.StringVarP(&s.out, "output", "o", "", "GGUF file to write; nothing may be there")
	if err := c.MarkFlagRequired("output"); err != nil {
		panic("winnow: bug: " + err.Error())
	}
	configs.Flags(f, "models", "threads", "cpu", "dtype", "log")
	return c
}

// check refuses before hours of work what would fail after them.
func (s *shortening) check() error {
	switch {
	case s.length < 2:
		return fmt.Errorf("sequences of %d tokens, --length is at least 2", s.length)
	case s.tokens < 0:
		return fmt.Errorf("--tokens is %d, want at least 0", s.tokens)
	case !(s.recall > 0 && s.recall <= 1):
		return fmt.Errorf("--recall is %v, want above 0, at most 1", s.recall)
	case !(s.worse >= 0 && s.worse <= 100):
		return fmt.Errorf("--worse is %v, want 0 to 100", s.worse)
	case s.leaves < 0:
		return fmt.Errorf("--leaves is %d, want at least 0", s.leaves)
	}
	if _, err := os.Lstat(s.out); err == nil {
		return &store.FileError{File: s.out, Err: store.ErrExists}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err := os.Stat(filepath.Dir(s.out))
	return err
}

func (s *shortening) run(c *cobra.Command, name string) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	if s.checkpoint, err = openCheckpoint(cfg.Models, name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.checkpoint.Close()) }()
	if s.text, err = openCorpus(s.texts, c.InOrStdin()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.text.close()) }()
	if s.text.tok, _, err = serve.Text(s.checkpoint); err != nil {
		return err
	}
	s.text.length, s.text.most = s.length, s.tokens
	if s.device, err = openMachine(cfg, log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.device.Close()) }()
	s.options = model.Options{DType: model.DType(cfg.DType), Limits: model.Limits{Context: s.length}}
	total, err := s.text.count(ctx)
	if err != nil {
		return err
	}
	seen, err := s.capture(ctx, c, total)
	if err != nil {
		return err
	}
	layers, err := s.fit(ctx, c, seen)
	if err != nil {
		return err
	}
	view, err := compress.WithShortlists(s.checkpoint, layers)
	if err != nil {
		return err
	}
	if err := s.gate(ctx, c, view, total); err != nil {
		return err
	}
	p := showProgress(c)
	err = compress.WriteCopy(ctx, view, s.out, p.see)
	p.close()
	if err != nil {
		return err
	}
	return s.time(c.OutOrStdout(), layers, seen)
}

// all is the text as a model reads it.
func (s *shortening) all() compress.Text {
	return compress.Text{SHA256: s.text.sha256, Sequences: s.text.sequences}
}

func (s *shortening) capture(ctx context.Context, c *cobra.Command, total int64) (map[int]*compress.Captured, error) {
	bar := showTokens(c, total)
	defer bar.close()
	bar.see(0)
	return compress.Capture(ctx, compress.Listening{
		Checkpoint: s.checkpoint, Device: s.device.device, Options: s.options, Text: s.all(), Tokens: total, Held: compress.HeldOut, Progress: bar.see,
	})
}

// fit fits all layers and says how good each became; the first that falls short is the error.
func (s *shortening) fit(ctx context.Context, c *cobra.Command, seen map[int]*compress.Captured) ([]compress.LayerShortlist, error) {
	ask := moe.Fitting{Recall: s.recall, Seed: s.seed}
	if s.leaves > 0 {
		ask.Sizes = []int{s.leaves}
	}
	layers, err := compress.FitShortlists(ctx, s.checkpoint, seen, ask, func(done, total int) {
		fmt.Fprintf(c.ErrOrStderr(), "%d of %d layers\n", done, total)
	})
	if err != nil {
		return nil, err
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LAYER\tEXPERTS\tSHORTLIST\tRECALL\tSAME EXPERTS\tROWS READ")
	for _, l := range layers {
		size, figures := 0, moe.Figures{}
		var low *moe.LowRecall
		switch {
		case l.Err == nil:
			size, figures = l.Shortlist.Size, l.Shortlist.Figures
		case errors.As(l.Err, &low):
			size, figures = low.Size, low.Figures
		default:
			return nil, l.Err
		}
		fmt.Fprintf(w, "%d\t%d\t%d\t%.5f\t%.2f %%\t%.1f of %d\n", l.Layer, l.Gate.Spec.Experts, size, figures.Recall, 100*figures.Overlap, figures.Read, l.Gate.Spec.Experts)
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	for _, l := range layers {
		if l.Err != nil {
			return nil, l.Err
		}
	}
	return layers, nil
}

// gate compares the model with and without shortlists on what was held out.
func (s *shortening) gate(ctx context.Context, c *cobra.Command, view *store.Checkpoint, total int64) error {
	bar := showTokens(c, total/5+1)
	defer bar.close()
	bar.see(0)
	subject := func(of *store.Checkpoint) compress.Subject {
		return compress.Subject{Checkpoint: of, Device: s.device.device, Options: s.options}
	}
	found, err := compress.Compare(ctx, compress.Trial{
		Whole: subject(s.checkpoint), Changed: subject(view), Text: s.all().Only(compress.HeldOut), Context: s.length, Progress: bar.see,
	})
	if err != nil {
		return err
	}
	if err := printComparison(c.OutOrStdout(), found); err != nil {
		return err
	}
	return found.Worse(s.worse / 100)
}

// time says what the shortlists save, or cost.
func (s *shortening) time(out io.Writer, layers []compress.LayerShortlist, seen map[int]*compress.Captured) error {
	var before, after time.Duration
	for _, l := range layers {
		router, shortlist, err := l.Time(s.device.device, seen[l.Layer].Rows)
		if err != nil {
			return err
		}
		before, after = before+router, after+shortlist
	}
	verdict := "they save time here"
	if after >= before {
		verdict = "on this machine they do not pay: the model is slower with them"
	}
	_, err := fmt.Fprintf(out, "wrote %s\nall routers take %.1f µs a token, with shortlists %.1f µs; %s\n", s.out,
		float64(before.Nanoseconds())/1000, float64(after.Nanoseconds())/1000, verdict)
	return err
}
