package model

import (
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/store"
)

// Tensors go by their GGUF names here; one expert's matrix by the stack's name and the expert's number.
// published says what Hugging Face checkpoints of most families call them.
var published = map[string]string{
	"token_embd.weight":    "model.embed_tokens.weight",
	"output_norm.weight":   "model.norm.weight",
	"output.weight":        "lm_head.weight",
	"attn_norm":            "input_layernorm",
	"attn_q":               "self_attn.q_proj",
	"attn_k":               "self_attn.k_proj",
	"attn_v":               "self_attn.v_proj",
	"attn_output":          "self_attn.o_proj",
	"attn_q_norm":          "self_attn.q_norm",
	"attn_k_norm":          "self_attn.k_norm",
	"ffn_norm":             "post_attention_layernorm",
	"ffn_gate":             "mlp.gate_proj",
	"ffn_up":               "mlp.up_proj",
	"ffn_down":             "mlp.down_proj",
	"ffn_gate_inp":         "mlp.gate",
	"ffn_gate_exps.weight": "mlp.experts.%s.gate_proj.weight",
	"ffn_up_exps.weight":   "mlp.experts.%s.up_proj.weight",
	"ffn_down_exps.weight": "mlp.experts.%s.down_proj.weight",
}

// fileName is what a checkpoint of this kind calls our tensor: "blk.3.attn_q.weight" is "model.layers.3.self_attn.q_proj.weight".
func (a *architecture) fileName(kind store.Kind, name string) string {
	if kind == store.GGUF {
		return expertFile(name)
	}
	if whole := a.lookup(name); whole != "" {
		return whole
	}
	layers, own := "model.layers.", strings.TrimPrefix(name, "blk.")
	if foretells, ok := strings.CutPrefix(name, "mtp."); ok && a.mtp != "" {
		layers, own = a.mtp, foretells
	}
	block, rest, ok := strings.Cut(own, ".")
	if !ok {
		return name
	}
	layer := layers + block + "."
	if stack, expert, ok := cutLast(rest); ok && a.lookup(stack) != "" && strings.Contains(a.lookup(stack), "%s") {
		return layer + fmt.Sprintf(a.lookup(stack), expert)
	}
	if part, kind, ok := cutLast(rest); ok && a.lookup(part) != "" {
		return layer + a.lookup(part) + "." + kind
	}
	return name
}

// expertFile is what a GGUF file calls our tensor: "blk.3.ffn_up_exps.weight.7" is "blk.3.ffn_up.7.weight".
func expertFile(name string) string {
	if stack, expert, ok := cutLast(name); ok {
		if part, ok := strings.CutSuffix(stack, "_exps.weight"); ok {
			return part + "." + expert + ".weight"
		}
	}
	return name
}

func (a *architecture) lookup(name string) string {
	if own := a.names[name]; own != "" {
		return own
	}
	return published[name]
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
