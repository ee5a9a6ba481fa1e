package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

// calibration is a text that a model reads before something is decided by what its experts did with it.
type calibration struct {
	texts   []string // files; "-" = standard input
	tokens  int64    // most; 0 = all
	length  int      // tokens of a sequence
	columns bool     // of the profile, see compress.Study
	partial string   // likewise
}

// observe has a model read the text, with a progress bar, and calls use while the model can read it again.
func (t *calibration) observe(
	ctx context.Context, c *cobra.Command, checkpoint *store.Checkpoint, use func(*compress.Profile, compress.Study, int64) error,
) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	text, err := openCorpus(t.texts, c.InOrStdin())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, text.close()) }()
	text.length, text.most = t.length, t.tokens
	if text.tok, _, err = serve.Text(checkpoint); err != nil {
		return err
	}
	total, err := text.count(ctx)
	if err != nil {
		return err
	}
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	bar := showTokens(c, total)
	study := compress.Study{
		Checkpoint: checkpoint, Device: m.device, Text: compress.Text{SHA256: text.sha256, Sequences: text.sequences},
		Options: model.Options{DType: model.DType(cfg.DType), Limits: model.Limits{Context: t.length}},
		Columns: t.columns, Partial: t.partial, Progress: bar.see,
	}
	profile, err := compress.Observe(ctx, study)
	bar.close()
	if err != nil {
		return err
	}
	return use(&profile, study, total)
}
