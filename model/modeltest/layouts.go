// Package modeltest rewrites checkpoints for tests.
package modeltest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/store"
)

var gates = regexp.MustCompile(`^(blk\.\d+\.ffn_)gate(_exps(?:\.q\d)?\.weight)$`)

// Fused is a checkpoint of stacked experts with gate and up in one tensor: of each expert the rows of gate and then those of up.
func Fused(c *store.Checkpoint) *store.Checkpoint {
	out := c.With(nil, nil)
	for _, name := range c.Names() {
		m := gates.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		up := m[1] + "up" + m[2]
		g, u := c.Tensors[name], c.Tensors[up]
		var data []byte
		for e := range g.Shape[0] {
			data = append(append(data, expert(g, e)...), expert(u, e)...)
		}
		t := store.Tensor{Name: m[1] + "gate_up" + m[2], Format: g.Format, Shape: []int{g.Shape[0], 2 * g.Shape[1], g.Shape[2]}, Data: data}
		delete(out.Tensors, name)
		delete(out.Tensors, up)
		out.Tensors[t.Name] = t
	}
	return out
}

// Separate is a checkpoint of stacked experts with a tensor for each matrix of each expert.
func Separate(c *store.Checkpoint) *store.Checkpoint {
	out := c.With(nil, nil)
	for _, name := range c.Names() {
		part, ok := strings.CutSuffix(name, "_exps.weight")
		if !ok {
			continue
		}
		t := c.Tensors[name]
		for e := range t.Shape[0] {
			one := store.Tensor{Name: fmt.Sprintf("%s.%d.weight", part, e), Format: t.Format, Shape: t.Shape[1:], Data: expert(t, e)}
			out.Tensors[one.Name] = one
		}
		delete(out.Tensors, name)
	}
	return out
}

// expert is the bytes of expert e of a stack.
func expert(t store.Tensor, e int) []byte {
	size := len(t.Data) / t.Shape[0]
	return slices.Clip(t.Data[e*size : (e+1)*size])
}

// File is a checkpoint as what a GGUF file is written from, its tensors in the order of their names.
func File(c *store.Checkpoint) store.NewGGUF {
	out := store.NewGGUF{Meta: c.Meta, Keys: c.Keys}
	for _, name := range c.Names() {
		t := c.Tensors[name]
		out.Tensors = append(out.Tensors, store.NewTensor{Name: name, Format: t.Format, Shape: t.Shape, Pieces: slices.Values([][]byte{t.Data})})
	}
	return out
}
