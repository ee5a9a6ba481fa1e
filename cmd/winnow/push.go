package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/store"
)

func pushVerb() *cobra.Command {
	var insecure bool
	c := &cobra.Command{
		Use:   "push NAME",
		Short: "Send a model of the store to the registry of its name",
		Long: `push sends a model to the registry that its name says: HOST[:PORT]/NAMESPACE/MODEL[:TAG], or NAMESPACE/MODEL for the registry of ollama.
What the registry has already is not sent. It knows you by the key of --identity; FILE.pub beside that is what you tell it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			return follow(c, "push", args[0], func(ctx context.Context, see func(store.Progress)) error {
				return store.Store{Root: cfg.Models}.Push(ctx, args[0], remote(cfg, insecure), see)
			})
		},
	}
	c.Flags().BoolVar(&insecure, "insecure", false, "allow plain HTTP, and certificates of anybody")
	configs.Flags(c.Flags(), "models", "identity")
	return c
}
