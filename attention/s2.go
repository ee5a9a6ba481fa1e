package attention

import (
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// S2-Attention (Lin et al. 2024, arXiv 2407.17678, section 3, and the authors' library DKernel): the model has been trained with the
// pattern. Of query block i, head h reads key block j <= i where i - j < local or (j + h*step + offset) mod stride = 0, blocks being pages.
// The defaults are those of Phi-3-small.
//
// The knob is local, not stride: a head has learnt which columns are its own, and another stride would give it others, while a longer
// local range only adds to what it reads.
var _ = register(Kind{
	Name: "s2", Phases: Prefill | Decode, Placed: true,
	Knob: Knob{Name: "local", Default: 16, Min: 1, Max: 1 << 20, What: "how many pages a row reads up to its own, which counts"},
	Params: []Knob{
		{Name: "stride", Default: 8, Min: 1, Max: 1 << 20, What: "how many pages lie from one column of a head to the next"},
		{Name: "offset", Default: 1, Min: 0, Max: 1 << 20, What: "how far the columns of the first head are shifted"},
		{Name: "homo", Default: 0, Min: 0, Max: 1, What: "1 where all heads have the columns of the first"},
		{Name: "kv", Default: 0, Min: 0, Max: 1, What: "1 where heads are counted by keys and values, so that a group shares its columns"},
		{Name: "dense_heads", Default: 0, Min: 0, Max: 1 << 20, What: "how many of the last key-value heads read everything"},
		{Name: "dense_every", Default: 2, Min: 0, Max: 1 << 20, What: "the last of how many layers reads everything; 0 where none does"},
	},
	New: newS2,
})

func newS2(k *Kind, e *Env, s Setting) (*Selector, error) {
	ops := make([]*SelectS2, len(e.Caches))
	var owned []tensor.Buffer
	for layer := range ops {
		columns, err := onDevice(e.Device, s2Columns(k, e, s, layer))
		if err != nil {
			(&Selector{owned: owned}).Free(e.Device)
			return nil, fmt.Errorf("s2: %w", err)
		}
		owned = append(owned, columns.Buf)
		ops[layer] = &SelectS2{
			Layout: e.Layout, Plan: e.Plan, Columns: columns, Serves: s.Number, Stride: k.param(s, "stride"), Local: k.knob(s, layer),
		}
	}
	sel := prepared(e, Caps{ChunkAlign: 1, Fingerprint: k.fingerprint(s)}, func(layer int) tensor.Op { return ops[layer] })
	sel.owned = owned
	sel.Keeps = func(layer int, knob float32) []Keep {
		return s2Keeps(e, s2Columns(k, e, s, layer), ops[layer].Stride, int(turned(knob, ops[layer].Local))-1)
	}
	return sel, nil
}

// s2Columns is the first column of every plan group, or -1 where its heads read everything.
func s2Columns(k *Kind, e *Env, s Setting, layer int) []int32 {
	columns := make([]int32, e.Plan.Groups)
	stride, every := k.param(s, "stride"), k.param(s, "dense_every")
	sparse := e.KV() - k.param(s, "dense_heads")
	for g := range columns {
		head := g * e.Heads / e.Plan.Groups
		kv, of := head*e.KV()/e.Heads, e.Heads
		if k.param(s, "kv") == 1 {
			head, of = kv, e.KV()
		}
		if k.param(s, "homo") == 1 {
			head = 0
		}
		if every > 0 && (layer+1)%every == 0 || kv >= sparse {
			columns[g] = -1
			continue
		}
		shift := head*max(1, stride/of) + k.param(s, "offset")
		columns[g] = int32((stride - shift%stride) % stride)
	}
	return columns
}

// s2Keeps is what key-value heads read whose plan groups have these first columns, and so many pages before a row's own.
func s2Keeps(e *Env, columns []int32, stride, recent int) []Keep {
	keeps := make([]Keep, e.KV())
	for g, column := range columns {
		k := &keeps[g*e.Heads/e.Plan.Groups*e.KV()/e.Heads]
		switch {
		case column < 0:
			*k = Everything()
		case !slices.Contains(k.Columns, column):
			*k = Keep{Stride: stride, Columns: append(k.Columns, column), Recent: max(0, recent)}
		}
	}
	return keeps
}

// onDevice is numbers in a column of a device.
func onDevice(d tensor.Device, numbers []int32) (tensor.Mat, error) {
	m, err := tensor.NewMat(d, quant.I32, len(numbers), 1)
	if err != nil {
		return tensor.Mat{}, err
	}
	q := d.Queue()
	q.Write(m.Buf, m.Off, tensor.FromI32(len(numbers), 1, numbers).Raw())
	if err := q.Sync(); err != nil {
		d.Free(m.Buf)
		return tensor.Mat{}, err
	}
	return m, nil
}

// SelectS2 plans by position alone: the last pages, and before them every Stride-th page, each head its own. A tile lies in one page, so
// that all its rows have one plan, in whatever step they are computed.
type SelectS2 struct {
	Layout  *Layout
	Plan    *Plan
	Columns tensor.Mat // plan groups x 1, I32: the first page of those that are Stride apart; -1 where the heads read everything
	Serves  int        // the policy whose tiles it plans
	Stride  int        // pages
	Local   float32    // pages up to a tile's own, where the request says nothing
}

// Reference works tile by tile.
func (o *SelectS2) Reference() {
	pos, columns := o.Layout.Pos.I32(), o.Columns.I32()
	o.Layout.Tiles.Served(o.Serves, o.Local, func(tile, first, _ int, local float32) {
		start := max(0, int(pos[first])/PageTokens-int(local)+1)
		for g := range o.Plan.Groups {
			r := tile*o.Plan.Groups + g
			if columns[g] < 0 {
				o.Plan.Write(r, 0, 0, nil, nil)
				continue
			}
			var blocks []int32
			for b := int(columns[g]); b < start; b += o.Stride {
				blocks = append(blocks, int32(b))
			}
			o.Plan.Write(r, 0, start*PageTokens, blocks, nil)
		}
	})
}

// Operands lists the layout's tiles, positions and columns, then the plan.
func (o *SelectS2) Operands() (in, out []*tensor.Mat) {
	in = append(o.Layout.Tiles.operands(), &o.Layout.Pos, &o.Columns)
	return in, o.Plan.parts()
}

// Cost counts what is written, columns as if every list had half its room.
func (o *SelectS2) Cost() (bytes, flops int64) {
	n := int64(o.Plan.rows()) * int64(6+o.Plan.BlockRoom()/o.Stride/2)
	return 4 * n, n
}
