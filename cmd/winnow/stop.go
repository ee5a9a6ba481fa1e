package main

import (
	"fmt"

	"github.com/ollama/ollama/api"
	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
)

func stopVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "stop MODEL",
		Short: "Have the running server unload a model",
		Long: `stop asks the server at addr to unload a model, at once or as soon as the requests that use it have ended. WINNOW_KEY holds the key for
a server that wants one.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			server, err := client(cfg)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c)
			defer stop()
			ask := api.GenerateRequest{Model: args[0], KeepAlive: new(api.Duration), Stream: new(false)}
			if err := server.Generate(ctx, &ask, func(api.GenerateResponse) error { return nil }); err != nil {
				return fmt.Errorf("stop %s: %w", args[0], err)
			}
			return nil
		},
	}
	configs.Flags(c.Flags(), "addr")
	return c
}
