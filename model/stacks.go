package model

import (
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/quant"
)

// ExpertLayout is how a checkpoint stores the matrices of a layer's experts.
type ExpertLayout int

// Layout of blk.N, slowest dimension first, of n experts as wide as f in a model as wide as d:
//
//	Stacked   ffn_gate_exps.weight, ffn_up_exps.weight [n, f, d], ffn_down_exps.weight [n, d, f]
//	Fused     ffn_gate_up_exps.weight [n, 2f, d], of each expert the rows of gate and then those of up, beside the same down
//	Separate  ffn_gate.E.weight, ffn_up.E.weight [f, d], ffn_down.E.weight [d, f] for E from 0: early GGUF files; folders likewise
//
// Stacked and fused experts may lie in banks: ffn_gate_up_exps.qB.weight and so on.
const (
	Stacked ExpertLayout = iota
	Fused
	Separate
)

// expertParts are the stacks of a layer's experts, fusedPart the one that may stand for the first two.
var expertParts = [3]string{"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"}

const fusedPart = "ffn_gate_up_exps"

// stack is one of the three matrices of each expert of a bank.
type stack struct {
	name       string // of the tensor; of separate experts that of the one that they would make
	experts    int
	rows, cols int  // of an expert's matrix
	block      int  // rows that the tensor has for an expert
	first      int  // of them that is the matrix's
	separate   bool // each expert has a tensor of its own: name, a dot and its number
}

// stacks are gate, up and down of a layer's bank; name makes a tensor's name of a part.
func (s *LayerSpec) stacks(dim, bank int, name func(string) string) (out [3]stack) {
	for i, part := range expertParts {
		st := stack{experts: s.Router.Experts, rows: s.ExpertWidth, cols: dim, block: s.ExpertWidth, separate: s.Stored == Separate}
		switch {
		case i == 2:
			st.rows, st.cols, st.block = dim, s.ExpertWidth, dim
		case s.Stored == Fused:
			part, st.block, st.first = fusedPart, 2*s.ExpertWidth, i*s.ExpertWidth
		}
		st.name = name(part + ".weight")
		if s.Banks != nil {
			st.name, st.experts = name(fmt.Sprintf("%s.q%d.weight", part, bank)), s.Banks[bank]
		}
		out[i] = st
	}
	return out
}

// span is rows lo to hi of a tensor that has so many.
type span struct {
	name         string
	rows, lo, hi int
}

// spans are where experts from to to are: one span where they lie one after another, else one an expert.
func (s stack) spans(from, to int) (out []span) {
	if to > from && !s.separate && s.block == s.rows {
		return []span{{s.name, s.experts * s.rows, from * s.rows, to * s.rows}}
	}
	for e := from; e < to; e++ {
		if s.separate {
			out = append(out, span{fmt.Sprintf("%s.%d", s.name, e), s.rows, 0, s.rows})
			continue
		}
		lo := e*s.block + s.first
		out = append(out, span{s.name, s.experts * s.block, lo, lo + s.rows})
	}
	return out
}

// stored finds out by their names how the experts of layer i are stored.
func (m *metadata) stored(i, experts int) (ExpertLayout, error) {
	block := fmt.Sprintf("blk.%d.", i)
	first := func(names ...string) string {
		for _, name := range names {
			if m.c.Has(block + name) {
				return block + name
			}
		}
		return ""
	}
	stack := func(part string) string { return first(part+".weight", part+".q0.weight") }
	gate, up, down, fused, single := stack(expertParts[0]), stack(expertParts[1]), stack(expertParts[2]), stack(fusedPart), ""
	for e := range experts + 1 {
		names := []string{fmt.Sprintf("ffn_gate.%d.weight", e), fmt.Sprintf("ffn_up.%d.weight", e), fmt.Sprintf("ffn_down.%d.weight", e)}
		name := first(names...)
		if e == experts && name != "" {
			return 0, fmt.Errorf("%w: tensor %q: there are %d experts", ErrSpec, name, experts)
		}
		if single == "" {
			single = name
		}
	}
	beside := func(a, b string) error {
		return fmt.Errorf("%w: tensor %q beside %q: the experts of a layer are stored in one way", ErrSpec, a, b)
	}
	for _, other := range []string{fused, gate, up, down, first(expertsMap)} {
		if single != "" && other != "" {
			return 0, beside(single, other)
		}
	}
	for _, other := range []string{gate, up} {
		if fused != "" && other != "" {
			return 0, beside(fused, other)
		}
	}
	switch {
	case single != "":
		return Separate, nil
	case fused != "":
		return Fused, nil
	}
	return Stacked, nil
}

// fits checks that the tensors of a layer's experts are there, that they have the shapes of their layout and, where they lie apart, one format.
func (m *metadata) fits(l *LayerSpec, i, dim int) error {
	name := func(part string) string { return fmt.Sprintf("blk.%d.%s", i, part) }
	for b := range max(1, len(l.Banks)) {
		for _, st := range l.stacks(dim, b, name) {
			want, all := []int{st.experts, st.block, st.cols}, []string{st.name}
			if st.separate {
				want, all = []int{st.rows, st.cols}, nil
				for _, sp := range st.spans(0, st.experts) {
					all = append(all, expertFile(sp.name))
				}
			}
			var format *quant.Format
			for _, file := range all {
				t, err := m.c.Tensor(file)
				switch {
				case err != nil:
					return err
				case !slices.Equal(t.Shape, want):
					return fmt.Errorf("%w: tensor %q is %s %v, want %v", ErrSpec, file, t.Format, t.Shape, want)
				case format != nil && t.Format != format:
					return fmt.Errorf("%w: tensor %q is %s, that of expert 0 is %s", ErrAssumption, file, t.Format, format)
				}
				format = t.Format
			}
		}
	}
	return nil
}

// width is how wide the experts of layer i are by their tensors; 0 where those do not say.
func (m *metadata) width(l *LayerSpec, i int) int {
	part, share := expertParts[1], 1
	if l.Stored == Fused {
		part, share = fusedPart, 2
	}
	name := fmt.Sprintf("blk.%d.%s.weight", i, part)
	switch {
	case l.Banks != nil:
		name = bankName(i, part, 0)
	case l.Stored == Separate:
		name = expertFile(name + ".0")
	}
	t, err := m.c.Tensor(name)
	if n := len(t.Shape); err == nil && n >= 2 && t.Shape[n-2]%share == 0 {
		return t.Shape[n-2] / share
	}
	return 0
}
