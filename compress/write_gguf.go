package compress

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// Layout: what a GGUF file that was made smaller says beyond the usual, ARCH being its architecture:
//
//	ARCH.expert_count         router rows of the largest layer
//	ARCH.expert_used_count    experts a token; a layer that has fewer takes all of them
//	winnow.moe.expert_counts  I32 by layer: router rows, padding included; 0 in dense layers
//	winnow.moe.expert_ids.N   I32 by router row of layer N: its number in the model that was first made smaller; -1 = padding
//	winnow.moe.method         what chose the experts
//	blk.N.ffn_exps_map        I32 [2, rows]: bank and row in it of each router row's weights; -1 -1 = nowhere
//
// Only layers in which rows share experts, or that have several banks, hold a map. Their bank B is blk.N.ffn_{gate,up,down}_exps.qB.weight, and
// biases likewise; elsewhere there is no .qB. Padding has exp_probs_b of -1e30.
const (
	keyCounts = "winnow.moe.expert_counts"
	keyIDs    = "winnow.moe.expert_ids." // and the layer
	keyMethod = "winnow.moe.method"

	padding = -1e30 // of the bias for the choice
)

var (
	blockTensors = regexp.MustCompile(`^blk\.(\d{1,4})\.(.+)$`)
	stackTensors = regexp.MustCompile(`^ffn_(?:gate|up|down|gate_up)_exps(\.q[0-3])?\.(?:weight|bias|scale)$`)
	splitTensors = regexp.MustCompile(`^(ffn_(?:gate|up|down)\.)(\d{1,4})(\.(?:weight|bias))$`)
	otherExperts = regexp.MustCompile(`exps|exp_|tid2eid|gate_tree|gate_shortlist|gate_digit|gate_inp\.`) // of a layer, and not known what to do with
)

const (
	routerWeight = "ffn_gate_inp.weight"
	expertsMap   = "ffn_exps_map"
)

// byRow are the tensors that have a value or a row a router row, and what those of padding hold.
var byRow = map[string]float32{routerWeight: 0, "ffn_gate_inp.bias": 0, "exp_probs_b.bias": padding, "exp_probs_b": padding, "exp_probs_b.weight": padding}

// asIs are tensors of a layer of experts that no expert is in.
func asIs(rest string) bool {
	return !otherExperts.MatchString(rest) || strings.HasPrefix(rest, "ffn_norm_exps.") || rest == "ffn_gate_inp.scale"
}

func applyGGUF(ctx context.Context, c *store.Checkpoint, o *moe.Overlay, w *Writing) error {
	f := &ggufFile{c: c, split: map[int]bool{}}
	layers, err := f.layers()
	if err != nil {
		return err
	}
	if f.all, err = sliced(layers, o, w.Merging); err != nil {
		return err
	}
	f.sharing = shared
	if w.For == Anyone {
		f.sharing = separate
		if err := f.interoperable(); err != nil {
			return err
		}
	}
	g := store.NewGGUF{Meta: withoutSplit(c.Meta), Keys: c.Keys}
	f.keys(&g, o.Method)
	for _, part := range c.Parts {
		for _, name := range part.Names {
			t, err := c.Tensor(name)
			if err != nil {
				return err
			}
			more, err := f.tensor(t)
			if err != nil {
				return err
			}
			g.Tensors = append(g.Tensors, more...)
		}
	}
	return store.WriteGGUF(ctx, w.Out, g, w.See)
}

// withoutSplit is a model's keys less those that say which file of several it is.
func withoutSplit(meta store.Meta) store.Meta {
	out := maps.Clone(meta)
	for _, key := range []string{"split.no", "split.count", "split.tensors.count"} {
		delete(out, key)
	}
	return out
}

// ggufFile is a file that is made smaller.
type ggufFile struct {
	c       *store.Checkpoint
	arch    string       // with its dot
	split   map[int]bool // layers that have a tensor an expert, as early files do
	all     map[int]*slicing
	sharing sharing
}

