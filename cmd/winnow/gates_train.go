package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

// gatesFile is where gates are to be written.
type gatesFile struct {
	path  string
	force bool
}

func (g *gatesFile) flags(c *cobra.Command) {
	c.Flags().StringVarP(&g.path, "output", "o", "", "GGUF file to write")
	c.Flags().BoolVar(&g.force, "force", false, "replace a file that is there")
	if err := c.MarkFlagRequired("output"); err != nil {
		panic("winnow: bug: " + err.Error())
	}
}

// check refuses before hours of work what would fail after them.
func (g *gatesFile) check() error {
	if _, err := os.Lstat(g.path); err == nil && !g.force {
		return &store.FileError{File: g.path, Err: store.ErrExists}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err := os.Stat(filepath.Dir(g.path))
	return err
}

// of is the file of one kind of several.
func (g *gatesFile) of(kind model.GateKind) gatesFile {
	base, ext := strings.TrimSuffix(g.path, filepath.Ext(g.path)), filepath.Ext(g.path)
	return gatesFile{base + "." + string(kind) + ext, g.force}
}

// gateTraining is what winnow gates train is asked for.
type gateTraining struct {
	texts  []string
	kind   string
	length int // tokens a sequence; 0 = as many as the model was made for, at most 4096
	ask    compress.GateTraining
	to     gatesFile
}

func gatesTrainVerb() *cobra.Command {
	var t gateTraining
	c := &cobra.Command{
		Use:   "train MODEL --calib FILE -o OUT.gguf",
		Short: "Train gates on where a model's own attention goes",
		Long: `train runs a model over a text and teaches gates to say, from queries and keys alone, which 64-key blocks the model's attention will read most
of. The model is not changed. --kind seer is for prompts, seer_decode for generated tokens; both are trained side by side and written to
OUT.seer.gguf and OUT.seer_decode.gguf.

Of the text every fifth sequence is held out. On these is measured which part of the attention to earlier blocks the gates find, beside the blocks
that really have most, those in which a single key has most, and those that score highest by what needs no gate: the mean of a block's keys, the
bounds of quest, the first and then the nearest blocks, and for prompts anchor and xattention. Where attention is spread evenly the mean key is
hard to beat, and gates are of little use. Take a text with long dependencies, such as the model will be used for: what is shorter than 256
tokens teaches nothing. --target peak teaches which blocks have single keys with most of the attention, as the papers do, and mass which blocks
have most together. --rows says how many queries of a sequence are learnt from in a step, which is what most of the time goes to.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			err := t.check()
			if err == nil {
				err = t.run(c, args[0])
			}
			if err != nil {
				return fmt.Errorf("gates train: %w", err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&t.kind, "kind", "both", "seer, seer_decode or both")
	f.StringVar((*string)(&t.ask.Target), "target", string(compress.Mass), "what gates are taught: a block's mass, or the peak of its keys, as published")
	f.StringArrayVar(&t.texts, "calib", nil, `file of text, any number of times; "-" or none = standard input`)
	f.IntVar(&t.ask.Steps, "steps", 400, "steps of the training")
	f.IntVar(&t.ask.Batch, "batch", 1, "sequences of a step")
	f.IntVar(&t.length, "context", 0, "tokens of a sequence; 0 = as many as the model was made for, at most 4096")
	f.IntVar(&t.ask.Rows, "rows", 256, "queries of a sequence that a step learns from; 0 = all")
	f.Float64Var(&t.ask.Rate, "lr", 1e-3, "rate of learning")
	f.IntVar(&t.ask.Trial, "trial", 8, "held-out sequences that the gates are measured on")
	f.Uint64Var(&t.ask.Seed, "seed", 0, "seed of first weights and of the choice of queries")
	t.to.flags(c)
	configs.Flags(f, "models", "threads", "cpu", "dtype", "log")
	return c
}

func (t *gateTraining) check() error {
	switch t.kind {
	case "both":
		t.ask.Kinds = []model.GateKind{model.SeerPrefill, model.SeerDecode}
	case string(model.SeerPrefill), string(model.SeerDecode):
		t.ask.Kinds = []model.GateKind{model.GateKind(t.kind)}
	default:
		return fmt.Errorf("--kind %.100q, want seer, seer_decode or both", t.kind)
	}
	switch {
	case t.ask.Target != compress.Peak && t.ask.Target != compress.Mass:
		return fmt.Errorf("--target %.100q, want peak or mass", t.ask.Target)
	case t.ask.Steps < 1 || t.ask.Batch < 1 || t.ask.Trial < 1:
		return fmt.Errorf("--steps %d, --batch %d, --trial %d, want at least 1", t.ask.Steps, t.ask.Batch, t.ask.Trial)
	case t.ask.Rows < 0:
		return fmt.Errorf("--rows is %d, want at least 0", t.ask.Rows)
	case !(t.ask.Rate > 0 && t.ask.Rate <= 1):
		return fmt.Errorf("--lr is %v, want above 0, at most 1", t.ask.Rate)
	case t.length != 0 && t.length < compress.LeastGateTokens:
		return fmt.Errorf("--context is %d, want at least %d", t.length, compress.LeastGateTokens)
	}
	for _, kind := range t.ask.Kinds {
		to := t.file(kind)
		if err := to.check(); err != nil {
			return err
		}
	}
	return nil
}

// file is where gates of a kind go.
func (t *gateTraining) file(kind model.GateKind) gatesFile {
	if len(t.ask.Kinds) == 1 {
		return t.to
	}
	return t.to.of(kind)
}

func (t *gateTraining) run(c *cobra.Command, name string) (err error) {
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
	spec, err := model.Describe(ck)
	if err != nil {
		return err
	}
	if t.length == 0 {
		t.length = min(spec.Context, 4096)
	}
	text, err := openCorpus(t.texts, c.InOrStdin())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, text.close()) }()
	text.length = t.length
	if text.tok, _, err = serve.Text(ck); err != nil {
		return err
	}
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	t.ask.Checkpoint, t.ask.Device = ck, m.device
	t.ask.Options = model.Options{DType: model.DType(cfg.DType), Limits: model.Limits{Context: t.length}}
	t.ask.Text = compress.Text{SHA256: text.sha256, Sequences: text.sequences}
	t.ask.Progress = t.tell(c.ErrOrStderr())
	trained, err := compress.TrainGates(ctx, t.ask)
	if err != nil {
		return err
	}
	return t.keep(ctx, c.OutOrStdout(), name, trained)
}

// tell prints the losses now and then: some twenty times, and no more often than every second.
func (t *gateTraining) tell(out io.Writer) func(compress.GateProgress) {
	var last time.Time
	return func(p compress.GateProgress) {
		if p.Step != p.Steps && (p.Step%max(1, p.Steps/20) != 0 || time.Since(last) < time.Second) {
			return
		}
		last = time.Now()
		fmt.Fprintf(out, "step %d of %d: loss", p.Step, p.Steps)
		for i, kind := range t.ask.Kinds {
			fmt.Fprintf(out, " %s %.4f", kind, p.Loss[i])
		}
		fmt.Fprintln(out)
	}
}

// keep writes the gates and says what they are worth.
func (t *gateTraining) keep(ctx context.Context, out io.Writer, name string, trained []compress.TrainedGates) error {
	for _, g := range trained {
		at := g.Recalls[1]
		g.Gates.Name = name
		for _, f := range []struct {
			name string
			v    any
		}{
			{"steps", t.ask.Steps}, {"batch", t.ask.Batch}, {"context", t.length}, {"rows", t.ask.Rows}, {"lr", t.ask.Rate}, {"target", t.ask.Target}, {"seed", t.ask.Seed},
			{"text", t.ask.Text.SHA256}, {"loss", fmt.Sprintf("%.4f", g.Loss)},
			{"recall", fmt.Sprintf("%.4f of a quarter of the blocks, at best %.4f, by mean keys %.4f", at.Gate, at.Best, at.Untrained[0])},
		} {
			g.Gates.Facts = append(g.Gates.Facts, model.Fact{Name: f.name, Text: fmt.Sprint(f.v)})
		}
		file := t.file(g.Gates.Kind)
		if err := model.WriteGates(ctx, file.path, g.Gates, quant.F16); err != nil {
			return err
		}
		if err := printTrained(out, file.path, &g); err != nil {
			return err
		}
	}
	return nil
}

func printTrained(out io.Writer, path string, g *compress.TrainedGates) error {
	fmt.Fprintf(out, "%s: %s gates, loss %.4f on what was held out\n", path, g.Gates.Kind, g.Loss)
	fmt.Fprintln(out, "attention to earlier blocks that is found:")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "BLOCKS\tLAYER\tGATE\tAT BEST\tBY PEAKS")
	for _, by := range compress.UntrainedOf(g.Gates.Kind) {
		fmt.Fprintf(w, "\t%s", strings.ToUpper(string(by)))
	}
	fmt.Fprintln(w)
	row := func(layer string, r compress.GateRecall) {
		fmt.Fprintf(w, "%.1f %%\t%s\t%.4f\t%.4f\t%.4f", 100*r.Density, layer, r.Gate, r.Best, r.Peak)
		for _, found := range r.Untrained {
			fmt.Fprintf(w, "\t%.4f", found)
		}
		fmt.Fprintln(w)
	}
	for _, r := range g.Recalls {
		row("all", r)
	}
	for l, r := range g.Layers {
		row(fmt.Sprint(l), r)
	}
	return w.Flush()
}
