//go:build linux && cgo && (amd64 || arm64)

package cpu

// #include "ffn.h"
import "C"

import (
	"unsafe"

	"github.com/winnow-llm/winnow/moe"
)

func fillFFN(e *entry, o *moe.FFN) {
	e.runs(e.kernels.ffn)
	e.operands(o.X, o.Y, o.Hidden, o.Out, o.Plan.Offset, o.Plan.Token, o.Plan.Place, o.Plan.Weight, o.N)
	kept := e.room(len(o.Banks) * C.sizeof_wn_bank)
	banks := unsafe.Slice((*C.wn_bank)(kept), len(o.Banks))
	for i := range o.Banks {
		b := &o.Banks[i]
		banks[i] = C.wn_bank{gate: weights(&b.Gate), up: weights(&b.Up), down: weights(&b.Down), slot: (*C.int32_t)(e.keep(b.Slot))}
	}
	e.pointer(kept)
	e.numbers(o.X.Rows, o.X.Cols, o.Hidden.Cols, o.Plan.Place.Cols, len(o.Banks[0].Slot), len(o.Banks), o.Hidden.Rows)
}
