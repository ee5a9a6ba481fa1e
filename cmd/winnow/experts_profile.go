package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
)

// profiling is what winnow experts profile is asked for.
type profiling struct {
	texts   []string
	tokens  int64 // most; 0 = all
	length  int   // tokens a sequence
	columns bool
	out     string
}

func expertsProfileVerb() *cobra.Command {
	var p profiling
	c := &cobra.Command{
		Use:   "profile MODEL",
		Short: "Run a model over a text and write down what its experts did",
		Long: `profile runs a model over the text of --text, or over standard input, and writes to --output how often each expert was chosen, by which
weights, how large its outputs were and which experts were chosen together, and how much each layer changes what passes through it: what plans
are made of. Each file is cut into sequences of --length tokens, each of which the model reads by itself, behind BOS where its file wants that.
Special tokens in the text count as such.

A profile is as good as its text: take what the model will be used for. At the end are listed the experts that hardly any token chose.

While it works, what was seen so far is kept in OUTPUT.partial; the same command goes on from there. Everything is in one JSON file, for people
and for diff.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case p.out == "":
				return errors.New("experts profile: --output names the file to write")
			case p.length < 2:
				return fmt.Errorf("experts profile: sequences of %d tokens, --length is at least 2", p.length)
			case p.tokens < 0:
				return fmt.Errorf("experts profile: --tokens is %d, want at least 0", p.tokens)
			}
			if _, err := os.Stat(filepath.Dir(p.out)); err != nil { // known before hours of work
				return fmt.Errorf("experts profile: %w", err)
			}
			return p.run(c, args[0])
		},
	}
	f := c.Flags()
	f.StringArrayVar(&p.texts, "text", nil, `file of text, any number of times; "-" or none = standard input`)
	f.Int64Var(&p.tokens, "tokens", 0, "read at most so many tokens; 0 = all")
	f.IntVar(&p.length, "length", 512, "tokens of a sequence")
	f.BoolVar(&p.columns, "columns", false, "sum every column of the experts' inputs and hidden rows too, and its squares: large files")
	f.StringVarP(&p.out, "output", "o", "", "profile to write")
	configs.Flags(f, "models", "threads", "cpu", "dtype", "log")
	return c
}

func (p *profiling) run(c *cobra.Command, name string) (err error) {
	cfg, _, err := settings(c)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	checkpoint, err := openCheckpoint(cfg.Models, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, checkpoint.Close()) }()
	var seen *compress.Profile
	text := calibration{texts: p.texts, tokens: p.tokens, length: p.length, columns: p.columns, partial: p.partial()}
	if err := text.observe(ctx, c, checkpoint, func(profile *compress.Profile, _ compress.Study, _ int64) error {
		seen = profile
		return nil
	}); err != nil {
		return p.explain(ctx, err)
	}
	return p.keep(c, *seen)
}

func (p *profiling) partial() string { return p.out + ".partial" }

// keep writes the profile, drops what was seen on the way, and says which experts were hardly seen.
func (p *profiling) keep(c *cobra.Command, profile compress.Profile) error {
	if err := compress.WriteProfile(p.out, profile); err != nil {
		return fmt.Errorf("experts profile: %w", err)
	}
	if err := os.Remove(p.partial()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	report := "no layer has experts"
	if coverage := profile.Coverage(compress.LeastTokens); coverage.Experts > 0 {
		report = coverage.String()
	}
	if skip := skipping(profile); skip != "" {
		report += "\n" + skip
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "%s: %d tokens\n%s\n", p.out, profile.Calibration.Tokens, report)
	return err
}

// explain says what a failure means for the user.
func (p *profiling) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		if _, gone := os.Stat(p.partial()); gone == nil {
			return fmt.Errorf("experts profile: interrupted; the same command goes on from %s", p.partial())
		}
		return errors.New("experts profile: interrupted")
	case errors.Is(err, compress.ErrPartial):
		return fmt.Errorf("experts profile: %w; remove it, or write to another file", err)
	}
	return fmt.Errorf("experts profile: %w", err)
}
