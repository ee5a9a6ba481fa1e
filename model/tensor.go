package model

import (
	"strings"

	"github.com/winnow-llm/winnow/store"
)

// Tensor finds a checkpoint's tensor by the name that GGUF gives it, whatever this checkpoint calls it; one expert's matrix, which GGUF does
// not have, by the stack's name and the expert's number: "blk.3.ffn_up_exps.weight.7". Errors are those of Describe and of the checkpoint.
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
	if bare := strings.TrimPrefix(file, "model."); !c.Has(file) && c.Has(bare) {
		return bare // as embedding models are published: the network without what generates
	}
	return file
}
