package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
)

// selectorCalibration is what winnow attention calibrate is asked for.
type selectorCalibration struct {
	texts   []string
	recalls []string
	ask     compress.SelectorCalibration
	to      gatesFile
}

func attentionCalibrateVerb() *cobra.Command {
	var s selectorCalibration
	c := &cobra.Command{
		Use:   "calibrate MODEL --text FILE -o PROFILE.json",
		Short: "Find how far selectors must be turned, layer by layer, for a share of a model's attention",
		Long: `calibrate runs a model over the first --context tokens of a text, reading all keys, and turns on each layer's own queries and keys the knob of each
selector so far that the mean recall, the share of the softmax on the keys that are read, is what --recall asks for, with the fewest keys. Of a
prompt 64 positions are looked at, of decoding 64 of the last quarter.

With --sparse-profile PROFILE.json verbs that run a model take these numbers where --sparse names a selector, by its recall; and where --sparse
says nothing, the selectors that were the fastest. A profile is of a model whatever its quantisation, and of texts like the one that it was
made with: take long ones.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			err := s.check()
			if err == nil {
				err = s.run(c, args[0])
			}
			if err != nil {
				return fmt.Errorf("attention calibrate: %w", err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringArrayVar(&s.texts, "text", nil, `file of text, any number of times; "-" or none = standard input`)
	f.IntVar(&s.ask.Context, "context", 8192, "tokens that are read")
	f.StringSliceVar(&s.recalls, "recall", []string{"0.98", "0.95"}, "shares of the softmax to reach")
	f.StringSliceVar(&s.ask.Selectors, "selectors", []string{"anchor", "xattention", "flexprefill", "quest"}, "selectors to turn, in each phase that they serve")
	s.to.flags(c)
	c.Flags().Lookup("output").Usage = "JSON file to write"
	configs.Flags(f, "models", "threads", "cpu", "dtype", "log")
	return c
}

func (s *selectorCalibration) check() error {
	for _, text := range s.recalls {
		v, err := strconv.ParseFloat(text, 32)
		if err != nil || !(v > 0 && v <= 1) {
			return fmt.Errorf("--recall is %.40q, want above 0 to 1", text)
		}
		s.ask.Recalls = append(s.ask.Recalls, float32(v))
	}
	if len(s.recalls) == 0 || len(s.ask.Selectors) == 0 {
		return errors.New("--recall and --selectors name at least one")
	}
	return s.to.check()
}

func (s *selectorCalibration) run(c *cobra.Command, name string) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	ck, err := openCheckpoint(cfg.Models, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ck.Close()) }()
	text, err := openCorpus(s.texts, c.InOrStdin())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, text.close()) }()
	text.length = s.ask.Context
	if text.tok, _, err = serve.Text(ck); err != nil {
		return err
	}
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	s.ask.Checkpoint, s.ask.Device, s.ask.DType = ck, m.device, model.DType(cfg.DType)
	s.ask.Text = compress.Text{SHA256: text.sha256, Sequences: text.sequences}
	s.ask.Progress = func(p compress.SelectorProgress) {
		for _, f := range p.Found {
			log.Info("turned", "layer", p.Layer, "of", p.Of, "selector", p.Selector, "phase", p.Phase, "knob", f.Value, "recall", f.Recall, "density", f.Density)
		}
	}
	p, err := compress.CalibrateSelectors(ctx, s.ask)
	if err != nil {
		return err
	}
	p.Name = name
	if err := model.WriteSparseProfile(s.to.path, p); err != nil {
		return err
	}
	return printSelectors(c.OutOrStdout(), p)
}
