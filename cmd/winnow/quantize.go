package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/store"
)

func quantizeVerb() *cobra.Command {
	var to, policy, as, out string
	var force bool
	c := &cobra.Command{
		Use:   "quantize MODEL (--to FORMAT | --policy POLICY.json) -o OUT",
		Short: "Write a model in other number formats",
		Long: `quantize writes a GGUF of another. --to Q4_K stores all matrices in one format, but embeddings and output at least in Q6_K; --policy does
what winnow experts bits has chosen. Norms, routers and biases are F32. A tensor never becomes larger than it is in a quantised file, and
rows that are no whole number of 256 values get a format of 32, which is said.

A Hugging Face folder becomes a folder whose matrices are packed as compressed-tensors does (pack-quantized): --to q4_0 and q8_0 are 4 and 8 bits in
groups of 32; a policy may also leave experts in f32, f16 or bf16. Other programs read it where all experts have one format; transformers and vLLM take
experts of several widths for one.

--as F32 writes the numbers that the formats leave as plain floats, so that formats can be measured that a GGUF has no type for, such as W2G32,
W3G32 and W4G32. The file is no smaller.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			q, err := quantization(to, policy, as)
			if err != nil {
				return fmt.Errorf("quantize: %w", err)
			}
			q.Threads, q.Replace = cfg.Threads, force
			ck, err := openCheckpoint(cfg.Models, args[0])
			if err != nil {
				return err
			}
			defer ck.Close()
			var made compress.Quantized
			err = follow(c, "quantize", args[0], func(ctx context.Context, see func(store.Progress)) (err error) {
				q.See = func(done, total int64) {
					see(store.Progress{Status: "writing", Digest: out, Total: total, Completed: done})
				}
				made, err = compress.Quantize(ctx, ck, out, q)
				return err
			})
			if err != nil {
				return err
			}
			for _, what := range slices.Sorted(maps.Keys(made.Replaced)) {
				fmt.Fprintf(c.ErrOrStderr(), "%s where rows are no whole number of its blocks: %d tensors\n", what, made.Replaced[what])
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s of weights, before %s\n", out, size(made.Bytes), size(ck.Size()))
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&to, "to", "", "one format of all matrices: Q8_0, Q6_K, Q5_K, Q4_K, Q3_K, Q2_K, IQ4_XS, IQ4_NL, MXFP4, ...")
	f.StringVar(&policy, "policy", "", "file that says which tensors and experts get which format")
	f.StringVar(&as, "as", "", "F32, F16 or BF16: what holds the numbers, in place of the formats")
	f.StringVarP(&out, "output", "o", "", "file or folder to write; nothing may be there")
	f.BoolVar(&force, "force", false, "replace the GGUF that is there, once the new one is whole")
	c.MarkFlagsOneRequired("to", "policy")
	c.MarkFlagsMutuallyExclusive("to", "policy")
	if err := c.MarkFlagRequired("output"); err != nil {
		panic("winnow: bug: " + err.Error())
	}
	configs.Flags(f, "models", "threads")
	return c
}

// quantization is what the flags ask for.
func quantization(to, policy, as string) (q compress.Quantization, err error) {
	if as != "" {
		if q.As, err = compress.Writable(strings.ToUpper(as)); err != nil {
			return q, err
		}
	}
	if policy == "" {
		q.To, err = compress.Known(strings.ToUpper(to))
		return q, err
	}
	f, err := os.Open(policy)
	if err != nil {
		return q, err
	}
	q.Policy, err = compress.ReadPolicy(f)
	return q, errors.Join(err, f.Close())
}
