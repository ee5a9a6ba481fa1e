package main

import (
	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/model"
)

// expertsFlag is --moe of a verb that runs one model: with how few experts its tokens make do.
type expertsFlag struct{ asked **model.Experts }

// moeFlag adds --moe to a verb. Asked stays nil where nothing is asked.
func moeFlag(c *cobra.Command, asked **model.Experts) {
	c.Flags().Var(expertsFlag{asked}, "moe", "with how few experts tokens make do, of top_k, min_p, mass and skip_beta: top_k=4,mass=0.9; top_k=8/8/4 is by layer")
}

// Set implements pflag.Value. The error is a *model.ExpertsError.
func (f expertsFlag) Set(s string) error {
	x, err := model.ParseExperts(s)
	if err != nil {
		return err
	}
	if *f.asked = &x; x.String() == "" {
		*f.asked = nil
	}
	return nil
}

// Type is what help shows for the value.
func (f expertsFlag) Type() string { return "experts" }

func (f expertsFlag) String() string {
	if f.asked == nil { // pflag asks a flag that it made
		return ""
	}
	return askedOf(*f.asked)
}

// askedOf is what is asked of experts, as --moe has it; "" for nothing.
func askedOf(x *model.Experts) string {
	if x == nil {
		return ""
	}
	return x.String()
}
