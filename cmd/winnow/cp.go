package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/store"
)

func cpVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "cp SOURCE NAME",
		Short: "Give a model of the store a second name",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			if err := errors.Join(changeable(args[0]), changeable(args[1])); err != nil {
				return err
			}
			ctx, stop := interruptible(c)
			defer stop()
			if err := (store.Store{Root: cfg.Models}).Copy(ctx, args[0], args[1]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "copied '%s' to '%s'\n", args[0], args[1])
			return err
		},
	}
	configs.Flags(c.Flags(), "models")
	return c
}
