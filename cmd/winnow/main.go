// Command winnow serves mixture-of-experts language models, chats with them on a terminal, and measures them.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
)

func main() {
	if err := root().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "winnow:", err)
		os.Exit(1)
	}
}

// root is the command line: one verb a file.
func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "winnow",
		Short: "Serve mixture-of-experts language models",
		Long: `Winnow serves mixture-of-experts and other language models over an OpenAI-compatible API.

MODEL is a GGUF file, a Hugging Face directory, a name in the store (winnow list), or "demo", a small model inside this binary.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(serveVerb(), runVerb(), pullVerb(), pushVerb(), listVerb(), showVerb(), createVerb(), cpVerb(), rmVerb(), psVerb(), stopVerb(), inspectVerb(),
		evalVerb(), expertsVerb(), gatesVerb(), attentionVerb(), compressVerb(), quantizeVerb(), benchVerb(), keyVerb(), versionVerb())
	return c
}

// settings reads the configuration for a verb whose flags configs.Flags added, and makes the logger that it asks for.
func settings(c *cobra.Command) (configs.Config, *slog.Logger, error) {
	cfg, err := configs.Load(c.Flags())
	if err != nil {
		return cfg, nil, err
	}
	if f := c.Flags().Lookup("expert-overlay"); f != nil && f.Value.Type() == "string" {
		cfg.Overlay = f.Value.String()
	}
	opt := &slog.HandlerOptions{Level: cfg.Log}
	if cfg.LogFormat == "json" {
		return cfg, slog.New(traced{slog.NewJSONHandler(c.ErrOrStderr(), opt)}), nil
	}
	return cfg, slog.New(traced{slog.NewTextHandler(c.ErrOrStderr(), opt)}), nil
}

// interruptible ends the verb's work at SIGINT and SIGTERM. A second signal ends the process at once.
func interruptible(c *cobra.Command) (context.Context, context.CancelFunc) {
	ctx := c.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
