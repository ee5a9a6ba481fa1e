package tensortest

import (
	"testing"

	"github.com/winnow-llm/winnow/tensor"
)

// The reference agrees with itself, whatever the cases do with operands. The large cases are left to fast devices.
func TestReference(t *testing.T) { RunCases(t, tensor.Reference(), Cases()) }

func FuzzReference(f *testing.F) { Fuzz(f, tensor.Reference(), Drawn) }
