package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
)

// gatesVerb holds what is done with attention gates: one subcommand a file.
func gatesVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "gates",
		Short: "Train or import the gates that guess which parts of the past a model will read",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(gatesTrainVerb(), gatesImportVerb(), gatesInfoVerb())
	return c
}

func gatesInfoVerb() *cobra.Command {
	var base string
	c := &cobra.Command{
		Use:   "info FILE",
		Short: "Say what a file of gates holds, and with --model whether it is that model's",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			g, err := model.ReadGates(args[0])
			if err != nil {
				return err
			}
			if err := printGates(c.OutOrStdout(), g); err != nil || base == "" {
				return err
			}
			ck, err := openCheckpoint(cfg.Models, base)
			if err != nil {
				return err
			}
			defer ck.Close()
			if _, err := model.OpenGates(args[0], ck); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "they are gates of %s\n", base)
			return err
		},
	}
	c.Flags().StringVar(&base, "model", "", "MODEL that the gates should be for")
	configs.Flags(c.Flags(), "models", "log")
	return c
}

// printGates says what gates are.
func printGates(out io.Writer, g *model.Gates) error {
	h, weights := g.Heads, 0
	for i := range g.Layer {
		l := &g.Layer[i]
		weights += len(l.Query) + len(l.Key) + len(l.QueryNorm) + len(l.KeyNorm)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "kind\t%s\n", g.Kind)
	fmt.Fprintf(w, "model\t%s (%.12s)\n", g.Name, g.Base)
	fmt.Fprintf(w, "layers\t%d of %d heads, %d key-value heads of %d\n", len(g.Layer), h.Query, h.KV, h.Dim)
	fmt.Fprintf(w, "gates\t%d a layer of %d values, %d parameters\n", g.KeyHeads(), h.Width, weights)
	for _, f := range g.Facts {
		fmt.Fprintf(w, "%s\t%s\n", f.Name, f.Text)
	}
	return w.Flush()
}
