package moe

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/winnow-llm/winnow/quant"
)

// ErrOverlay is wrapped by every refusal of an overlay; the wrapping names layer and field.
var ErrOverlay = errors.New("moe: overlay")

// Overlay changes which experts of a model exist and how they are stored, without rewriting the model. A plan of experts, an overlay that is
// applied at load and a policy of bits are this one form. Layers that it does not list stay as they are.
//
// Layout: JSON, {"format":1,"model":"sha256 of the tensor table","method":"reap","keep":0.75,
// "layers":{"3":{"drop":[4,17],"merge":[[8,61]],"topk":8}},"bits":{"3":{"default":"Q4_K","over":{"12":"Q6_K"}}}}.
type Overlay struct {
	Format      int                  `json:"format"`                // 1
	Model       string               `json:"model,omitempty"`       // 64 hex: whose names, shapes and formats of tensors it was made for; "" = any
	Method      string               `json:"method,omitempty"`      // what made it: "stun", "reap"
	Keep        float64              `json:"keep,omitempty"`        // share of experts that it was to keep; 0 = not said
	Calibration *Calibration         `json:"calibration,omitempty"` // nil = none was needed
	Layers      map[int]OverlayLayer `json:"layers,omitempty"`      // by layer
	Bits        map[int]OverlayBits  `json:"bits,omitempty"`        // by layer
	Tensors     map[string]string    `json:"tensors,omitempty"`     // formats of tensors that are not experts', by name; others stay as they are
}

// Calibration is what a plan has seen.
type Calibration struct {
	Tokens int64  `json:"tokens"`
	SHA256 string `json:"sha256"` // of the text
}

// OverlayLayer changes the experts of a layer.
type OverlayLayer struct {
	Drop  []int   `json:"drop,omitempty"`  // router rows that are never chosen
	Merge [][]int `json:"merge,omitempty"` // router rows that share the weights of the first of them
	TopK  int     `json:"topk,omitempty"`  // experts a token; 0 = as the model says
}

// OverlayBits says in which formats a layer's experts are stored.
type OverlayBits struct {
	Default string         `json:"default"` // name of a quant.Format
	Over    map[int]string `json:"over,omitempty"`
}

// Limits of an overlay, above what any published model needs.
const (
	MostOverlayBytes = 32 << 20 // of its file
	mostLayers       = 1024
	mostMethod       = 256 // bytes of a method's name
)

// ParseOverlay reads an overlay from a file's bytes and checks what can be checked without the model: fields that it does not know, numbers
// out of any range, ids that stand twice. All errors wrap ErrOverlay and name layer and field.
func ParseOverlay(raw []byte) (*Overlay, error) {
	if len(raw) > MostOverlayBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrOverlay, len(raw), MostOverlayBytes)
	}
	type plain Overlay
	var file struct { // layers by themselves, so that an error can say which
		*plain
		Layers map[string]json.RawMessage `json:"layers"`
		Bits   map[string]json.RawMessage `json:"bits"`
	}
	var o Overlay
	file.plain = (*plain)(&o)
	if err := strict(raw, &file); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOverlay, err)
	}
	var err error
	if o.Layers, err = parseLayers[OverlayLayer]("layers", file.Layers); err != nil {
		return nil, err
	}
	if o.Bits, err = parseLayers[OverlayBits]("bits", file.Bits); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return &o, nil
}

// strict reads one JSON value and nothing after it, and refuses fields that dst does not have.
func strict(raw []byte, dst any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows the end of the object")
	}
	return nil
}

func parseLayers[T any](field string, raw map[string]json.RawMessage) (map[int]T, error) {
	if raw == nil {
		return nil, nil
	}
	out := map[int]T{}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		var layer int
		if err := json.Unmarshal([]byte(key), &layer); err != nil || layer < 0 || layer >= mostLayers {
			return nil, fmt.Errorf("%w: %s: %.40q is no layer, want 0 to %d", ErrOverlay, field, key, mostLayers-1)
		}
		var one T
		if err := strict(raw[key], &one); err != nil {
			return nil, fmt.Errorf("%w: layer %d: %s: %w", ErrOverlay, layer, field, err)
		}
		out[layer] = one
	}
	return out, nil
}

// refused is an error about a field of a layer.
func refused(layer int, field, format string, args ...any) error {
	return fmt.Errorf("%w: layer %d: %s: %s", ErrOverlay, layer, field, fmt.Sprintf(format, args...))
}

