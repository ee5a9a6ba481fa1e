package model

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Keys and tensors of GGUF files whose experts Winnow has changed. A sliced file holds fewer experts than the original, by layer: I32
// counts, and for each layer the I32 ids that its experts had. A file of several formats has a stack of experts for each in a layer,
// blk.N.ffn_gate_exps.qB.weight and so on for B = 0, 1, ..., and says in blk.N.ffn_exps_map, I32, a row of bank and expert in it for each
// of the router's rows, where each expert is; -1 -1 = nowhere.
const (
	keyCounts  = "winnow.moe.expert_counts"
	keyIDs     = "winnow.moe.expert_ids.%d"
	expertsMap = "ffn_exps_map"
	mostBanks  = 4
)

// Describe reads a checkpoint's architecture, without touching its weights, as Load with these options makes a model of it.
func (o Options) Describe(c *store.Checkpoint) (Spec, error) {
	s, _, err := describe(c)
	if err != nil {
		return s, err
	}
	if err := o.change(c, &s); err != nil {
		return s, inFile(c, err)
	}
	return s, nil
}

// change makes a spec what the options say.
func (o *Options) change(c *store.Checkpoint, s *Spec) error {
	if err := o.stretch(s); err != nil {
		return err
	}
	return o.overlay(c, s)
}

// Overlay is moe.Overlay, for who serves models.
type Overlay = moe.Overlay

// MostOverlayBytes is moe.MostOverlayBytes.
const MostOverlayBytes = moe.MostOverlayBytes

// ParseOverlay is moe.ParseOverlay.
func ParseOverlay(raw []byte) (*Overlay, error) { return moe.ParseOverlay(raw) }

// overlay changes a spec as the options say, once all of it is found to fit.
func (o *Options) overlay(c *store.Checkpoint, s *Spec) error {
	if o.Overlay == nil {
		return nil
	}
	if made, is := o.Overlay.Model, c.Fingerprint(); made != "" && made != is && !o.ForceOverlay {
		return fmt.Errorf("%w: model: made for tensors that are known by %.12s, these are known by %.12s", moe.ErrOverlay, made, is)
	}
	listed := slices.Concat(slices.Collect(maps.Keys(o.Overlay.Layers)), slices.Collect(maps.Keys(o.Overlay.Bits)))
	slices.Sort(listed)
	for _, i := range slices.Compact(listed) {
		switch {
		case i < 0 || i >= len(s.Layers):
			return fmt.Errorf("%w: layer %d: layers: the model has %d", moe.ErrOverlay, i, len(s.Layers))
		case s.Layers[i].Router == nil:
			return fmt.Errorf("%w: layer %d: layers: it has no experts", moe.ErrOverlay, i)
		}
		l := &s.Layers[i]
		if err := o.Overlay.Check(i, *l.Router, l.Map); err != nil {
			return err
		}
		r := *l.Router
		l.Map, r.K = o.Overlay.Apply(l.Map, i, r.K)
		l.Router = &r
		if err := l.check(); err != nil {
			return fmt.Errorf("%w: layer %d: %w", moe.ErrOverlay, i, err)
		}
	}
	return nil
}

// sliced reads how many experts each layer of a sliced file has; nil in others.
func (m *metadata) sliced(layers int) []int64 {
	counts, err := m.c.Meta.Ints(keyCounts)
	m.keep(err)
	if counts != nil && len(counts) != layers {
		m.keep(fmt.Errorf("key %q has %d entries for %d layers", keyCounts, len(counts), layers))
	}
	return counts
}

// placed reads which experts a layer has and where they are.
func (m *metadata) placed(l *LayerSpec, i, experts int) error {
	var err error
	if l.Stored, err = m.stored(i, experts); err != nil {
		return err
	}
	l.Map = moe.EveryExpert(experts)
	key := fmt.Sprintf(keyIDs, i)
	ids, err := m.c.Meta.Ints(key)
	if m.keep(err); m.err != nil {
		return m.err
	}
	if ids != nil && len(ids) != experts {
		return fmt.Errorf("%w: key %q has %d entries for %d experts", ErrSpec, key, len(ids), experts)
	}
	seen := map[int64]bool{}
	for row, id := range ids {
		if id == -1 { // fills up a layer: its router never chooses it
			l.Map.Orig[row] = -1
			continue
		}
		if id < 0 || id >= moe.MostExperts || seen[id] {
			return fmt.Errorf("%w: key %q: expert %d is out of range, or stands twice", ErrSpec, key, id)
		}
		seen[id], l.Map.Orig[row] = true, int32(id)
	}
	if name := fmt.Sprintf("blk.%d.%s", i, expertsMap); m.c.Has(name) {
		return m.inBanks(l, i, name)
	}
	return nil
}

