package moetest

import (
	"testing"

	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// The reference agrees with the golden choices, and with itself, whatever the cases do with operands.
func TestReference(t *testing.T) {
	Golden(t, tensor.Reference())
	GoldenTree(t, tensor.Reference())
	Example(t, tensor.Reference())
	tensortest.RunCases(t, tensor.Reference(), Cases())
}

func FuzzReference(f *testing.F) { tensortest.Fuzz(f, tensor.Reference(), Drawn) }
