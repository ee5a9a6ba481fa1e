package compress

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// changes says whether the policy is about a layer's experts.
func (w *quantizing) changes(layer int) bool {
	_, bits := w.q.Policy.Bits[layer]
	_, experts := w.q.Policy.Layers[layer]
	return bits || experts
}

// bank is the experts of a layer that have the same formats.
type bank struct {
	asked   *quant.Format   // nil: as they are
	formats []*quant.Format // of gate, up and down
	experts []int           // rising
}

// experts enters the stacks of a layer's experts: as they were where all are there in one format, else in banks.
func (w *quantizing) experts(layer int) error {
	stacks := make([]store.Tensor, len(parts))
	for i, part := range parts {
		name := fmt.Sprintf("blk.%d.ffn_%s_exps.weight", layer, part)
		t, err := w.c.Tensor(name)
		if err != nil {
			return fmt.Errorf("%w: layer %d has no stacks of experts, gate, up and down: %w", moe.ErrOverlay, layer, err)
		}
		if len(t.Shape) != 3 || t.Format.Decode == nil || i > 0 && t.Shape[0] != stacks[0].Shape[0] {
			return fmt.Errorf("%s is %s of shape %v: %w", name, t.Format, t.Shape, store.ErrFormat)
		}
		stacks[i] = t
	}
	n := stacks[0].Shape[0]
	place, err := w.places(layer, n)
	if err != nil {
		return err
	}
	banks, err := w.banks(layer, stacks, place)
	if err != nil {
		return err
	}
	if len(banks) == 1 && len(banks[0].experts) == n {
		for i, t := range stacks {
			w.count(t, banks[0].asked, banks[0].formats[i])
			w.add(t.Name, t.Shape, []store.Tensor{t}, banks[0].formats[i])
		}
		return nil
	}
	for b, bank := range banks {
		for i, t := range stacks {
			rows := make([]store.Tensor, len(bank.experts))
			for r, e := range bank.experts {
				rows[r] = part(t, e)
			}
			name := fmt.Sprintf("blk.%d.ffn_%s_exps.q%d.weight", layer, parts[i], b)
			w.count(t, bank.asked, bank.formats[i])
			w.add(name, []int{len(rows), t.Shape[1], t.Shape[2]}, rows, bank.formats[i])
		}
	}
	w.table(layer, banks, place)
	return nil
}

// places says for each router row whose weights it has: its own, another's, or, -1, none.
func (w *quantizing) places(layer, n int) ([]int, error) {
	change, place, named := w.q.Policy.Layers[layer], make([]int, n), make([]bool, n)
	take := func(e int) error {
		if e < 0 || e >= n || named[e] {
			return fmt.Errorf("%w: layer %d: expert %d is none of %d, or named twice", moe.ErrOverlay, layer, e, n)
		}
		named[e] = true
		return nil
	}
	for e := range place {
		place[e] = e
	}
	live := n
	for _, e := range change.Drop {
		if err := take(e); err != nil {
			return nil, err
		}
		place[e] = -1
		live--
	}
	for _, group := range change.Merge {
		for _, e := range group {
			if err := take(e); err != nil {
				return nil, err
			}
			place[e] = group[0]
		}
	}
	k, err := w.c.Meta.Int(w.key("expert_used_count"), 1)
	if err != nil {
		return nil, err
	}
	if int64(live) < k || change.TopK != 0 && int64(change.TopK) != k {
		return nil, fmt.Errorf("%w: layer %d: %d experts stay and %d are used for a token, the file says %d", moe.ErrOverlay, layer, live,
			cmp.Or(int64(change.TopK), k), k)
	}
	return place, nil
}

// key is the full name of a key of the model's architecture.
func (w *quantizing) key(name string) string {
	arch, _ := w.c.Meta.String("general.architecture", "") // whoever runs the model asks for it; here no key is found then
	return arch + "." + name
}

// banks sorts a layer's experts by their formats, the smallest first.
func (w *quantizing) banks(layer int, stacks []store.Tensor, place []int) (banks []bank, err error) {
	bits, given := w.q.Policy.Bits[layer]
	for e := range bits.Over {
		if e < 0 || e >= len(place) {
			return nil, fmt.Errorf("%w: bits of layer %d: expert %d is none of %d", moe.ErrOverlay, layer, e, len(place))
		}
	}
	for e, at := range place {
		if at != e {
			continue
		}
		var to *quant.Format // nil: as it is
		if given {
			name := bits.Default
			if over, ok := bits.Over[e]; ok {
				name = over
			}
			if to, err = Known(name); err != nil {
				return nil, fmt.Errorf("%w: bits of layer %d: %w", moe.ErrOverlay, layer, err)
			}
		}
		formats := make([]*quant.Format, len(stacks))
		for i, t := range stacks {
			if formats[i] = t.Format; to != nil {
				formats[i] = stored(t, to)
			}
		}
		b := slices.IndexFunc(banks, func(b bank) bool { return slices.Equal(b.formats, formats) })
		if b < 0 {
			b = len(banks)
			banks = append(banks, bank{asked: to, formats: formats})
		}
		banks[b].experts = append(banks[b].experts, e)
	}
	if len(banks) > mostBanks {
		return nil, fmt.Errorf("%w: bits of layer %d: %d formats, at most %d are allowed", moe.ErrOverlay, layer, len(banks), mostBanks)
	}
	slices.SortStableFunc(banks, func(a, b bank) int { return cmp.Compare(a.bits(), b.bits()) })
	return banks, nil
}

// bits is what orders banks: bits a value, of gate, up and down added up.
func (b *bank) bits() (sum float64) {
	for _, f := range b.formats {
		sum += 8 * float64(f.Bytes) / float64(f.Block)
	}
	return sum
}

// table enters the map from router rows to banks and rows in them.
func (w *quantizing) table(layer int, banks []bank, place []int) {
	raw := make([]byte, 8*len(place))
	for e, at := range place {
		b, r := -1, -1
		for i := range banks {
			if row, ok := slices.BinarySearch(banks[i].experts, at); ok {
				b, r = i, row
			}
		}
		binary.LittleEndian.PutUint32(raw[8*e:], uint32(int32(b)))
		binary.LittleEndian.PutUint32(raw[8*e+4:], uint32(int32(r)))
	}
	w.enter(store.NewTensor{Name: fmt.Sprintf("blk.%d.ffn_exps_map", layer), Format: quant.I32, Shape: []int{len(place), 2}, Pieces: one(raw)})
}
