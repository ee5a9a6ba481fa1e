package model_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// checkpoint is a consistent GGUF description of two layers, one of experts, with weights of zero.
func checkpoint() *store.Checkpoint {
	c := &store.Checkpoint{Path: "small.gguf", Kind: store.GGUF, Tensors: map[string]store.Tensor{}, Meta: store.Meta{
		"general.architecture": "qwen3moe", "qwen3moe.block_count": uint32(2), "qwen3moe.context_length": uint32(128),
		"qwen3moe.embedding_length": uint32(8), "qwen3moe.feed_forward_length": uint32(12), "qwen3moe.attention.head_count": uint32(2),
		"qwen3moe.attention.head_count_kv": uint32(1), "qwen3moe.attention.key_length": uint32(4), "qwen3moe.expert_count": uint32(4),
		"qwen3moe.expert_used_count": uint32(2), "qwen3moe.expert_feed_forward_length": uint32(6),
	}}
	add := func(name string, shape ...int) {
		n := 4
		for _, d := range shape {
			n *= d
		}
		c.Tensors[name] = store.Tensor{Name: name, Format: quant.F32, Shape: shape, Data: make([]byte, n)}
	}
	add("token_embd.weight", 10, 8)
	add("output_norm.weight", 8)
	for i := range 2 {
		b := fmt.Sprintf("blk.%d.", i)
		add(b+"attn_norm.weight", 8)
		add(b+"attn_q.weight", 8, 8)
		add(b+"attn_k.weight", 4, 8)
		add(b+"attn_v.weight", 4, 8)
		add(b+"attn_output.weight", 8, 8)
		add(b+"attn_q_norm.weight", 4)
		add(b+"attn_k_norm.weight", 4)
		add(b+"ffn_norm.weight", 8)
	}
	add("blk.0.ffn_gate.weight", 12, 8)
	add("blk.0.ffn_up.weight", 12, 8)
	add("blk.0.ffn_down.weight", 8, 12)
	add("blk.1.ffn_gate_inp.weight", 4, 8)
	add("blk.1.ffn_gate_exps.weight", 4, 6, 8)
	add("blk.1.ffn_up_exps.weight", 4, 6, 8)
	add("blk.1.ffn_down_exps.weight", 4, 8, 6)
	return c
}

func load(c *store.Checkpoint) error {
	m, err := model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{
		Limits: model.Limits{Rows: 4, Sequences: 1, Wanted: 1, Pages: 1, Context: 64}})
	if err == nil {
		m.Close()
	}
	return err
}

func TestLoadConsistent(t *testing.T) {
	if err := load(checkpoint()); err != nil {
		t.Fatal(err)
	}
}

// A description that contradicts itself or its tensors is refused by an error that names the file and the place.
func TestLoadRefuses(t *testing.T) {
	key := func(key string, v any) func(*store.Checkpoint) {
		return func(c *store.Checkpoint) { c.Meta["qwen3moe."+key] = v }
	}
	gone := func(name string) func(*store.Checkpoint) {
		return func(c *store.Checkpoint) { delete(c.Tensors, name); delete(c.Meta, name) }
	}
	shape := func(name string, shape ...int) func(*store.Checkpoint) {
		return func(c *store.Checkpoint) {
			n := 4
			for _, d := range shape {
				n *= d
			}
			c.Tensors[name] = store.Tensor{Name: name, Format: quant.F32, Shape: shape, Data: make([]byte, n)}
		}
	}
	for _, test := range []struct {
		name   string
		change func(*store.Checkpoint)
		names  string // part of the error's text
		is     error
	}{
		{"unknown architecture", func(c *store.Checkpoint) { c.Meta["general.architecture"] = "rwkv7" }, "rwkv7", model.ErrArchitecture},
		{"no architecture", gone("general.architecture"), "known:", model.ErrArchitecture},
		{"architecture is a number", func(c *store.Checkpoint) { c.Meta["general.architecture"] = uint32(3) }, "general.architecture", store.ErrFormat},
		{"block_count is a string", key("block_count", "two"), "block_count", model.ErrSpec},
		{"block_count 0", key("block_count", uint32(0)), "block_count", model.ErrSpec},
		{"block_count huge", key("block_count", uint32(1<<31)), "block_count", model.ErrSpec},
		{"block_count negative", key("block_count", int32(-1)), "block_count", model.ErrSpec},
		{"more layers than tensors", key("block_count", uint32(3)), "blk.2.", store.ErrNoTensor},
		{"no embedding length", gone("qwen3moe.embedding_length"), "embedding_length", model.ErrSpec},
		{"embedding length 0", key("embedding_length", uint32(0)), "token_embd", model.ErrSpec},
		{"head_count 0", key("attention.head_count", uint32(0)), "layer 0", model.ErrSpec},
		{"head_count_kv does not divide", key("attention.head_count_kv", uint32(3)), "layer 0", model.ErrSpec},
		{"per-layer array too short", key("attention.head_count", []int32{2, 2, 2}), "3 entries for 2 layers", model.ErrSpec},
		{"per-layer array negative", key("attention.head_count", []int32{2, -2}), "head_count", model.ErrSpec},
		{"key_length odd", key("attention.key_length", uint32(3)), "RoPE", model.ErrSpec},
		{"a million heads", key("attention.head_count", uint32(65536)), "attn_q", model.ErrSpec},
		{"rope dims beyond the head", key("rope.dimension_count", uint32(6)), "RoPE turns 6 of 4", model.ErrSpec},
		{"rope base 0", key("rope.freq_base", float32(0)), "base", model.ErrSpec},
		{"rope scaling unknown", key("rope.scaling.type", "longrope"), "longrope", model.ErrAssumption},
		{"value_length differs", key("attention.value_length", uint32(8)), "values of 8", model.ErrAssumption},
		{"context huge", key("context_length", uint32(1<<30)), "context", model.ErrSpec},
		{"context 0", key("context_length", uint32(0)), "context", model.ErrSpec},
		{"epsilon NaN", key("attention.layer_norm_rms_epsilon", float32(-1)), "epsilon", model.ErrSpec},
		{"expert_used_count 0", key("expert_used_count", uint32(0)), "0 of 4 experts", model.ErrSpec},
		{"expert_used_count beyond", key("expert_used_count", uint32(5)), "5 of 4 experts", model.ErrSpec},
		{"router of other width", shape("blk.1.ffn_gate_inp.weight", 4, 9), "ffn_gate_inp", model.ErrSpec},
		{"router without rows", shape("blk.1.ffn_gate_inp.weight", 0, 8), "ffn_gate_inp", model.ErrSpec},
		{"router of more rows than any model's", shape("blk.1.ffn_gate_inp.weight", 1025, 8), "1025 experts, want 1 to 1024", model.ErrSpec},
		{"experts fewer than the router", shape("blk.1.ffn_up_exps.weight", 3, 6, 8), "ffn_up_exps", model.ErrSpec},
		{"embedding of one dimension", shape("token_embd.weight", 8), "token_embd", model.ErrSpec},
		{"vocabulary 0", shape("token_embd.weight", 0, 8), "vocabulary", model.ErrSpec},
		{"q too small", shape("blk.0.attn_q.weight", 4, 8), "blk.0.attn_q.weight", model.ErrSpec},
		{"norm too long", shape("blk.0.attn_norm.weight", 9), "attn_norm", model.ErrSpec},
		{"missing tensor", gone("blk.1.ffn_down_exps.weight"), "ffn_down_exps", store.ErrNoTensor},
		{"integers as weights", func(c *store.Checkpoint) {
			x := c.Tensors["blk.0.attn_q.weight"]
			x.Format = quant.I32
			c.Tensors["blk.0.attn_q.weight"] = x
		}, "attn_q", model.ErrSpec},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := checkpoint()
			c.Meta, c.Tensors = maps.Clone(c.Meta), maps.Clone(c.Tensors)
			test.change(c)
			err := load(c)
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.names) || !strings.Contains(err.Error(), "small.gguf") {
				t.Errorf("got %v, want %v that names small.gguf and %q", err, test.is, test.names)
			}
		})
	}
}

