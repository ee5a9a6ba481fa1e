package compress

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/winnow-llm/winnow/moe"
)

// expertLayer is a layer of experts as a file has it.
type expertLayer struct {
	place  []place // by router row: where its weights are
	orig   []int32 // by router row: its number in the model that was first made smaller
	k      int     // experts a token
	groups int     // of neighbouring rows; 0 or 1 = none
	kept   int     // groups that are chosen from
}

// place is where an expert's weights are: a row of a bank. GGUF files of stock programs have bank 0 only. Bank -1 is that of a pruned row.
type place struct{ bank, row int32 }

// slicing is what is to be left of a layer.
type slicing struct {
	*expertLayer
	rows    []newRow
	k       int
	changed bool
}

// newRow is a router row of the new file.
type newRow struct {
	of      []int   // the router rows that it is the mean of, mostly one; none = padding, which is never chosen
	weights []place // the experts that its weights are the mean of
	orig    int32   // -1 = padding
}

func refused(layer int, format string, args ...any) error {
	return fmt.Errorf("%w: layer %d: %s", moe.ErrOverlay, layer, fmt.Sprintf(format, args...))
}

// sliced applies an overlay to the layers of a model, those that it does not list included.
func sliced(all map[int]*expertLayer, o *moe.Overlay, merging Merging) (map[int]*slicing, error) {
	for layer := range o.Layers {
		if all[layer] == nil {
			return nil, refused(layer, "has no experts")
		}
	}
	out := map[int]*slicing{}
	for layer, e := range all {
		s, err := e.slice(layer, o.Layers[layer], merging)
		if err != nil {
			return nil, err
		}
		out[layer] = s
	}
	used := 0
	for _, s := range out {
		used = max(used, s.k)
	}
	for _, layer := range layersOf(out) {
		if s := out[layer]; s.k != min(used, s.live()) {
			return nil, refused(layer, "topk: %d experts a token, in another layer %d: a model's file says one number", s.k, used)
		}
	}
	return out, nil
}

// live is how many router rows can be chosen.
func (s *slicing) live() (n int) {
	for _, r := range s.rows {
		if len(r.weights) > 0 && r.weights[0].bank >= 0 {
			n++
		}
	}
	return n
}

// slice applies the part of an overlay that is a layer's.
func (e *expertLayer) slice(layer int, o moe.OverlayLayer, merging Merging) (*slicing, error) {
	first, err := e.fates(layer, o)
	if err != nil {
		return nil, err
	}
	s := &slicing{expertLayer: e, changed: len(o.Drop)+len(o.Merge) > 0 || o.TopK > 0 && o.TopK != e.k}
	for row, f := range first {
		switch {
		case f == dropped:
		case merging != Average:
			s.rows = append(s.rows, newRow{[]int{row}, []place{e.place[f]}, e.orig[row]})
		case f == row:
			r := e.mean(row, o.Merge)
			if slices.ContainsFunc(r.weights, func(p place) bool { return p.bank != r.weights[0].bank }) {
				return nil, refused(layer, "merge: %d are in several banks, and have no mean in one", r.of)
			}
			s.rows = append(s.rows, r)
		}
	}
	if s.k = min(e.k, len(s.rows)); o.TopK > 0 {
		s.k = o.TopK
	}
	if s.k < 1 || s.k > len(s.rows) || s.k > moe.MostActive {
		return nil, refused(layer, "%d experts a token of %d that are left", max(s.k, o.TopK), len(s.rows))
	}
	if !s.changed {
		s.rows = e.every()
		return s, nil
	}
	return s, s.grouped(layer, o, merging)
}

// every is each router row as it is, pruned ones too.
func (e *expertLayer) every() (out []newRow) {
	for row, p := range e.place {
		out = append(out, newRow{[]int{row}, []place{p}, e.orig[row]})
	}
	return out
}

const dropped = -1

// fates says of each router row whose weights it gets: its own, or those of the first row that it is merged with; or that it is dropped.
// Merging takes along the rows that share an expert's weights already.
func (e *expertLayer) fates(layer int, o moe.OverlayLayer) ([]int, error) {
	first, named := make([]int, len(e.place)), make([]bool, len(e.place))
	for row := range first {
		first[row] = row
	}
	name := func(field string, row int) error {
		switch {
		case row < 0 || row >= len(first):
			return refused(layer, "%s: expert %d of %d", field, row, len(first))
		case named[row]:
			return refused(layer, "%s: expert %d is named twice", field, row)
		case e.place[row].bank < 0:
			return refused(layer, "%s: expert %d is not there", field, row)
		}
		named[row] = true
		return nil
	}
	for _, rows := range o.Merge {
		if len(rows) < 2 {
			return nil, refused(layer, "merge: %d with nothing", rows)
		}
		for _, row := range rows {
			if err := name("merge", row); err != nil {
				return nil, err
			}
			for other, p := range e.place {
				if p == e.place[row] {
					first[other] = rows[0]
				}
			}
		}
	}
	for _, row := range o.Drop {
		if err := name("drop", row); err != nil {
			return nil, err
		}
		first[row] = dropped
	}
	for row, p := range e.place {
		if p.bank < 0 {
			first[row] = dropped
		}
	}
	return first, nil
}

