package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
)

// attentionVerb holds what is done with selectors of keys: one subcommand a file.
func attentionVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "attention",
		Short: "Find out how far selectors of keys must be turned for a model",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(attentionCalibrateVerb(), attentionShowVerb())
	return c
}

func attentionShowVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "info PROFILE",
		Short: "Say what a profile of selectors holds",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := model.ReadSparseProfile(args[0])
			if err != nil {
				return err
			}
			return printSelectors(c.OutOrStdout(), p)
		},
	}
	configs.Flags(c.Flags(), "log")
	return c
}

// printSelectors says what a profile holds, a line a setting and then one a layer.
func printSelectors(out io.Writer, p *model.SparseProfile) error {
	fmt.Fprintf(out, "%s (%.12s): %d of %d layers at %d tokens, on %s\n", p.Name, p.Model, len(p.Full), p.Layers, p.Context, p.Device)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "SELECTOR\tPHASE\tRECALL\tREACHED\tLEAST\tDENSITY\tMS\tDENSE\tLAYERS\tKNOB\tFROM\tTO\t")
	for i := range p.Settings {
		s := &p.Settings[i]
		var recall, density float32
		least, low, high, reached := float32(1), s.Knobs[0], s.Knobs[0], 0
		for l, knob := range s.Knobs {
			recall, density = recall+s.Recalls[l]/float32(len(s.Knobs)), density+s.Densities[l]/float32(len(s.Knobs))
			least, low, high = min(least, s.Recalls[l]), min(low, knob), max(high, knob)
			if s.Recalls[l] >= s.Recall {
				reached++
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%.4g\t%.4f\t%.4f\t%.4f\t%.1f\t%.1f\t%d of %d\t%s\t%.4g\t%.4g\t\n", s.Selector, s.Phase, s.Recall, recall, least, density,
			s.Ms, s.MsDense, reached, len(s.Knobs), s.Knob, low, high)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	fmt.Fprint(w, "LAYER\t")
	for i := range p.Settings {
		fmt.Fprintf(w, "%s %.4g\tREAD\t", p.Settings[i].Selector, p.Settings[i].Recall)
	}
	fmt.Fprintln(w)
	for l, layer := range p.Full {
		fmt.Fprintf(w, "%d\t", layer)
		for i := range p.Settings {
			fmt.Fprintf(w, "%.4g\t%.4f\t", p.Settings[i].Knobs[l], p.Settings[i].Densities[l])
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	usual := p.Usual()
	what := usual.String()
	if what == "" {
		what = "all keys: no selector was faster than reading them"
	}
	_, err := fmt.Fprintf(out, "by itself a model reads by %s\n", what)
	return err
}
