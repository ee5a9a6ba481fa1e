package model

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/winnow-llm/winnow/attention"
)

// PlanError is a plan of keys that must not be executed: what a selector wrote for a layer of a step, see Model.Prove.
type PlanError struct {
	Layer     int      // of the network
	Selectors []string // that served some row of the step in it, by name
	*attention.PlanError
}

func (e *PlanError) Error() string {
	return fmt.Sprintf("layer %d, keys chosen by %q: %v", e.Layer, e.Selectors, e.PlanError)
}

// Unwrap is what is wrong with the plan.
func (e *PlanError) Unwrap() error { return e.PlanError }

// Prove has every layer's plan checked before it is executed, once a step, against all that a plan promises and against pages that are freed. A step with
// a plan that breaks it ends there, and the queue's next Sync gives a *PlanError. Each check waits for the device.
func (m *Model) Prove() {
	switch r := m.loader.resident; {
	case m.proofs != nil:
	case r != nil:
		m.proofs = r.queue
	default:
		m.proofs = &failing{Queue: m.queue}
		m.queue = m.proofs
	}
}

// proved says whether a layer's plan may be executed.
func (m *Model) proved(layer int) bool {
	f := m.proofs
	if f == nil {
		return true
	}
	if f.err != nil {
		return false
	}
	op, b := &m.layers[layer].attend, m.batch
	var rows [4]byte
	f.Read(rows[:], b.Layout.Rows.Buf, b.Layout.Rows.Off) // so that all before has run
	var broken *attention.PlanError
	if errors.As(op.Check(f), &broken) {
		f.err = cmp.Or(f.Queue.Sync(), error(&PlanError{layer, m.choosers(layer), broken})) // of a device that failed the plan says nothing
	}
	return f.err == nil
}

// choosers are the names of the selectors that serve rows of the step in a layer.
func (m *Model) choosers(layer int) (names []string) {
	if !m.sparse.serves(layer) {
		return []string{m.selectors[m.spec.Layers[layer].Window].Caps.Fingerprint}
	}
	for _, n := range m.batch.tiles.in {
		names = append(names, m.sparse.kinds[n].Name)
	}
	return names
}