// check refuses what fits no model.
func (o *Overlay) check() error {
	switch {
	case o.Format != 1:
		return fmt.Errorf("%w: format is %d, want 1", ErrOverlay, o.Format)
	case o.Model != "" && !isSHA256(o.Model):
		return fmt.Errorf("%w: model is %.80q, want 64 hex digits", ErrOverlay, o.Model)
	case len(o.Method) > mostMethod:
		return fmt.Errorf("%w: method has %d bytes, at most %d are allowed", ErrOverlay, len(o.Method), mostMethod)
	case !(o.Keep >= 0 && o.Keep <= 1):
		return fmt.Errorf("%w: keep is %v, want 0 to 1", ErrOverlay, o.Keep)
	case o.Calibration != nil && (o.Calibration.Tokens < 0 || o.Calibration.SHA256 != "" && !isSHA256(o.Calibration.SHA256)):
		return fmt.Errorf("%w: calibration of %d tokens of a text %.80q", ErrOverlay, o.Calibration.Tokens, o.Calibration.SHA256)
	}
	for _, layer := range slices.Sorted(maps.Keys(o.Layers)) {
		if err := o.Layers[layer].check(layer, MostExperts); err != nil {
			return err
		}
	}
	for _, layer := range slices.Sorted(maps.Keys(o.Bits)) {
		if err := o.Bits[layer].check(layer, MostExperts); err != nil {
			return err
		}
	}
	return nil
}

func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

// check refuses what no layer of so many experts can mean.
func (l OverlayLayer) check(layer, experts int) error {
	dropped, merged := make([]bool, experts), make([]bool, experts)
	for _, id := range l.Drop {
		switch {
		case id < 0 || id >= experts:
			return refused(layer, "drop", "expert %d, want 0 to %d", id, experts-1)
		case dropped[id]:
			return refused(layer, "drop", "expert %d stands twice", id)
		}
		dropped[id] = true
	}
	for _, group := range l.Merge {
		if len(group) < 2 {
			return refused(layer, "merge", "a group of %d experts, want 2 or more", len(group))
		}
		for _, id := range group {
			switch {
			case id < 0 || id >= experts:
				return refused(layer, "merge", "expert %d, want 0 to %d", id, experts-1)
			case dropped[id]:
				return refused(layer, "merge", "expert %d is dropped", id)
			case merged[id]:
				return refused(layer, "merge", "expert %d stands twice", id)
			}
			merged[id] = true
		}
	}
	if l.TopK < 0 || l.TopK > MostActive {
		return refused(layer, "topk", "%d experts a token, want 1 to %d", l.TopK, MostActive)
	}
	return nil
}

func (b OverlayBits) check(layer, experts int) error {
	if b.Default != "" && quant.ByName(b.Default) == nil {
		return refused(layer, "bits", "format %.40q is not known", b.Default)
	}
	for _, id := range slices.Sorted(maps.Keys(b.Over)) {
		if id < 0 || id >= experts {
			return refused(layer, "bits", "expert %d, want 0 to %d", id, experts-1)
		}
		if quant.ByName(b.Over[id]) == nil {
			return refused(layer, "bits", "format %.40q of expert %d is not known", b.Over[id], id)
		}
	}
	return nil
}

// Check says what is wrong with the overlay for a layer: its router, and the map of its experts as the checkpoint has them. Layers that are
// not listed are never wrong.
func (o *Overlay) Check(layer int, s RouterSpec, m ExpertMap) error {
	if b, ok := o.Bits[layer]; ok {
		if err := b.check(layer, s.Experts); err != nil {
			return err
		}
	}
	l, ok := o.Layers[layer]
	if !ok {
		return nil
	}
	if err := l.check(layer, s.Experts); err != nil {
		return err
	}
	for _, group := range l.Merge {
		for _, id := range group {
			if m.Phys[id] < 0 {
				return refused(layer, "merge", "expert %d is not in the checkpoint", id)
			}
		}
	}
	out, k := o.Apply(m, layer, s.K)
	if k < 1 {
		return refused(layer, "drop", "no expert is left")
	}
	if s.K = k; s.Groups > 1 && out.leastInGroup(s.Groups)*s.GroupsKept < k {
		return refused(layer, "drop", "leaves a group with %d experts, of which %d groups are kept for %d experts a token",
			out.leastInGroup(s.Groups), s.GroupsKept, k)
	}
	return nil
}

