package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/store"
)

func rmVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove models from the store",
		Long: `rm removes models at once, and then their files that no other model needs. A file that a server has open, and all of them while
something is added to the store, stay for a later rm.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c)
			defer stop()
			var errs []error
			for _, name := range args {
				err := changeable(name)
				var r store.Removal
				if err == nil {
					r, err = store.Store{Root: cfg.Models}.Remove(ctx, name)
				}
				if err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(c.OutOrStdout(), "deleted '%s'\n", name)
				if r.Kept != nil {
					fmt.Fprintf(c.ErrOrStderr(), "winnow: files of %s stay for now: %v\n", name, r.Kept)
				}
			}
			return errors.Join(errs...)
		},
	}
	configs.Flags(c.Flags(), "models")
	return c
}
