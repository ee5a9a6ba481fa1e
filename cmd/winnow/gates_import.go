package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
)

func gatesImportVerb() *cobra.Command {
	var to gatesFile
	c := &cobra.Command{
		Use:   "import FILE.pth|FOLDER MODEL -o OUT.gguf",
		Short: "Make a file of gates of those that SeerAttention publishes",
		Long: `import reads attn_gate_weights.pth, or the folder that it lies in, and writes the gates for MODEL, which must be what they were trained for, in
whatever formats. The file's pickle is not run: what is in it beside a dict of tensors is refused. What config.json beside it says of the gates
is held against what Winnow computes.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			if err := to.check(); err != nil {
				return fmt.Errorf("gates import: %w", err)
			}
			ck, err := openCheckpoint(cfg.Models, args[1])
			if err != nil {
				return err
			}
			defer ck.Close()
			g, err := model.ImportGates(args[0], ck)
			if err != nil {
				return fmt.Errorf("gates import: %w", err)
			}
			g.Name = cmp.Or(g.Name, args[1])
			if err := model.WriteGates(c.Context(), to.path, g, quant.BF16); err != nil { // as they are published
				return err
			}
			return printGates(c.OutOrStdout(), g)
		},
	}
	to.flags(c)
	configs.Flags(c.Flags(), "models", "log")
	return c
}
