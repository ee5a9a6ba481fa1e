package model

import (
	"fmt"
	"slices"
	"strings"
)

// GGUF files of ollama's own converter name some things otherwise, and leave some numbers out. What can be read from tensors is; what was
// repaired is said in Spec.Repairs:
//
//	blk.N.attn_out.*                             is blk.N.attn_output.*
//	norm_top_k_prob                              is expert_weights_norm
//	no expert_feed_forward_length                the experts' tensors say how wide they are; feed_forward_length may be another network's
//	no feed_forward_length                       blk.N.ffn_gate.weight says it
//	no rope.scaling.original_context_length      it is context_length
const ollamaNorm = "norm_top_k_prob"

// otherwise is what ollama calls one of our tensors; name itself for most.
func otherwise(name string) string { return strings.Replace(name, ".attn_output.", ".attn_out.", 1) }

// repaired notes, once, what a file says otherwise or not at all, and what is taken for it.
func (s *Spec) repaired(format string, args ...any) {
	if line := fmt.Sprintf(format, args...); !slices.Contains(s.Repairs, line) {
		s.Repairs = append(s.Repairs, line)
	}
}

// hasPart says whether the file has a tensor, by its own name or ollama's.
func (m *metadata) hasPart(s *Spec, name string) bool {
	other := otherwise(name)
	if m.c.Has(name) || other == name || !m.c.Has(other) {
		return m.c.Has(name)
	}
	s.repaired("tensors attn_out are read as attn_output")
	return true
}

// denseWidth is the hidden width of layer i's dense network by its tensor, where the file does not say; 0 where there is none.
func (m *metadata) denseWidth(s *Spec, i int) int {
	t, err := m.c.Tensor(fmt.Sprintf("blk.%d.ffn_gate.weight", i))
	if err != nil || len(t.Shape) != 2 {
		return 0
	}
	s.repaired("dense networks of width %d by their tensors, as key %q is missing", t.Shape[0], m.prefix+"feed_forward_length")
	return t.Shape[0]
}
