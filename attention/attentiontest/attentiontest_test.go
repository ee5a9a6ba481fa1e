package attentiontest

import (
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// The reference agrees with itself, whatever the cases do with operands. The longer cases are left to fast devices.
func TestReference(t *testing.T) {
	for _, c := range Cases() {
		if c.Rows < 5 {
			tensortest.RunCases(t, tensor.Reference(), []tensortest.Case{c})
		}
	}
}

// The plans that the cases draw keep the invariants of a plan.
func TestPlansHold(t *testing.T) {
	for _, c := range Cases() {
		o, ok := c.Make(c.NewWorld(tensortest.Seed, c.All())).Op.(*attention.Attend)
		if !ok {
			continue
		}
		if err := o.Plan.Check(o.Layout, o.Heads); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

func TestVisits(t *testing.T) { Visits(t, tensor.Reference(), quant.F32) }

func TestQuestIsSteady(t *testing.T) { SteadyQuest(t, tensor.Reference()) }

func TestGatesAreSteady(t *testing.T) { SteadyGates(t, tensor.Reference()) }

func FuzzReference(f *testing.F) { tensortest.Fuzz(f, tensor.Reference(), Drawn) }
