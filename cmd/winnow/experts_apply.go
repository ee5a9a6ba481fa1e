package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
)

// applying is what winnow experts apply is asked for.
type applying struct {
	overlay string
	interop bool
	force   bool
	w       compress.Writing
}

func expertsApplyVerb() *cobra.Command {
	var a applying
	c := &cobra.Command{
		Use:   "apply MODEL PLAN -o OUT",
		Short: "Write a model without the experts that an overlay drops",
		Long: `apply writes a copy of MODEL that has only the experts that the overlay leaves: a GGUF file as a GGUF file, a Hugging Face directory as one.
Weights that stay are copied as they are, so nothing is lost but what is dropped.

Layers may be left with different numbers of experts, and experts that are merged are stored once in a GGUF file; only Winnow runs such
models. --interop writes what other programs run too: each row of a router has its own weights, and all layers have equally many. Where they have
not, a model whose router has a bias for the choice (DeepSeek V3 and its kin) is filled up by rows that are never chosen; another is refused.

--merge average makes one expert of those that the overlay merges, with the means of their weights and of their router rows.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 2 && a.overlay != "" {
				return errors.New("experts apply: the overlay is named twice, by PLAN and by --overlay")
			}
			if len(args) == 2 {
				a.overlay = args[1]
			}
			if a.overlay == "" || a.w.Out == "" {
				return errors.New("experts apply: PLAN names what to drop, and --output the model to write")
			}
			if err := a.run(c, args[0]); err != nil {
				return fmt.Errorf("experts apply: %w", err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&a.overlay, "overlay", "", "the same as PLAN")
	f.StringVarP(&a.w.Out, "output", "o", "", "GGUF file or folder to write; nothing may be there")
	f.BoolVar(&a.interop, "interop", false, "write a model that other programs run too, or none")
	f.StringVar((*string)(&a.w.Merging), "merge", string(compress.Share), "what becomes of merged experts: share weights, or average")
	f.BoolVar(&a.force, "force", false, "apply an overlay that was made for a model of other tensors")
	configs.Flags(f, "models")
	return c
}

func (a *applying) run(c *cobra.Command, name string) (err error) {
	cfg, _, err := settings(c)
	if err != nil {
		return err
	}
	o, err := readOverlay(a.overlay)
	if err != nil {
		return err
	}
	if a.force {
		o.Model = ""
	}
	if a.interop {
		a.w.For = compress.Anyone
	}
	model, err := openCheckpoint(cfg.Models, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()
	ctx, stop := interruptible(c)
	defer stop()
	p := showProgress(c)
	a.w.See = p.see
	err = compress.Apply(ctx, model, *o, a.w)
	p.close()
	if ctx.Err() != nil {
		return errors.New("interrupted; nothing is left")
	}
	if err != nil {
		return err
	}
	small, err := openPath(a.w.Out)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "wrote %s: %s, was %s\n", a.w.Out, size(small.Size()), size(model.Size()))
	return errors.Join(err, small.Close())
}
