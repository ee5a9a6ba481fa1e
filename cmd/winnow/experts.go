package main

import "github.com/spf13/cobra"

// expertsVerb holds what is done with a model's experts: one subcommand a file.
func expertsVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "experts",
		Short: "Observe the experts of a model, plan which stay and in how many bits, and make a smaller model",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		expertsProfileVerb(),
		expertsPlanVerb(),
		expertsShowVerb(),
		expertsBitsVerb(),
		expertsApplyVerb(),
		expertsVerifyVerb(),
		expertsShortlistVerb(),
		expertsPlaceVerb(),
	)
	return c
}