// config.json is refused by name as well.
func TestConfigRefuses(t *testing.T) {
	for _, test := range []struct{ config, names string }{
		{``, "config.json"}, {`[]`, "config.json"}, {`{}`, "model_type"}, {`{"model_type":3}`, "model_type"},
		{`{"model_type":"mamba"}`, "mamba"},
		{`{"model_type":"llama"}`, "hidden_size"},
		{`{"model_type":"llama","hidden_size":"x","num_attention_heads":1,"num_hidden_layers":1}`, "hidden_size"},
		{`{"model_type":"llama","hidden_size":8,"num_attention_heads":0,"num_hidden_layers":1}`, "0 heads"},
		{`{"model_type":"llama","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":1000000000}`, "layers"},
		{`{"model_type":"llama","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":1,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8,"hidden_act":"gelu"}`, "gelu"},
		{`{"model_type":"llama","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":1,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8,"rope_scaling":{"type":"dynamic","factor":2,"original_max_position_embeddings":4}}`, "dynamic"},
		{`{"model_type":"llama","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":1,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8,"partial_rotary_factor":-1}`, "partial_rotary_factor"},
		{`{"model_type":"qwen3_moe","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":1,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8,"num_experts":4,"num_experts_per_tok":5,"moe_intermediate_size":4}`, "5 of 4"},
		{`{"model_type":"qwen3_moe","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":2,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8,"num_experts":[4],"num_experts_per_tok":2,"moe_intermediate_size":4}`, "experts of 1 layers"},
		{`{"model_type":"qwen3_moe","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":2,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8,"num_experts":[],"num_experts_per_tok":2,"moe_intermediate_size":4}`, "0 experts"},
		{`{"model_type":"qwen3_moe","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":2,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8,"num_experts":[4,0],"num_experts_per_tok":2,"moe_intermediate_size":4}`, "layer 1"},
		{`{"model_type":"qwen3_moe","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":2,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8,"num_experts":[4,-3],"num_experts_per_tok":2,"moe_intermediate_size":4}`, "layer 1"},
		{`{"model_type":"qwen3_moe","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":2,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8,"num_experts":[4,2000],"num_experts_per_tok":2,"moe_intermediate_size":4}`, "2000 experts"},
		{`{"model_type":"qwen3_moe","hidden_size":8,"num_attention_heads":1,"num_hidden_layers":2,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8,"num_experts":[4,"x"],"num_experts_per_tok":2,"moe_intermediate_size":4}`, "num_experts"},
	} {
		c := &store.Checkpoint{Path: "dir", Kind: store.HF, Files: map[string][]byte{"config.json": []byte(test.config)}}
		if _, err := model.Describe(c); err == nil || !strings.Contains(err.Error(), test.names) {
			t.Errorf("%s: got %v, want an error that names %q", test.config, err, test.names)
		}
	}
}
