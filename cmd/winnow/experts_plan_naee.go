package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

// sampling is the text that naee runs all experts on.
type sampling struct {
	texts  []string
	tokens int64 // most
	length int   // tokens a sequence

	read moe.Calibration // what was
}

func (s *sampling) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&s.texts, "text", nil, `naee: file of text, any number of times; "-" or none = standard input`)
	f.Int64Var(&s.tokens, "tokens", 256, "naee: read at most so many tokens; each is run by every expert, and each subset is tried on it")
	f.IntVar(&s.length, "length", 128, "naee: tokens of a sequence")
}

// run observes the model on the text and runs all of its experts on what their routers read.
func (s *sampling) run(c *cobra.Command, ck *store.Checkpoint, cfg configs.Config, log *slog.Logger) (out map[int]*compress.Sample, err error) {
	if s.length < 1 || s.tokens < 1 {
		return nil, fmt.Errorf("--length is %d and --tokens %d, want at least 1", s.length, s.tokens)
	}
	if err := compress.Subsets(ck); err != nil { // known before anything runs
		return nil, err
	}
	ctx, stop := interruptible(c)
	defer stop()
	text, err := openCorpus(s.texts, c.InOrStdin())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, text.close()) }()
	if text.tok, _, err = serve.Text(ck); err != nil {
		return nil, err
	}
	text.length, text.most = s.length, s.tokens
	m, err := openMachine(cfg, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	total, err := text.count(ctx)
	if err != nil {
		return nil, err
	}
	s.read = moe.Calibration{Tokens: total, SHA256: text.sha256}
	bar := showTokens(c, total)
	bar.see(0)
	seen, err := compress.Capture(ctx, compress.Listening{
		Checkpoint: ck, Device: m.device, Text: compress.Text{SHA256: text.sha256, Sequences: text.sequences}, Tokens: total, Progress: bar.see,
		Options: model.Options{DType: model.DType(cfg.DType), Limits: model.Limits{Context: s.length}},
	})
	bar.close()
	if err != nil {
		return nil, err
	}
	return compress.Samples(ctx, ck, m.device, seen, func(done, total int) {
		if 10*done/total > 10*(done-1)/total {
			fmt.Fprintf(c.ErrOrStderr(), "%d of %d experts\n", done, total)
		}
	})
}
