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
	answers    string // file of cases
	limit      int    // most cases; 0 = all
	experts    *model.Experts
}

func evalVerb() *cobra.Command {
	var e evaluation
	c := &cobra.Command{
		Use:   "eval MODEL",
		Short: "Measure a model: perplexity of a text, answers that are known, or logits of given tokens",
		Long: `--perplexity FILE measures as llama-perplexity does: the text is cut into chunks of --ctx tokens, and the second half of each
chunk is scored. --answers FILE reads lines of {"prompt": "...", "answer": "...", "chat": false}, also from a .gz, and measures how often the
likeliest answer has the right one in it, and how likely the right one is; with chat the prompt goes through the model's template. What --sparse
reads of a prompt and an answer is measured too. --logits FILE reads {"sequences": {"NAME": [ids...]}, "greedy": 16} and writes to --output, as safetensors, NAME.logits
for every position, NAME.greedy, the likeliest continuation, and for models with experts the choices for the sequence s70 as
router.LAYER.experts and router.LAYER.weights.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			asked := 0
			for _, file := range []string{e.perplexity, e.answers, e.logits} {
				if file != "" {
					asked++
				}
			}
			switch {
			case asked != 1:
				return errors.New("eval: give one of --perplexity, --answers and --logits")
			case e.limit < 0:
				return errors.New("eval: --limit is below 0")
			case e.answers != "":
				return e.runAnswers(c, args[0])
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
	c.Flags().StringVar(&e.answers, "answers", "", "file of prompts and their answers to measure the model's own with")
	c.Flags().IntVar(&e.limit, "limit", 0, "measure the first cases only; 0 = all")
	c.Flags().BoolVar(&e.asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&e.logits, "logits", "", "JSON file of token ids to compute logits of")
	c.Flags().StringVarP(&e.out, "output", "o", "", "safetensors file to write")
	overlayFlag(c)
	ropeFlags(c)
	moeFlag(c, &e.experts)
	configs.Flags(c.Flags(), "models", "threads", "cpu", "numa", "packed_cache", "packed_cache_bytes", "dtype", "kv_type", "rows", "sparse", "sparse_profiles", "duo_heads", "gates", "log")
	return c
}
