package modeltest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// MiMo describes a checkpoint of that family with a layer that foretells further tokens.
type MiMo struct {
	Vocab, Dim, Layers int
	Seed               uint64
	// Chain makes a network that says Next of the last token, whatever came before, and whose head knows it.
	Chain bool
	// Blur has what else the head of a chain reads weigh so much that it errs: by its own layer, its past and hidden states. 0 = nothing.
	Blur float64
}

// Next is what follows a token in a chain, which has all ids before any returns where the vocabulary is a multiple of 4 of no prime factors but 2 and 5.
func (o MiMo) Next(id int32) int32 { return (id*21 + 11) % int32(o.Vocab) }

// Checkpoint makes it, of random weights in F32, with two heads of queries for each of keys and values.
func (o MiMo) Checkpoint() *store.Checkpoint {
	c := &store.Checkpoint{Path: "mimo", Kind: store.HF, Tensors: map[string]store.Tensor{}, Files: map[string][]byte{"config.json": o.config()}}
	random := rand.New(rand.NewPCG(o.Seed, 1))
	gauss := func(name string, about, spread float64, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(about + spread*random.NormFloat64())
		}
		c.Tensors[name] = plain(name, v, shape)
	}
	wide, kv, hidden := o.Dim, o.Dim/2, o.Dim*3/2
	spread := 1 / math.Sqrt(float64(o.Dim))
	out := spread
	if o.Chain {
		out = 0
	}
	layer := func(b string, out float64) {
		gauss(b+"input_layernorm.weight", 1, 0.1, o.Dim)
		gauss(b+"post_attention_layernorm.weight", 1, 0.1, o.Dim)
		gauss(b+"self_attn.q_proj.weight", 0, spread, wide, o.Dim)
		gauss(b+"self_attn.k_proj.weight", 0, spread, kv, o.Dim)
		gauss(b+"self_attn.v_proj.weight", 0, spread, kv, o.Dim)
		gauss(b+"self_attn.q_proj.bias", 0, 0.1, wide)
		gauss(b+"self_attn.k_proj.bias", 0, 0.1, kv)
		gauss(b+"self_attn.v_proj.bias", 0, 0.1, kv)
		gauss(b+"self_attn.o_proj.weight", 0, out, o.Dim, wide)
		gauss(b+"mlp.gate_proj.weight", 0, spread, hidden, o.Dim)
		gauss(b+"mlp.up_proj.weight", 0, spread, hidden, o.Dim)
		gauss(b+"mlp.down_proj.weight", 0, out, o.Dim, hidden)
	}
	gauss("model.embed_tokens.weight", 0, 1, o.Vocab, o.Dim)
	for i := range o.Layers {
		layer(fmt.Sprintf("model.layers.%d.", i), out)
	}
	gauss("model.norm.weight", 1, 0.1, o.Dim)
	gauss("lm_head.weight", 0, 4*spread, o.Vocab, o.Dim)
	const mtp = "model.mtp_layers.0."
	if o.Chain {
		out = o.Blur * spread
	}
	layer(mtp, out)
	for _, part := range []string{"token_layernorm", "hidden_layernorm", "final_layernorm"} {
		gauss(mtp+part+".weight", 1, 0.1, o.Dim)
	}
	gauss(mtp+"input_proj.weight", 0, spread, o.Dim, 2*o.Dim)
	if o.Chain {
		o.chain(c)
	}
	return c
}

// Write makes a folder's files of it, without a tokenizer.
func (o MiMo) Write(ctx context.Context, dir string) error {
	c := o.Checkpoint()
	var all store.NewSafetensors
	for _, name := range c.Names() {
		t := c.Tensors[name]
		all.Tensors = append(all.Tensors, store.NewTensor{Name: name, Format: t.Format, Shape: t.Shape, Pieces: slices.Values([][]byte{t.Data})})
	}
	if err := store.WriteSafetensors(ctx, filepath.Join(dir, "model.safetensors"), all, nil); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), c.Files["config.json"], 0o600)
}

// chain makes the output matrix say what follows, and the head go by the token alone.
func (o MiMo) chain(c *store.Checkpoint) {
	from := floats(c.Tensors["model.embed_tokens.weight"])
	to := make([]float32, len(from))
	for id := range int32(o.Vocab) {
		copy(to[int(o.Next(id))*o.Dim:][:o.Dim], from[int(id)*o.Dim:])
	}
	c.Tensors["lm_head.weight"] = plain("lm_head.weight", to, []int{o.Vocab, o.Dim})
	const name = "model.mtp_layers.0.input_proj.weight"
	input := floats(c.Tensors[name])
	for i := range o.Dim {
		row := input[2*o.Dim*i:][:2*o.Dim]
		for j := range row {
			row[j] *= float32(o.Blur)
		}
		row[o.Dim+i]++
	}
	c.Tensors[name] = plain(name, input, []int{o.Dim, 2 * o.Dim})
}

func (o MiMo) config() []byte {
	b, err := json.Marshal(map[string]any{
		"architectures": []string{"MiMoForCausalLM"}, "model_type": "mimo", "attention_bias": true, "hidden_act": "silu", "hidden_size": o.Dim,
		"intermediate_size": o.Dim * 3 / 2, "max_position_embeddings": 4096, "num_attention_heads": 4, "num_hidden_layers": o.Layers,
		"num_key_value_heads": 2, "num_nextn_predict_layers": 1, "rms_norm_eps": 1e-5, "rope_theta": 640000, "tie_word_embeddings": false,
		"use_sliding_window": false, "sliding_window": 4096, "max_window_layers": o.Layers, "vocab_size": o.Vocab, "bos_token_id": 1, "eos_token_id": 2,
	})
	if err != nil {
		panic(err)
	}
	return b
}

// plain is a tensor of F32.
func plain(name string, v []float32, shape []int) store.Tensor {
	data := make([]byte, 0, 4*len(v))
	for _, x := range v {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
	}
	return store.Tensor{Name: name, Format: quant.F32, Shape: shape, Data: data}
}

// floats are a tensor's values.
func floats(t store.Tensor) []float32 {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	v := make([]float32, n)
	t.Format.Decode(v, t.Data)
	return v
}
