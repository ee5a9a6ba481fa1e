package attention

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/tensor"
)

// Selector is a way to choose keys, prepared for the layers of a model: the ops that fill its plan. Full and Window have plans of their
// own; the selectors of an Env share one, and each writes the rows of the tiles whose policy it is.
type Selector struct {
	Caps   Caps
	Plan   *Plan
	Layers []Steps // by layer; empty where every layer does the same

	// Keeps is what the key-value heads of a layer read, where the knob is turned so far, or NaN for the selector's own; nil where that does not
	// follow from positions alone.
	Keeps func(layer int, knob float32) []Keep

	Sidecars []Sidecar       // what Append keeps up to date
	every    []tensor.Op     // Select of every layer, where Layers is empty
	owned    []tensor.Buffer // sidecars and scratch
}

// Steps are a selector's ops in one layer.
type Steps struct {
	Observe []tensor.Op // when queries and keys are there and are not yet turned by their positions
	Append  []tensor.Op // when keys and values are in the cache: sidecars are brought up to date, for all rows, whoever serves them
	Select  []tensor.Op // the plan is filled
}

// At is what to do in a layer.
func (s *Selector) At(layer int) Steps {
	if len(s.Layers) == 0 {
		return Steps{Select: s.every}
	}
	return s.Layers[layer]
}

// Free gives the selector's own memory back; the plan is freed by whoever made it.
func (s *Selector) Free(d tensor.Device) {
	for _, b := range s.owned {
		d.Free(b)
	}
	s.owned = nil
}

// Caps are the fixed facts about a selector that the scheduler and the prefix cache need.
type Caps struct {
	// ChunkAlign is how many neighbouring positions of a prompt are planned together, from a multiple of it on: chunks start at one, and what
	// is cached of a prompt is shared up to one.
	ChunkAlign  int
	Tail        int    // so many tokens at a prompt's end are planned otherwise than where the prompt goes on; they are not shared
	Fingerprint string // selector and parameters: part of the key under which pages are shared, since it changes what deeper layers cache
}

// Phases are the rows that a selector can serve.
type Phases int

// The two phases: a prompt's tokens, and generated ones.
const (
	Prefill Phases = 1 << iota
	Decode
)

// Kind is a selector that can be asked for by name. Each has a file, which registers it.
type Kind struct {
	Name   string // of the file
	Phases Phases
	// Knob is the number that trades speed for recall. A request may turn it, and a profile has one for every layer.
	Knob   Knob
	Params []Knob // further numbers, fixed when the model is loaded
	Placed bool   // its selectors go by positions alone and have Keeps
	New    func(k *Kind, e *Env, s Setting) (*Selector, error)
}

// Knob is a number that can be set.
type Knob struct {
	Name              string
	Default, Min, Max float64
	Down              bool // a smaller number reads more keys
	What              string
}

// Check says what is wrong with a value.
func (k *Knob) Check(v float64) error {
	if !(v >= k.Min && v <= k.Max) {
		return fmt.Errorf("%s is %v; from %v to %v, it is %s", k.Name, v, k.Min, k.Max, k.What)
	}
	return nil
}

var kinds = map[string]*Kind{}

// register adds a kind of selector.
func register(k Kind) *Kind {
	if kinds[k.Name] != nil {
		panic("winnow: bug: attention: two selectors are called " + k.Name)
	}
	kinds[k.Name] = &k
	return &k
}

// KindOf is the kind of a name; nil where there is none.
func KindOf(name string) *Kind { return kinds[name] }

// Kinds are the names of all kinds that serve a phase, sorted.
func Kinds(p Phases) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(kinds)), func(n string) bool { return kinds[n].Phases&p == 0 })
}

// Setting is how a selector's numbers are set.
type Setting struct {
	Number int                // the selector's in the Env: Tiles.Policy of the tiles that it serves
	Knobs  []float32          // of every layer of the Env; empty = the kind's default
	Params map[string]float64 // those that are not the kind's default
	Gates  []Gate             // of every layer; of selectors that score with trained gates
	Heads  HeadPattern        // of every layer; of selectors that go by a pattern of heads
}