// Apply gives a layer's map under an overlay that Check has passed, and how many experts a token then gets of k: never more than are left.
// Physical experts stay in the order of the checkpoint.
func (o *Overlay) Apply(m ExpertMap, layer, k int) (ExpertMap, int) {
	l, ok := o.Layers[layer]
	if !ok {
		return m, k
	}
	if l.TopK > 0 {
		k = l.TopK
	}
	phys := slices.Clone(m.Phys)
	for _, group := range l.Merge { // with all that share its weights already
		for _, id := range group[1:] {
			for row, old := 0, phys[id]; row < len(phys); row++ {
				if phys[row] == old {
					phys[row] = phys[group[0]]
				}
			}
		}
	}
	for _, id := range l.Drop {
		phys[id] = -1
	}
	out := ExpertMap{Orig: m.Orig, Phys: phys, At: m.At}.dense()
	return out, min(k, out.Live())
}

// Compose is the overlay that does what o does and then what next does. Experts that either drops are dropped, and groups that share an
// expert become one, with the weights of next's first. A number of experts a token, a policy of bits and a calibration that next has replace
// o's. It fails where both are of different models, or next drops an expert whose weights o has given to others.
func (o *Overlay) Compose(next *Overlay) (*Overlay, error) {
	if o.Model != "" && next.Model != "" && o.Model != next.Model {
		return nil, fmt.Errorf("%w: model: one is for %.12s, the other for %.12s", ErrOverlay, o.Model, next.Model)
	}
	out := Overlay{
		Format: 1, Model: cmp.Or(next.Model, o.Model), Method: o.Method, Keep: o.Keep * next.Keep,
		Calibration: cmp.Or(next.Calibration, o.Calibration), Layers: maps.Clone(o.Layers), Bits: maps.Clone(o.Bits),
	}
	if out.Keep == 0 {
		out.Keep = cmp.Or(next.Keep, o.Keep)
	}
	if out.Method == "" {
		out.Method = next.Method
	} else if next.Method != "" && next.Method != o.Method {
		out.Method += "+" + next.Method
	}
	for layer, l := range next.Layers {
		joined, err := o.Layers[layer].compose(l, layer)
		if err != nil {
			return nil, err
		}
		if out.Layers == nil {
			out.Layers = map[int]OverlayLayer{}
		}
		out.Layers[layer] = joined
	}
	for layer, b := range next.Bits {
		if out.Bits == nil {
			out.Bits = map[int]OverlayBits{}
		}
		over := maps.Clone(o.Bits[layer].Over)
		if b.Default != "" || over == nil {
			over = b.Over
		} else {
			maps.Copy(over, b.Over)
		}
		out.Bits[layer] = OverlayBits{Default: cmp.Or(b.Default, o.Bits[layer].Default), Over: over}
	}
	return &out, out.check()
}

// compose joins the changes of one layer.
func (l OverlayLayer) compose(next OverlayLayer, layer int) (OverlayLayer, error) {
	out := OverlayLayer{Drop: slices.Concat(l.Drop, next.Drop), TopK: cmp.Or(next.TopK, l.TopK)}
	slices.Sort(out.Drop)
	out.Drop = slices.Compact(out.Drop)
	groups := slices.Clone(l.Merge)
	for _, group := range next.Merge {
		var joined []int
		for _, id := range group {
			with := []int{id}
			if i := slices.IndexFunc(groups, func(g []int) bool { return slices.Contains(g, id) }); i >= 0 {
				with = groups[i]
				groups = slices.Delete(slices.Clone(groups), i, i+1)
			} else if slices.Contains(joined, id) {
				continue
			}
			joined = append(joined, with...)
		}
		groups = append(groups, joined)
	}
	for _, group := range groups {
		kept := slices.DeleteFunc(slices.Clone(group), func(id int) bool { return slices.Contains(next.Drop, id) })
		if len(kept) > 0 && kept[0] != group[0] {
			return out, refused(layer, "drop", "expert %d, whose weights %v share", group[0], kept)
		}
		if len(kept) > 1 {
			out.Merge = append(out.Merge, kept)
		}
	}
	return out, nil
}

// Fingerprint tells apart overlays under which a model computes different things; "" is one that changes nothing.
func (o *Overlay) Fingerprint() string {
	if o == nil || len(o.Layers) == 0 {
		return ""
	}
	b, err := json.Marshal(o.Layers)
	if err != nil {
		panic("winnow: bug: moe: " + err.Error()) // integers in lists
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