// layers finds the layers of experts. The tensors say which they are, and how many experts they have.
func (f *ggufFile) layers() (map[int]*expertLayer, error) {
	arch, err := f.c.Meta.String("general.architecture", "")
	if err != nil {
		return nil, err
	}
	f.arch = arch + "."
	out := map[int]*expertLayer{}
	for _, name := range f.c.Names() {
		m := blockTensors.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		layer, err := strconv.Atoi(m[1])
		if err != nil || layer >= layerLimit || m[1] != strconv.Itoa(layer) {
			return nil, unfit(f.c, name, "layer %s, at most %d are cut", m[1], layerLimit)
		}
		f.split[layer] = f.split[layer] || splitTensors.MatchString(m[2])
		if m[2] == routerWeight {
			if out[layer], err = f.layer(layer, name); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// layer reads what a file says of a layer of experts; router is the name of its weights.
func (f *ggufFile) layer(layer int, router string) (*expertLayer, error) {
	t, err := f.c.Tensor(router)
	if err != nil {
		return nil, err
	}
	if len(t.Shape) != 2 || t.Shape[0] < 1 || t.Shape[0] > moe.MostExperts {
		return nil, unfit(f.c, router, "%v, at most %d experts are cut", t.Shape, moe.MostExperts)
	}
	n := t.Shape[0]
	e := &expertLayer{}
	number := func(key string, to *int) {
		v, kerr := f.c.Meta.Int(f.arch+key, 0)
		if *to = int(v); err == nil {
			err = kerr
		}
		if err == nil && (v < 0 || v > moe.MostExperts) {
			err = fmt.Errorf("key %q is %d: %w", f.arch+key, v, store.ErrFormat)
		}
	}
	number("expert_used_count", &e.k)
	number("expert_group_count", &e.groups)
	number("expert_group_used_count", &e.kept)
	if err != nil {
		return nil, err
	}
	if e.k = min(e.k, n); e.k < 1 || e.groups > 1 && n%e.groups != 0 {
		return nil, unfit(f.c, router, "%d experts a token, of %d in %d groups", e.k, n, e.groups)
	}
	if e.orig, err = f.list(fmt.Sprint(keyIDs, layer)); err != nil {
		return nil, err
	}
	if e.orig == nil {
		e.orig = moe.EveryExpert(n).Orig
	}
	if len(e.orig) != n {
		return nil, unfit(f.c, router, "%d experts, and numbers of %d under %s%d", n, len(e.orig), keyIDs, layer)
	}
	e.place, err = f.places(layer, n)
	return e, err
}

// list is a key that holds integers of 32 bits; nil where it is not there.
func (f *ggufFile) list(key string) (out []int32, err error) {
	all, err := f.c.Meta.Ints(key)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v != int64(int32(v)) {
			return nil, fmt.Errorf("key %q holds %d: %w", key, v, store.ErrFormat)
		}
		out = append(out, int32(v))
	}
	return out, nil
}

// places reads where the weights of each of n router rows are.
func (f *ggufFile) places(layer, n int) ([]place, error) {
	out, name := make([]place, n), fmt.Sprintf("blk.%d.%s", layer, expertsMap)
	for row := range out {
		out[row].row = int32(row)
	}
	if !f.c.Has(name) {
		return out, nil
	}
	t, err := f.c.Tensor(name)
	if err != nil {
		return nil, err
	}
	if f.split[layer] || t.Format != quant.I32 || !slices.Equal(t.Shape, []int{n, 2}) {
		return nil, unfit(f.c, name, "%s %v, want %s of bank and row of %d experts, in stacks", t.Format, t.Shape, quant.I32, n)
	}
	for i := range out {
		at := func(j int) int32 { return int32(binary.LittleEndian.Uint32(t.Data[8*i+4*j:])) }
		out[i] = place{at(0), at(1)}
		if out[i].bank < -1 || out[i].bank >= bankLimit || out[i].bank >= 0 && out[i].row < 0 {
			return nil, unfit(f.c, name, "expert %d is row %d of bank %d", i, out[i].row, out[i].bank)
		}
	}
	return out, nil
}

// interoperable makes a file of it that programs can run which know none of our keys and tensors.
func (f *ggufFile) interoperable() error {
	has := func(layer int, rest string) bool { return f.c.Has(fmt.Sprintf("blk.%d.%s", layer, rest)) }
	for layer, s := range f.all {
		s.changed = s.changed || has(layer, expertsMap)
	}
	err := interoperable(f.all, func(layer int) bool {
		return !f.split[layer] && (has(layer, "exp_probs_b.bias") || has(layer, "exp_probs_b") || has(layer, "exp_probs_b.weight"))
	})
	if err != nil {
		return err
	}
	for _, layer := range layersOf(f.all) {
		if !f.all[layer].stored(separate).plain() {
			return fmt.Errorf("%w: layer %d stores its experts in several formats", ErrInterop, layer)
		}
	}
	return nil
}

// keys says of the new file how many experts it has. One that nothing was taken from says what it said.
func (f *ggufFile) keys(g *store.NewGGUF, method string) {
	blocks, err := f.c.Meta.Int(f.arch+"block_count", 0)
	if err != nil || blocks < 0 || blocks > layerLimit {
		blocks = 0
	}
	c := count(f.all, int(blocks))
	if !c.changed {
		return
	}
	g.Keys = slices.Clone(g.Keys)
	set := func(key string, v any) {
		g.Meta[key] = v
		g.Keys = append(g.Keys, key) // where it is listed already, that counts
	}
	set(f.arch+"expert_count", uint32(c.most))
	set(f.arch+"expert_used_count", uint32(c.used))
	set(keyCounts, c.counts)
	for _, layer := range layersOf(f.all) {
		if s := f.all[layer]; s.changed {
			ids := make([]int32, len(s.rows))
			for i, r := range s.rows {
				ids[i] = r.orig
			}
			set(fmt.Sprint(keyIDs, layer), ids)
		}
	}
	if method != "" {
		set(keyMethod, method)
	}
}

// tensor is what becomes of a tensor: itself, less rows, or several.
func (f *ggufFile) tensor(t store.Tensor) ([]store.NewTensor, error) {
	x := cutter{f.c}
	m := blockTensors.FindStringSubmatch(t.Name)
	if m == nil {
		return []store.NewTensor{x.copied(t)}, nil
	}
	layer, err := strconv.Atoi(m[1])
	if err != nil {
		panic("winnow: bug: compress: four digits are no number")
	}
	s, rest := f.all[layer], m[2]
	if s == nil || !s.changed {
		return []store.NewTensor{x.copied(t)}, nil
	}
	if fill, ok := byRow[rest]; ok {
		return f.router(layer, t, fill)
	}
	if split := splitTensors.FindStringSubmatch(rest); split != nil {
		return f.single(s, t, split)
	}
	switch stack := stackTensors.FindStringSubmatch(rest); {
	case rest == expertsMap:
		return nil, nil // written anew behind the router
	case stack != nil:
		bank, _ := strconv.Atoi(strings.TrimPrefix(stack[1], ".q")) // none = 0
		if whole := len(t.Shape) > 0 && t.Shape[0] == len(s.place); !whole && !f.c.Has(fmt.Sprintf("blk.%d.%s", layer, expertsMap)) {
			return nil, unfit(f.c, t.Name, "%v for %d experts", t.Shape, len(s.place))
		}
		st := s.stored(f.sharing)
		out, err := x.rows(t, bankRows(st.banks[int32(bank)]), 0)
		if err != nil || out.Shape[0] == 0 {
			return nil, err
		}
		to := ""
		if !st.plain() {
			to = fmt.Sprintf(".q%d", bank)
		}
		out.Name = strings.Replace(t.Name, "_exps"+stack[1]+".", "_exps"+to+".", 1)
		return []store.NewTensor{out}, nil
	case !asIs(rest):
		return nil, unfit(f.c, t.Name, "it is not known how experts are taken out of it")
	}
	return []store.NewTensor{x.copied(t)}, nil
}

// bankRows lists the rows of one bank that each new row is the mean of.
func bankRows(rows [][]place) [][]int {
	out := make([][]int, len(rows))
	for i, from := range rows {
		for _, p := range from {
			out[i] = append(out[i], int(p.row))
		}
	}
	return out
}

// router takes rows out of what the router has a row of an expert; behind its weights stands the map, where one is needed.
func (f *ggufFile) router(layer int, t store.Tensor, fill float32) ([]store.NewTensor, error) {
	s := f.all[layer]
	if len(t.Shape) == 0 || t.Shape[0] != len(s.place) {
		return nil, unfit(f.c, t.Name, "%v for %d experts", t.Shape, len(s.place))
	}
	if fill != 0 && !averages(t.Format) {
		return nil, unfit(f.c, t.Name, "%s cannot be written", t.Format)
	}
	from := make([][]int, len(s.rows))
	for i, r := range s.rows {
		from[i] = r.of
	}
	out, err := cutter{f.c}.rows(t, from, fill)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("blk.%d.", layer)
	st := s.stored(f.sharing)
	if t.Name != name+routerWeight || f.split[layer] || st.plain() {
		return []store.NewTensor{out}, nil
	}
	var raw []byte
	for _, p := range st.at {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(p.bank))
		raw = binary.LittleEndian.AppendUint32(raw, uint32(p.row))
	}
	return []store.NewTensor{out, {Name: name + expertsMap, Format: quant.I32, Shape: []int{len(st.at), 2}, Pieces: one(raw)}}, nil
}

// single renumbers a tensor that is one expert's: it becomes that of each new row which has its weights, or the mean of which it is the first.
func (f *ggufFile) single(s *slicing, t store.Tensor, split []string) (out []store.NewTensor, err error) {
	expert, err := strconv.Atoi(split[2])
	if err != nil {
		panic("winnow: bug: compress: four digits are no number")
	}
	block := strings.TrimSuffix(t.Name, split[0])
	named := func(e int) string { return block + split[1] + strconv.Itoa(e) + split[3] }
	return cutter{f.c}.singles(s, t, named, expert)
}
