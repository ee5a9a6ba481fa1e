package main

import (
	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
)

// ropeFlags adds to a verb that runs a model how it reads more tokens than it was made for.
func ropeFlags(c *cobra.Command) {
	configs.Flags(c.Flags(), "rope_scaling", "rope_scale", "rope_freq_base", "yarn_orig_ctx")
}

// ropeScaling is what the configuration says of it.
func ropeScaling(c *configs.Config) model.RopeScaling {
	return model.RopeScaling{Kind: c.RopeScaling, Factor: c.RopeScale, Original: c.YarnOrigCtx, Base: c.RopeFreqBase}
}
