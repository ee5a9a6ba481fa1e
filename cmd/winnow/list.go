package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
)

func listVerb() *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the models of the store",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			entries, err := store.Store{Root: cfg.Models}.List()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tID\tSIZE\tMODIFIED")
			fmt.Fprintf(w, "%s\t-\t%s\tin this binary\n", demo.Name, size(int64(len(demo.GGUF))))
			for _, e := range entries {
				if e.Err != nil {
					fmt.Fprintf(w, "%s\t-\t-\tdamaged: %v\n", e.Name, e.Err)
					continue
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Name, shortDigest(e.Digest), size(e.Size), e.Modified.Format(time.DateTime))
			}
			return w.Flush()
		},
	}
	configs.Flags(c.Flags(), "models")
	return c
}

// shortDigest is the first twelve digits of a digest, as ollama prints them; "-" for a model that has none, which servers say as zeros.
func shortDigest(digest string) string {
	const digits = 12
	digest = strings.TrimPrefix(digest, "sha256:")
	if strings.Trim(digest, "0") == "" || len(digest) < digits {
		return "-"
	}
	return digest[:digits]
}

// size prints bytes with a decimal unit: 7.6 MB.
func size(bytes int64) string {
	v, unit := float64(bytes), 0
	for v >= 1000 && unit < 4 {
		v, unit = v/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %cB", v, "kMGT"[unit-1])
}
