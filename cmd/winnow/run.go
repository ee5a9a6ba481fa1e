package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
)

// wishes are what a command line asks of winnow run, beside the configuration.
type wishes struct {
	system     string
	format     string
	generation serve.Generation
	experts    *model.Experts
	verbose    bool
	nowordwrap bool
	nohistory  bool
	insecure   bool
}

func runVerb() *cobra.Command {
	var w wishes
	c := &cobra.Command{
		Use:   "run MODEL [PROMPT...]",
		Short: "Chat with a model on a terminal, or answer standard input when it is piped",
		Long: `On a terminal, run is a chat: Ctrl-C stops an answer, Ctrl-D or /bye ends, /? shows what else there is. With a PROMPT, or with
something piped into it, it answers once and prints nothing but the answer. A model without a chat template continues the text it
is given. A model that is not there is pulled first, as winnow pull does it.

What is typed is remembered in ~/.local/state/winnow/history (XDG_STATE_HOME moves it), which nobody else may read. NO_COLOR and
TERM=dumb are heeded.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return run(c, args, &w) },
	}
	f := c.Flags()
	f.StringVar(&w.system, "system", "", "system message before the conversation")
	for _, p := range parameters {
		if p.experts { // which --moe has
			continue
		}
		f.Var(&parameterFlag{parameter: p, g: &w.generation}, strings.ReplaceAll(p.name, "_", "-"), p.means)
	}
	f.BoolVar(&w.verbose, "verbose", false, "print token counts, durations and speed after each answer, on standard error")
	f.BoolVar(&w.nowordwrap, "nowordwrap", false, "leave breaking lines to the terminal")
	f.BoolVar(&w.nohistory, "nohistory", false, "do not remember what is typed")
	f.StringVar(&w.format, "format", "", "hold the answer to a format; refused, since it is not there yet")
	f.BoolVar(&w.insecure, "insecure", false, "pull over plain HTTP, and from anybody's certificates")
	overlayFlag(c)
	ropeFlags(c)
	moeFlag(c, &w.experts)
	configs.Flags(f, "models", "identity", "huggingface", "threads", "cpu", "numa", "packed_cache", "packed_cache_bytes", "dtype", "kv_type", "context", "cache_bytes", "speculative", "draft_model", "draft_max", "draft_min_p", "sparse", "sparse_profiles", "duo_heads", "gates", "log")
	return c
}

func run(c *cobra.Command, args []string, w *wishes) (err error) {
	if w.format != "" {
		return fmt.Errorf("--format: %w", errFormat)
	}
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	if cfg.Sequences == 0 {
		cfg.Sequences = 1
	}
	in, out := terminalOf(c.InOrStdin()), terminalOf(c.OutOrStdout())
	once, err := prompt(c.InOrStdin(), args[1:])
	if err != nil {
		return err
	}
	if !w.verbose && !c.Flags().Changed("log") && cfg.Log == slog.LevelInfo {
		log = slog.New(slog.DiscardHandler) // what the machine is like is no part of a chat
	}
	s := &session{asked: args[0], history: &history{}}
	s.page = &page{out: c.OutOrStdout(), wordwrap: !w.nowordwrap}
	look := configs.ReadScreen()
	if out != nil && look.Codes {
		s.page.columns = func() int { columns, _ := sizeOf(out); return columns }
	}
	s.waits = terminalOf(c.ErrOrStderr()) != nil && look.Codes
	if x := w.experts; x != nil {
		w.generation.Experts = &serve.Experts{TopK: x.TopK, MinP: x.MinP, Mass: x.Mass, SkipBeta: x.SkipBeta}
	}
	s.notes, s.system, s.generation, s.verbose = c.ErrOrStderr(), w.system, w.generation, w.verbose
	if s.machine, err = openMachine(cfg, log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.machine.Close()) }()
	if err := fetched(c, cfg, args[0], w.insecure); err != nil {
		return err
	}
	if err := s.open(args[0]); err != nil {
		return err
	}
	defer func() {
		if s.model != nil {
			err = errors.Join(err, s.model.Close())
		}
	}()
	if once != "" {
		ctx, stop := interruptible(c)
		defer stop()
		return s.respond(ctx, once)
	}
	if !w.nohistory {
		if s.history, err = openHistory(configs.StateFile("history")); err != nil {
			fmt.Fprintf(s.notes, "winnow: what was typed before is not there: %v\n", err)
		}
	}
	s.history.off = w.nohistory
	ctx := c.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	return s.converse(ctx, in, c.OutOrStdout())
}

// mostPiped is the most bytes of a prompt that is piped in; no model has a context for more.
const mostPiped = 64 << 20

// prompt is what to answer once: the words of the command line, and what is piped in before them, without the line break that ends a
// file. "": a terminal is there to chat on.
func prompt(in io.Reader, words []string) (string, error) {
	said := strings.Join(words, " ")
	if terminalOf(in) != nil {
		return said, nil
	}
	piped, err := io.ReadAll(io.LimitReader(in, mostPiped+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the prompt: %w", err)
	case len(piped) > mostPiped:
		return "", fmt.Errorf("the prompt that is piped in has more than %d bytes", mostPiped)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(piped), "\n"), "\r")
	if said != "" && text != "" {
		said = "\n\n" + said
	}
	if said = text + said; said == "" {
		return "", errors.New("no prompt: standard input is empty and is no terminal")
	}
	return said, nil
}
