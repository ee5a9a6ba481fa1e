package model

import (
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
)

// Tensor finds a checkpoint's tensor by the name that GGUF gives it, whatever this checkpoint calls it; one expert's matrix that lies by itself,
// by the stack's name and the expert's number: "blk.3.ffn_up_exps.weight.7". Errors are those of Describe and of the checkpoint.
func Tensor(c *store.Checkpoint, name string) (store.Tensor, error) {
	arch, err := find(c)
	if err != nil {
		return store.Tensor{}, inFile(c, err)
	}
	return c.Tensor(arch.inFile(c, name))
}

// inFile is what this checkpoint calls our tensor.
func (a *architecture) inFile(c *store.Checkpoint, name string) string {
	file := a.fileName(c.Kind, name)
	if c.Has(file) {
		return file
	}
	other := strings.TrimPrefix(file, "model.") // as embedding models are published: the network without what generates
	if c.Kind == store.GGUF {
		other = otherwise(file)
	}
	if c.Has(other) {
		return other
	}
	return file
}

// ExpertTensors are the gate, the up and the down matrix of an expert of a layer, counted as the router counts, however the checkpoint stores
// them: width x dim, twice, and dim x width. Describe has described it so. Errors are those of Load.
func ExpertTensors(c *store.Checkpoint, s *Spec, layer, expert int) (out [3]store.Tensor, err error) {
	arch, err := find(c)
	if err != nil {
		return out, inFile(c, err)
	}
	ls := &s.Layers[layer]
	at := moe.Place{Row: int32(expert)}
	if ls.Banks != nil {
		p := ls.Map.Phys[expert]
		if p < 0 {
			return out, fmt.Errorf("%s: %w: layer %d: expert %d is in no bank", c.Path, ErrSpec, layer, expert)
		}
		at = ls.Map.Place(int(p))
	}
	l := &loader{c: c, arch: arch}
	for i, st := range ls.stacks(s.Dim, int(at.Bank), func(part string) string { return fmt.Sprintf("blk.%d.%s", layer, part) }) {
		sp := st.spans(int(at.Row), int(at.Row)+1)[0]
		data, format := l.bytes(sp, st.cols)
		if l.err != nil {
			return out, inFile(c, l.err)
		}
		out[i] = store.Tensor{Name: arch.inFile(c, sp.name), Format: format, Shape: []int{st.rows, st.cols}, Data: data}
	}
	return out, nil
}
