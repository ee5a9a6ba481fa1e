package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
)

// evaluation is what winnow eval is asked for.
type evaluation struct {
	perplexity string // text file
	ctx        int    // tokens a chunk
	chunks     int    // most chunks; 0 = all
	asJSON     bool
	logits     string // file of token ids
	out        string // safetensors file
	experts    *model.Experts
}

func evalVerb() *cobra.Command {
	var e evaluation
	c := &cobra.Command{
		Use:   "eval MODEL",
		Short: "Measure a model: perplexity of a text, or logits of given tokens",
		Long: `--perplexity FILE measures as llama-perplexity does: the text is cut into chunks of --ctx tokens, and the second half of each
chunk is scored. --logits FILE reads {"sequences": {"NAME": [ids...]}, "greedy": 16} and writes to --output, as safetensors, NAME.logits
for every position, NAME.greedy, the likeliest continuation, and for models with experts the choices for the sequence s70 as
router.LAYER.experts and router.LAYER.weights.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case (e.perplexity == "") == (e.logits == ""):
				return errors.New("eval: give one of --perplexity and --logits")
			case e.logits != "" && e.out == "":
				return errors.New("eval: --logits needs --output")
			case e.logits != "":
				return e.runLogits(c, args[0])
			}
			return e.runPerplexity(c, args[0])
		},
	}
	c.Flags().StringVar(&e.perplexity, "perplexity", "", "text file to measure the perplexity of")
	c.Flags().IntVar(&e.ctx, "ctx", 512, "tokens of a chunk of the text")
	c.Flags().IntVar(&e.chunks, "chunks", 0, "measure the first chunks only; 0 = all")
	c.Flags().BoolVar(&e.asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&e.logits, "logits", "", "JSON file of token ids to compute logits of")
	c.Flags().StringVarP(&e.out, "output", "o", "", "safetensors file to write")
	overlayFlag(c)
	ropeFlags(c)
	moeFlag(c, &e.experts)
	configs.Flags(c.Flags(), "models", "threads", "cpu", "dtype", "sparse", "log")
	return c
}