// mean is the one row that a cluster becomes whose first is row; one that is in no cluster stays as it is.
func (e *expertLayer) mean(row int, clusters [][]int) newRow {
	i := slices.IndexFunc(clusters, func(c []int) bool { return c[0] == row })
	out := newRow{of: []int{row}, orig: e.orig[row]}
	if i >= 0 {
		out.of = clusters[i]
	}
	for _, r := range out.of {
		out.weights = append(out.weights, e.place[r])
	}
	return out
}

// group is that of a router row.
func (e *expertLayer) group(row int) int { return row / (len(e.place) / max(1, e.groups)) }

// grouped checks that the groups of neighbouring rows are still what they were: a file says only how many there are.
func (s *slicing) grouped(layer int, o moe.OverlayLayer, merging Merging) error {
	if s.groups <= 1 {
		return nil
	}
	live := make([]int, s.groups)
	for _, r := range s.rows {
		live[s.group(r.of[0])]++
	}
	if slices.Min(live) != slices.Max(live) {
		return refused(layer, "drop: groups are left with %d experts, a file needs as many in each", live)
	}
	if s.k > s.kept*live[0] {
		return refused(layer, "%d experts a token out of %d groups of %d", s.k, s.kept, live[0])
	}
	for _, rows := range o.Merge {
		other := func(row int) bool { return s.group(row) != s.group(rows[0]) }
		if merging == Average && slices.ContainsFunc(rows, other) {
			return refused(layer, "merge: %d are of several groups, and have no mean in one", rows)
		}
	}
	return nil
}

// pad gives the layer so many router rows, the new ones at the ends of groups.
func (s *slicing) pad(rows int) {
	groups := max(1, s.groups)
	have, want := len(s.rows)/groups, rows/groups
	if have == want {
		return
	}
	var out []newRow
	for group := range slices.Chunk(s.rows, have) {
		out = append(append(out, group...), slices.Repeat([]newRow{{orig: -1}}, want-have)...)
	}
	s.rows, s.changed = out, true
}

// layersOf lists the layers in order.
func layersOf[T any](all map[int]T) []int { return slices.Sorted(maps.Keys(all)) }

// census is what a file says of its experts.
type census struct {
	most    int     // router rows of the largest layer
	used    int     // experts a token of the layer that takes most
	counts  []int32 // router rows by layer, 0 in dense ones
	equal   bool    // layers of experts have equally many rows
	uniform bool    // ... and take equally many
	changed bool
}

// count counts the experts of a model of so many layers.
func count(all map[int]*slicing, layers int) (c census) {
	least, fewest := 0, 0
	for i, layer := range layersOf(all) {
		s := all[layer]
		c.most, c.used, c.changed = max(c.most, len(s.rows)), max(c.used, s.k), c.changed || s.changed
		if i == 0 {
			least, fewest = len(s.rows), s.k
		}
		least, fewest = min(least, len(s.rows)), min(fewest, s.k)
		layers = max(layers, layer+1)
	}
	c.equal, c.uniform = least == c.most, least == c.most && fewest == c.used
	c.counts = make([]int32, layers)
	for layer, s := range all {
		c.counts[layer] = int32(len(s.rows))
	}
	return c
}

// interoperable makes all layers equally large, by rows that are never chosen where the router has a bias for the choice.
func interoperable(all map[int]*slicing, biased func(layer int) bool) error {
	c := count(all, 0)
	if c.uniform {
		return nil
	}
	for _, layer := range layersOf(all) {
		s := all[layer]
		switch {
		case s.k != c.used:
			return fmt.Errorf("%w: layer %d takes %d experts a token, another %d", ErrInterop, layer, s.k, c.used)
		case len(s.rows) == c.most:
		case !biased(layer):
			return fmt.Errorf("%w: layer %d has %d experts, another %d, and no bias by which rows could be filled up", ErrInterop, layer, len(s.rows), c.most)
		case c.most%max(1, s.groups) != 0 || s.groups > 1 && len(s.rows)/s.groups < 2:
			return fmt.Errorf("%w: layer %d has %d experts in %d groups, which cannot be filled up", ErrInterop, layer, len(s.rows), s.groups)
		}
		s.pad(c.most)
	}
	return nil
}

// storage numbers the weights that the new file stores: each expert once, or once a row where rows cannot share.
type storage struct {
	banks map[int32][][]place // by bank and new row of it: the experts that it is the mean of; none = padding
	at    []place             // by new router row
}

// stored decides it for a layer.
func (s *slicing) stored(sharing sharing) storage {
	out, seen := storage{banks: map[int32][][]place{}}, map[string]place{}
	for _, r := range s.rows {
		bank := int32(0)
		if len(r.weights) > 0 {
			bank = r.weights[0].bank
		}
		key := fmt.Sprint(r.weights)
		at, known := seen[key]
		if !known || sharing == separate {
			at = place{bank, int32(len(out.banks[bank]))}
			seen[key] = at
			out.banks[bank] = append(out.banks[bank], r.weights)
		}
		out.at = append(out.at, at)
	}
	return out
}

// sharing says whether rows may lead to one expert.
type sharing int

const (
	separate sharing = iota
	shared
)

// plain says whether row i leads to row i of bank 0, so that the file needs no map.
func (st storage) plain() bool {
	return !slices.ContainsFunc(st.at, func(p place) bool { return p.bank != 0 }) &&
		slices.IsSortedFunc(st.at, func(a, b place) int { return cmp.Compare(a.row, b.row) }) &&
		int(st.at[len(st.at)-1].row) == len(st.at)-1
}