// Check says which number of a setting cannot be meant.
func (k *Kind) Check(s Setting) error {
	for _, v := range s.Knobs {
		if err := k.Knob.Check(float64(v)); err != nil {
			return fmt.Errorf("%s: %w", k.Name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Params)) {
		at := slices.IndexFunc(k.Params, func(p Knob) bool { return p.Name == name })
		if at < 0 {
			return fmt.Errorf("%s has no number called %q", k.Name, name)
		}
		if err := k.Params[at].Check(s.Params[name]); err != nil {
			return fmt.Errorf("%s: %w", k.Name, err)
		}
	}
	return nil
}

// knob is the kind's knob in a layer.
func (k *Kind) knob(s Setting, layer int) float32 {
	if len(s.Knobs) == 0 {
		return float32(k.Knob.Default)
	}
	return s.Knobs[layer]
}

// param is a further number of the kind, whole; float is one that need not be.
func (k *Kind) param(s Setting, name string) int { return int(math.Round(k.value(s, name))) }

func (k *Kind) float(s Setting, name string) float32 { return float32(k.value(s, name)) }

func (k *Kind) value(s Setting, name string) float64 {
	if v, ok := s.Params[name]; ok {
		return v
	}
	return k.Params[slices.IndexFunc(k.Params, func(p Knob) bool { return p.Name == name })].Default
}

// fingerprint names the kind with all its numbers.
func (k *Kind) fingerprint(s Setting) string {
	print := fmt.Sprint(k.Name, ":", k.Knob.Name, "=", k.Knob.Default)
	if len(s.Knobs) > 0 {
		print = fmt.Sprint(k.Name, ":", k.Knob.Name, "=", s.Knobs)
	}
	for _, p := range k.Params {
		print += fmt.Sprint(",", p.Name, "=", k.value(s, p.Name))
	}
	return print
}

// Gate is what a layer's trained gate has; what a kind of gate does not use is absent. Projections are F32 or BF16. All lie in the device's
// memory as in their formats, not brought there by Load, and without names.
//
// A projection has a row for each value it takes in and a column for each it gives. The rows of Query are query head after query head, which
// is key-value head after key-value head, and in each channel after channel. Those of Key are head after head, in each head first the rows
// for the largest values of the channels of a page's keys, then for the least ones, then for the means. Channels and columns are in the order in
// which the model's heads turn, see Env.Pairs.
//
// seer_decode: Query is heads*dim x width, all query heads of a key-value head being projected to one query; Key is kv heads*3*dim x width;
// both norms or none. seer: Query is absent and Key heads*3*dim x width, or Query is heads*dim x width, each head by itself, and Key
// kv heads*3*dim x width.
type Gate struct {
	Query, Key         tensor.Mat // rows x width, F32 or BF16
	QueryNorm, KeyNorm tensor.Mat // 1 x width, F32
}

// Env is what the selectors of a model's layers work with. The layers have one shape of heads.
type Env struct {
	Device  tensor.Device
	Layout  *Layout    // with Tiles
	Lane    int        // which page table
	Plan    *Plan      // shared by the selectors; its groups are the query heads
	Caches  []*Cache   // one a layer
	Q       tensor.Mat // rows x heads*dim, F32: a layer's queries, before or after they are turned, see Steps
	K       tensor.Mat // rows x kv heads*dim, F32: its keys
	Heads   int        // query heads
	Scale   float32    // of scores
	Pages   int        // of the cache
	Context int        // most tokens of a sequence
	Freq    []float32  // of RoPE: radians a position, one a pair; what a head has beyond the pairs is not turned
	Turn    float32    // of RoPE: its scale of sines and cosines, see tensor.Angles
	Pairs   tensor.Pairing

	unpacked *Cache // see unpackedKeys
	err      error  // why it is not there
}

// Prepare makes a selector of a kind for an Env.
func (k *Kind) Prepare(e *Env, s Setting) (*Selector, error) {
	sel, err := k.New(k, e, s)
	if err == nil && e.err != nil {
		sel.Free(e.Device)
		return nil, e.err
	}
	return sel, err
}

// Free gives back what the Env's selectors share, but for the plan.
func (e *Env) Free() {
	if e.unpacked != nil && e.unpacked.K.Present() {
		e.Device.Free(e.unpacked.K.Buf)
	}
	e.unpacked = nil
}

// KV is the number of key-value heads.
func (e *Env) KV() int { return e.Caches[0].Heads }

// Dim is the number of values a head.
func (e *Env) Dim() int { return e.Caches[0].Dim }

// Rows is the most rows of a step.
func (e *Env) Rows() int { return e.Q.Rows }

// Blocks is the most pages of a sequence.
func (e *Env) Blocks() int { return (e.Context + PageTokens - 1) / PageTokens }
