package main

import (
	"fmt"
	"math"
	"text/tabwriter"
	"time"

	"github.com/ollama/ollama/api"
	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
)

func psVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "ps",
		Short: "List the models that the running server has loaded",
		Long: `ps asks the server at addr which models it has loaded: what each takes in memory, its context in tokens, and when it is unloaded if
nobody asks for it. WINNOW_KEY holds the key for a server that wants one.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
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
			list, err := server.ListRunning(ctx)
			if err != nil {
				return fmt.Errorf("ask the server: %w", err)
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tID\tSIZE\tPROCESSOR\tCONTEXT\tUNTIL")
			for _, m := range list.Models {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n",
					m.Name, shortDigest(m.Digest), size(m.Size), processor(&m), m.ContextLength, until(m.ExpiresAt, time.Now()))
			}
			return w.Flush()
		},
	}
	configs.Flags(c.Flags(), "addr")
	return c
}

// processor says where a model is, as ollama writes it.
func processor(m *api.ProcessModelResponse) string {
	switch {
	case m.SizeVRAM <= 0:
		return "100% CPU"
	case m.SizeVRAM >= m.Size:
		return "100% GPU"
	}
	gpu := int(math.Round(100 * float64(m.SizeVRAM) / float64(m.Size)))
	return fmt.Sprintf("%d%%/%d%% CPU/GPU", 100-gpu, gpu)
}

// never is how far away an end may be to be one.
const never = 10 * 365 * 24 * time.Hour

// until says when a model is unloaded.
func until(at, now time.Time) string {
	left := at.Sub(now)
	switch {
	case at.IsZero() || left > never:
		return "Forever"
	case left <= 0:
		return "Stopping..."
	}
	return "in " + left.Round(time.Second).String()
}
