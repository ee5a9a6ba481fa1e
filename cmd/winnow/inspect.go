package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

// inspection is what winnow inspect says of a model, without loading it.
type inspection struct {
	Model        string        `json:"model"`
	Container    string        `json:"container"` // gguf or safetensors
	Architecture string        `json:"architecture"`
	Parameters   int64         `json:"parameters"`
	Bytes        int64         `json:"bytes"` // of all tensors
	Layers       int           `json:"layers"`
	Dim          int           `json:"dim"`
	Heads        int           `json:"heads"` // of the first layer
	KVHeads      int           `json:"kv_heads"`
	Vocabulary   int           `json:"vocabulary"`
	Context      int           `json:"context"`
	MTPLayers    int           `json:"mtp_layers,omitempty"` // that foretell further tokens
	MTPBytes     int64         `json:"mtp_bytes,omitempty"`  // of their tensors
	MoELayers    int           `json:"moe_layers"`
	Experts      int           `json:"experts,omitempty"`      // a layer of experts
	ExpertsUsed  int           `json:"experts_used,omitempty"` // a token
	ExpertBytes  int64         `json:"expert_bytes,omitempty"` // of all experts
	Tokenizer    string        `json:"tokenizer"`
	Template     bool          `json:"chat_template"`
	PageTokens   int           `json:"page_tokens"`
	PageBytes    int           `json:"page_bytes"` // cached keys and values of one page, all layers
	Formats      []formatCount `json:"formats"`    // most bytes first
	Repairs      []string      `json:"repairs,omitempty"`
}

// formatCount is how much of a model is stored in one format.
type formatCount struct {
	Format  string `json:"format"`
	Tensors int    `json:"tensors"`
	Bytes   int64  `json:"bytes"`
}

// expertName is that of a tensor of experts: of all, or of one.
var expertName = regexp.MustCompile(`_exps\.|\.experts\.|\.ffn_(?:gate|up|down)\.\d+\.`)

func inspectVerb() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Describe a model without loading it",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			ck, err := openCheckpoint(cfg.Models, args[0])
			if err != nil {
				return err
			}
			defer ck.Close()
			in, err := inspect(ck, cfg)
			if err != nil {
				return err
			}
			in.Model = args[0]
			if asJSON {
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(in)
			}
			return in.print(c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	configs.Flags(c.Flags(), "models", "dtype", "kv_type")
	return c
}

func inspect(c *store.Checkpoint, cfg configs.Config) (*inspection, error) {
	spec, err := model.Describe(c)
	if err != nil {
		return nil, err
	}
	opt := model.Options{DType: model.DType(cfg.DType), KVType: cfg.KVType}
	cache, err := opt.KV()
	if err != nil {
		return nil, err
	}
	first := spec.Layers[0]
	in := &inspection{
		Container: string(c.Kind), Architecture: spec.Arch, Bytes: c.Size(), Layers: len(spec.Layers), Dim: spec.Dim,
		Heads: first.Heads, KVHeads: first.KVHeads, Vocabulary: spec.Vocab, Context: spec.Context,
		PageTokens: attention.PageTokens, PageBytes: spec.PageBytes(cache),
		MTPLayers: len(spec.MTP), Repairs: spec.Repairs,
	}
	for _, name := range model.HeadTensors(c) {
		if t, ok := c.Tensors[name]; ok {
			in.MTPBytes += t.Bytes()
		}
	}
	for _, l := range spec.Layers {
		if l.Router != nil {
			in.MoELayers, in.Experts, in.ExpertsUsed = in.MoELayers+1, l.Router.Experts, l.Router.K
		}
	}
	in.count(c)
	in.Tokenizer, in.Template, err = describeText(c)
	return in, err
}

// count sums up tensors by format. Those in formats that Winnow does not read are counted under that word, without bytes.
func (in *inspection) count(c *store.Checkpoint) {
	byName := map[string]*formatCount{}
	for _, name := range c.Names() {
		format, bytes := "unsupported", int64(0)
		if t, ok := c.Tensors[name]; ok {
			format, bytes = t.Format.Name, t.Bytes()
			values := int64(1)
			for _, d := range t.Shape {
				values *= int64(d)
			}
			in.Parameters += values
			if in.MoELayers > 0 && expertName.MatchString(name) {
				in.ExpertBytes += bytes
			}
		}
		f := byName[format]
		if f == nil {
			f = &formatCount{Format: format}
			byName[format] = f
		}
		f.Tensors++
		f.Bytes += bytes
	}
	for _, f := range byName {
		in.Formats = append(in.Formats, *f)
	}
	slices.SortFunc(in.Formats, func(a, b formatCount) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Format, b.Format))
	})
}

// describeText names a checkpoint's tokenizer and says whether there is a chat template.
func describeText(c *store.Checkpoint) (tokenizer string, template bool, err error) {
	if c.Kind == store.GGUF {
		kind, err := c.Meta.String("tokenizer.ggml.model", "none")
		if err != nil {
			return "", false, err
		}
		pre, err := c.Meta.String("tokenizer.ggml.pre", "")
		if err != nil {
			return "", false, err
		}
		return strings.TrimSuffix(kind+"/"+pre, "/"), c.Meta.Has("tokenizer.chat_template"), nil
	}
	tokenizer = "none"
	for _, file := range []string{"tokenizer.model", "tokenizer.json"} {
		if c.Files[file] != nil {
			tokenizer = file
		}
	}
	template = c.Files["chat_template.jinja"] != nil
	if raw := c.Files["tokenizer_config.json"]; raw != nil {
		config, err := text.ParseTokenizerConfig(raw)
		if err != nil {
			return "", false, err
		}
		template = template || config.ChatTemplate != ""
	}
	return tokenizer, template, nil
}

func (in *inspection) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "model\t%s (%s)\n", in.Model, in.Container)
	fmt.Fprintf(w, "architecture\t%s\n", in.Architecture)
	fmt.Fprintf(w, "parameters\t%.1f M in %s\n", float64(in.Parameters)/1e6, size(in.Bytes))
	fmt.Fprintf(w, "layers\t%d of width %d, %d heads, %d key-value heads\n", in.Layers, in.Dim, in.Heads, in.KVHeads)
	if in.MoELayers > 0 {
		fmt.Fprintf(w, "experts\t%d, %d used for a token, in %d layers: %s\n", in.Experts, in.ExpertsUsed, in.MoELayers, size(in.ExpertBytes))
	}
	if in.MTPLayers > 0 {
		fmt.Fprintf(w, "prediction\t%d layer foretells further tokens (MTP): %s\n", in.MTPLayers, size(in.MTPBytes))
	}
	fmt.Fprintf(w, "context\t%d tokens\n", in.Context)
	template := "no chat template"
	if in.Template {
		template = "with chat template"
	}
	fmt.Fprintf(w, "tokenizer\t%s, %d tokens, %s\n", in.Tokenizer, in.Vocabulary, template)
	fmt.Fprintf(w, "cache\t%s a page of %d tokens\n", size(int64(in.PageBytes)), in.PageTokens)
	for i, f := range in.Formats {
		label := "formats"
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(w, "%s\t%s: %d tensors, %s\n", label, f.Format, f.Tensors, size(f.Bytes))
	}
	for _, r := range in.Repairs {
		fmt.Fprintf(w, "repaired\t%s\n", r)
	}
	return w.Flush()
}