// inBanks reads a layer's map of banks.
func (m *metadata) inBanks(l *LayerSpec, i int, name string) error {
	t, err := m.c.Tensor(name)
	if err != nil {
		return err
	}
	rows := len(l.Map.Phys)
	if t.Format != quant.I32 || !slices.Equal(t.Shape, []int{rows, 2}) || len(t.Data) != 8*rows {
		return fmt.Errorf("%w: tensor %q is %s %v, want I32 [%d 2]", ErrSpec, name, t.Format, t.Shape, rows)
	}
	part := expertParts[0]
	if l.Stored == Fused {
		part = fusedPart
	}
	for b := range mostBanks + 1 {
		t, err := m.c.Tensor(bankName(i, part, b))
		if err != nil {
			break
		}
		if b == mostBanks || len(t.Shape) < 2 || t.Shape[0] < 1 || t.Shape[0] > moe.MostExperts {
			return fmt.Errorf("%w: tensor %q %v: want at most %d banks of 1 to %d experts", ErrSpec, t.Name, t.Shape, mostBanks, moe.MostExperts)
		}
		l.Banks = append(l.Banks, t.Shape[0])
	}
	number := map[moe.Place]int32{}
	for row := range rows {
		at := moe.Place{Bank: int32(binary.LittleEndian.Uint32(t.Data[8*row:])), Row: int32(binary.LittleEndian.Uint32(t.Data[8*row+4:]))}
		if at == (moe.Place{Bank: -1, Row: -1}) {
			l.Map.Phys[row] = -1
			continue
		}
		if at.Bank < 0 || int(at.Bank) >= len(l.Banks) || at.Row < 0 || int(at.Row) >= l.Banks[at.Bank] {
			return fmt.Errorf("%w: tensor %q: expert %d is number %d of bank %d, which is not there", ErrSpec, name, row, at.Row, at.Bank)
		}
		p, again := number[at]
		if !again {
			p = int32(len(number))
			number[at], l.Map.At = p, append(l.Map.At, at)
		}
		l.Map.Phys[row] = p
	}
	return nil
}

func bankName(layer int, part string, bank int) string {
	return fmt.Sprintf("blk.%d.%s.q%d.weight", layer, part, bank)
}

// verifyExperts checks the shapes of layer i that buffers are sized by.
func (l *loader) verifyExperts(s *LayerSpec, i, dim int) {
	name := func(part string) string { return fmt.Sprintf("blk.%d.%s", i, part) }
	for b := range max(1, len(s.Banks)) {
		gate, e := s.stacks(dim, b, name)[0], 0
		if gate.separate {
			e = int(s.Map.Place(0).Row)
		}
		at := gate.spans(e, e+1)[0]
		l.host(at.name, at.rows, gate.cols)
	}
}

// run is neighbouring experts of a bank.
type run struct{ bank, from, to int }

// runs are the experts that a layer has, in the order of the checkpoint.
func (s *LayerSpec) runs(apart bool) (out []run) {
	places := make([]moe.Place, s.Map.Physical())
	for p := range places {
		places[p] = s.Map.Place(p)
	}
	slices.SortFunc(places, func(a, b moe.Place) int {
		if a.Bank != b.Bank {
			return int(a.Bank - b.Bank)
		}
		return int(a.Row - b.Row)
	})
	for _, at := range places {
		if n := len(out); !apart && n > 0 && out[n-1].bank == int(at.Bank) && out[n-1].to == int(at.Row) {
			out[n-1].to++
			continue
		}
		out = append(out, run{int(at.Bank), int(at.Row), int(at.Row) + 1})
	}
	return out
}

