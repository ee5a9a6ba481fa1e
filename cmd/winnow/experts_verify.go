package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
)

// verification is what winnow experts verify is asked for.
type verification struct {
	texts   []string
	tokens  int64 // most; 0 = all
	length  int   // tokens a sequence
	asJSON  bool
	overlay string // file; "" = the changed model has one of its own
}

func expertsVerifyVerb() *cobra.Command {
	var v verification
	c := &cobra.Command{
		Use:   "verify MODEL CHANGED | verify --overlay FILE MODEL",
		Short: "Compare a changed model with the one that it was made of",
		Long: `verify runs both models over the text of --text, or over standard input, and prints the perplexity of each, how far the probabilities of the
next token are apart (the mean Kullback-Leibler divergence, in nats), how often both find the same token likeliest, and which share of the
experts that MODEL chose CHANGED chose too. The text should not be the one that the change was made by. Both models have to fit into memory.

With --overlay, MODEL is compared with itself under an overlay, and no file of the changed model is needed. What both have is in memory once.
Formats that the overlay names for a file to be written are not applied: of those, apply the overlay and compare the file.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 2 && v.overlay != "":
				return errors.New("experts verify: --overlay changes MODEL; CHANGED is one model too many")
			case len(args) == 1 && v.overlay == "":
				return errors.New("experts verify: name the changed model too, or give --overlay")
			case v.length < 2:
				return fmt.Errorf("experts verify: sequences of %d tokens, --length is at least 2", v.length)
			case v.tokens < 0:
				return fmt.Errorf("experts verify: --tokens is %d, want at least 0", v.tokens)
			}
			return v.run(c, args[0], args[len(args)-1])
		},
	}
	f := c.Flags()
	f.StringArrayVar(&v.texts, "text", nil, `file of text, any number of times; "-" or none = standard input`)
	f.Int64Var(&v.tokens, "tokens", 0, "read at most so many tokens; 0 = all")
	f.IntVar(&v.length, "length", 512, "tokens of a sequence")
	f.BoolVar(&v.asJSON, "json", false, "print JSON")
	f.StringVar(&v.overlay, "overlay", "", "compare MODEL with itself under the overlay in this file")
	configs.Flags(f, "models", "threads", "cpu", "dtype", "force_overlay", "log")
	return c
}

func (v *verification) run(c *cobra.Command, whole, changed string) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	text, err := openCorpus(v.texts, c.InOrStdin())
	if err != nil {
		return fmt.Errorf("experts verify: %w", err)
	}
	defer func() { err = errors.Join(err, text.close()) }()
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	t := compress.Trial{Text: compress.Text{SHA256: text.sha256, Sequences: text.sequences}, Context: v.length}
	t.Whole = compress.Subject{Device: m.device, Options: model.Options{DType: model.DType(cfg.DType), Apart: v.overlay != ""}}
	if t.Whole.Checkpoint, err = openCheckpoint(cfg.Models, whole); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Whole.Checkpoint.Close()) }()
	t.Changed = t.Whole
	if v.overlay != "" {
		t.Changed.Options.ForceOverlay = cfg.ForceOverlay
		if t.Changed.Options.Overlay, err = readOverlay(v.overlay); err != nil {
			return fmt.Errorf("experts verify: %w", err)
		}
	} else {
		if t.Changed.Checkpoint, err = openCheckpoint(cfg.Models, changed); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.Changed.Checkpoint.Close()) }()
	}
	if text.tok, _, err = serve.Text(t.Whole.Checkpoint); err != nil {
		return err
	}
	text.length, text.most = v.length, v.tokens
	found, err := v.compare(ctx, c, text, t)
	if err != nil {
		return fmt.Errorf("experts verify: %w", err)
	}
	if v.asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(found)
	}
	return printComparison(c.OutOrStdout(), found)
}

func (v *verification) compare(ctx context.Context, c *cobra.Command, text *corpus, t compress.Trial) (compress.Comparison, error) {
	total, err := text.count(ctx)
	if err != nil {
		return compress.Comparison{}, err
	}
	bar := showTokens(c, total)
	defer bar.close()
	bar.see(0)
	t.Progress = bar.see
	return compress.Compare(ctx, t)
}

func printComparison(out io.Writer, f compress.Comparison) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "tokens\t%d\n", f.Tokens)
	fmt.Fprintf(w, "perplexity\t%.4f, changed %.4f (%+.2f %%)\n", f.Whole, f.Changed, 100*(f.Changed/f.Whole-1))
	fmt.Fprintf(w, "divergence\t%.6f nats a token\n", f.KL)
	fmt.Fprintf(w, "same likeliest\t%.2f %%\n", 100*f.Greedy)
	if len(f.Routing) > 0 {
		sum, least := 0.0, f.Routing[0]
		for _, l := range f.Routing {
			if sum += l.Share; l.Share < least.Share {
				least = l
			}
		}
		fmt.Fprintf(w, "same experts\t%.2f %%, least in layer %d: %.2f %%\n", 100*sum/float64(len(f.Routing)), least.Layer, 100*least.Share)
	}
	return w.Flush()
}