// together are the runs that are loaded as a bank each. Experts that lie apart are copied anyway: of those of one format a bank is made.
func (l *loader) together(s *LayerSpec, dim int, name func(string) string) (out [][]run) {
	at := map[[3]*quant.Format]int{}
	for _, r := range s.runs(l.opt.Apart || s.Stored == Separate) {
		var formats [3]*quant.Format
		for i, st := range s.stacks(dim, r.bank, name) {
			formats[i] = l.c.Tensors[l.arch.inFile(l.c, st.spans(r.from, r.to)[0].name)].Format
		}
		if b, ok := at[formats]; ok && s.Stored == Separate && !l.opt.Apart {
			out[b] = append(out[b], r)
			continue
		}
		at[formats] = len(out)
		out = append(out, []run{r})
	}
	return out
}

// banks loads the experts that a layer has, and no others: each run of neighbours is a bank by itself, so that nothing is copied on the way.
func (l *loader) banks(s *LayerSpec, dim int, name func(string) string) (out []moe.Bank) {
	if !l.opt.Apart && l.c.Kind == store.GGUF { // apart, another model of the mapping may read what this one does not
		l.skip(s, dim, name)
	}
	for _, runs := range l.together(s, dim, name) {
		var w [3]tensor.Mat
		for i, st := range s.stacks(dim, runs[0].bank, name) {
			w[i] = l.load(l.joined(st, runs))
		}
		b := moe.Bank{Gate: w[0], Up: w[1], Down: w[2], Slot: slices.Repeat([]int32{-1}, s.Map.Physical())}
		before := int32(0)
		for _, r := range runs {
			for p := range b.Slot {
				if at := s.Map.Place(p); int(at.Bank) == r.bank && int(at.Row) >= r.from && int(at.Row) < r.to {
					b.Slot[p] = before + at.Row - int32(r.from)
				}
			}
			before += int32(r.to - r.from)
		}
		out = append(out, b)
	}
	return out
}

// skip tells a GGUF file's mapping which experts of a layer nobody reads.
func (l *loader) skip(s *LayerSpec, dim int, name func(string) string) {
	for b := range max(1, len(s.Banks)) {
		for _, st := range s.stacks(dim, b, name) {
			at := 0
			for _, r := range append(s.runs(false), run{b, st.experts, st.experts}) {
				if r.bank != b {
					continue
				}
				for _, sp := range st.spans(at, r.from) {
					raw, _ := l.bytes(sp, st.cols)
					l.c.Skip(raw)
				}
				at = r.to
			}
		}
	}
}

// joined is runs of experts of a stack, joined in order; where formats differ, in F32.
func (l *loader) joined(s stack, runs []run) tensor.Mat {
	var spans []span
	for _, r := range runs {
		spans = append(spans, s.spans(r.from, r.to)...)
	}
	var all []byte
	var first *quant.Format
	for i, sp := range spans {
		one := l.part(sp, s.cols)
		if l.err != nil || len(spans) == 1 {
			return one
		}
		if i == 0 {
			first = one.Format
		}
		if one.Format != first {
			if first != quant.F32 {
				before := widened(tensor.HostMat(s.name, first, i*s.rows, s.cols, all))
				first, all = quant.F32, before.Raw()
			}
			one = widened(one)
		}
		all = append(all, one.Raw()...)
		l.c.Release(one.Raw())
	}
	return tensor.HostMat(s.name, first, len(spans)*s.rows, s.cols, all)
}

// Left is the share that Load reads of a checkpoint's tensors of experts, by name. Other tensors, which it reads whole, are not listed.
func (s *Spec) Left(c *store.Checkpoint) (map[string]float64, error) {
	arch, err := find(c)
	if err != nil {
		return nil, inFile(c, err)
	}
	out := map[string]float64{}
	for i := range s.Layers {
		l := &s.Layers[i]
		if l.Router == nil {
			continue
		}
		name := func(part string) string { return fmt.Sprintf("blk.%d.%s", i, part) }
		for b := range max(1, len(l.Banks)) {
			for _, st := range l.stacks(s.Dim, b, name) {
				read := make([]bool, st.experts)
				count := 0
				for p := range l.Map.Physical() {
					if at := l.Map.Place(p); int(at.Bank) == b {
						read[at.Row] = true
						count++
					}
				}
				if !st.separate {
					out[st.name] = float64(count) / float64(st.experts)
					continue
				}
				for e, is := range read {
					if !is {
						out[arch.fileName(c.Kind, fmt.Sprintf("%s.%d", st.name, e))] = 0
					}
				}
			}
		}
	}
	return out, nil
}
