package model

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// ErrGates is of attention gates that were made for other heads than a model's; a *GateError says which number differs.
var ErrGates = errors.New("model: gate for another model")

// GateError names what of a file of gates is not the model's.
type GateError struct {
	File  string // "" = not from a file
	Field string
	Gate  string // what the gates say
	Model string // what the model is
}

func (e *GateError) Error() string {
	s := fmt.Sprintf("%s is %s, the model's is %s: %v", e.Field, e.Gate, e.Model, ErrGates)
	if e.File != "" {
		s = e.File + ": " + s
	}
	return s
}

func (e *GateError) Unwrap() error { return ErrGates }

// GateKind is what a set of attention gates is for, by the name of the selector that scores with them.
type GateKind string

// SeerPrefill scores 64-query rows of a prompt, each query head by itself; SeerDecode scores for a token, a key-value head's group as one.
const (
	SeerPrefill GateKind = "seer"
	SeerDecode  GateKind = "seer_decode"
)

// Gates are the trained attention gates of a model, which guess from queries and keys before RoPE which 64-key blocks a row will read.
//
// Of block j a key head has pool = concat(max, min, mean) of its keys in the block, 3*Dim channels. The key of the block is pool times the
// head's matrix, and the query is, with SeerPrefill, the mean over 64 tokens, and with SeerDecode the queries of the group one after another
// times the key head's matrix. Where there are norms, both are normed; then both are turned by RoPE, the key at its block's first position, the
// query at its own or its block's first. Scores are products over sqrt(Width).
//
// A matrix is laid out as it is published: head after head, of each its inputs in order, of each input Width outputs. So as a tensor.Mat it has
// heads*inputs rows and Width columns, row h*inputs + i being what input i of head h gives.
type Gates struct {
	Kind  GateKind
	Base  string // Identity of the model; "" = not known
	Name  string // what it was called
	Heads GateHeads
	Norms bool           // queries and keys are normed, by weights that all heads share
	Pairs tensor.Pairing // how channels are ordered: in a file always Halves, for a model as the model's queries and keys are
	Facts []Fact         // how they were made, for people
	Layer []GateLayer
	// File is where the values are; "" = they are in Layer, or there are none. Model.Load reads them from there.
	File string
	// Half says that the projections were stored as BF16, as which a device then keeps them.
	Half bool
}

// GateHeads are the sizes of gates. Layers have the same.
type GateHeads struct {
	Query, KV int // heads
	Dim       int // values a head
	Width     int // values of a gate's query and key
}

// GateLayer is one layer's gate.
type GateLayer struct {
	Query     []float32 // SeerDecode: KV x Query/KV*Dim x Width; else nil
	Key       []float32 // SeerDecode: KV x 3*Dim x Width; SeerPrefill: Query x 3*Dim x Width
	QueryNorm []float32 // Width; nil where there are no norms
	KeyNorm   []float32 // likewise
}

// Fact is a line about how something was made.
type Fact struct{ Name, Text string }

// KeyHeads is how many matrices of keys a layer has.
func (g *Gates) KeyHeads() int {
	if g.Kind == SeerPrefill {
		return g.Heads.Query
	}
	return g.Heads.KV
}

// QueryInputs is how many values a query is projected from; 0 = it is not projected.
func (g *Gates) QueryInputs() int {
	if g.Kind == SeerPrefill {
		return 0
	}
	return g.Heads.Query / g.Heads.KV * g.Heads.Dim
}

// Gate is a layer's gate in host memory, F32: Query is KV*inputs x Width, Key is heads*3*Dim x Width, see Gates. It shares g's memory.
func (g *Gates) Gate(layer int) attention.Gate {
	l, w := &g.Layer[layer], g.Heads.Width
	mat := func(v []float32, cols int) tensor.Mat {
		if v == nil {
			return tensor.Mat{}
		}
		return tensor.FromF32(len(v)/cols, cols, v)
	}
	return attention.Gate{Query: mat(l.Query, w), Key: mat(l.Key, w), QueryNorm: mat(l.QueryNorm, w), KeyNorm: mat(l.KeyNorm, w)}
}

// Identity tells models apart whatever container and formats they are in: by the sizes of their attention and by the values of the last norm,
// which are never rounded and which training changes.
func Identity(c *store.Checkpoint) (string, error) {
	spec, arch, err := describe(c)
	if err != nil {
		return "", err
	}
	t, err := c.Tensor(arch.inFile(c, "output_norm.weight"))
	if err != nil {
		return "", err
	}
	size := t.Format.Bytes * spec.Dim / t.Format.Block
	if t.Format.Decode == nil || len(t.Data) != size {
		return "", inFile(c, fmt.Errorf("%w: tensor %q is %s %v, want %d values", ErrSpec, t.Name, t.Format, t.Shape, spec.Dim))
	}
	norm := make([]float32, spec.Dim)
	t.Format.Decode(norm, t.Data)
	h := sha256.New()
	fmt.Fprintln(h, spec.Dim, len(spec.Layers))
	for _, l := range spec.Layers {
		fmt.Fprintln(h, l.Heads, l.KVHeads, l.HeadDim)
	}
	raw := make([]byte, 4*len(norm))
	quant.F32.Encode(raw, norm)
	h.Write(raw)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// GateSizes are the sizes that gates of a model have, all its layers being alike. ErrAssumption: they are not, or a gate cannot be turned as
// its heads are.
func GateSizes(s *Spec) (GateHeads, error) {
	first := &s.Layers[0]
	for i := range s.Layers {
		l := &s.Layers[i]
		switch {
		case l.Heads != first.Heads || l.KVHeads != first.KVHeads || l.HeadDim != first.HeadDim || l.Rope.Pairs != first.Rope.Pairs:
			return GateHeads{}, fmt.Errorf("%w: attention gates where layer %d has other heads than the first", ErrAssumption, i)
		case l.Window > 0:
			return GateHeads{}, fmt.Errorf("%w: attention gates where layer %d has a window of %d keys", ErrAssumption, i, l.Window)
		case l.Rope.Pairs == tensor.Neighbours && 2*len(l.Rope.Freq) != l.HeadDim:
			return GateHeads{}, fmt.Errorf("%w: attention gates where neighbours turn in %d of %d values", ErrAssumption, 2*len(l.Rope.Freq), l.HeadDim)
		}
	}
	return GateHeads{Query: first.Heads, KV: first.KVHeads, Dim: first.HeadDim, Width: first.HeadDim}, nil
}

// Fit checks that gates were made for a model, and puts their channels in the order of its queries and keys. What a quantisation, another
// container or fewer experts make of a model is the same model here.
func (g *Gates) Fit(c *store.Checkpoint) error {
	spec, err := Describe(c)
	if err != nil {
		return err
	}
	want, err := GateSizes(&spec)
	if err != nil {
		return inFile(c, err)
	}
	differs := func(field string, gate, model any) error {
		return &GateError{Field: field, Gate: fmt.Sprint(gate), Model: fmt.Sprint(model)}
	}
	have, half := g.Heads, len(spec.Layers[0].Rope.Freq)
	switch {
	case len(g.Layer) != len(spec.Layers):
		return differs("layers", len(g.Layer), len(spec.Layers))
	case have.Query != want.Query:
		return differs("query heads", have.Query, want.Query)
	case have.KV != want.KV:
		return differs("key-value heads", have.KV, want.KV)
	case have.Dim != want.Dim:
		return differs("head size", have.Dim, want.Dim)
	case have.Width < 2*half:
		return differs("gate size", have.Width, fmt.Sprintf("at least the %d values that RoPE turns", 2*half))
	}
	if g.Base != "" {
		is, err := Identity(c)
		if err != nil {
			return err
		}
		if is != g.Base {
			return differs("base model", fmt.Sprintf("%.12s (%.60q)", g.Base, g.Name), fmt.Sprintf("%.12s", is))
		}
	}
	if pairs := spec.Layers[0].Rope.Pairs; pairs != g.Pairs {
		g.reorder(pairs, half)
	}
	return nil
}

// Published puts the channels in the order of published checkpoints and of files, of which half pairs turn.
func (g *Gates) Published(half int) {
	if g.Pairs != tensor.Halves {
		g.reorder(tensor.Halves, half)
	}
}

// reorder moves the channels to another pairing. Rows of queries and keys of a GGUF whose neighbours turn were interleaved when it was made,
// value i of the first half of a head with value i of the second; so are a gate's inputs, and its outputs as far as they turn.
func (g *Gates) reorder(to tensor.Pairing, half int) {
	in, out := interleaved(g.Heads.Dim, g.Heads.Dim/2), interleaved(g.Heads.Width, half)
	if to == tensor.Halves {
		in, out = inverse(in), inverse(out)
	}
	move := func(v []float32, rows []int) {
		if v == nil {
			return
		}
		old, n := append([]float32(nil), v...), len(out)
		for r := range len(v) / n {
			from := r - r%len(rows) + rows[r%len(rows)]
			for c := range n {
				v[r*n+c] = old[from*n+out[c]]
			}
		}
	}
	for i := range g.Layer {
		l := &g.Layer[i]
		move(l.Query, in)
		move(l.Key, in)
		move(l.QueryNorm, []int{0})
		move(l.KeyNorm, []int{0})
	}
	g.Pairs = to
}

// interleaved says for each of n channels in an order in which neighbours turn which channel it is where halves do; from 2*half on they are
// the same.
func interleaved(n, half int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
		if i < 2*half {
			order[i] = i/2 + i%2*half
		}
	}
	return order
}

func inverse(order []int) []int {
	out := make([]int, len(order))
	for i, v := range order {
		out[v] = i
	}
	return out
}

// sound says whether all values are finite.
func sound(v []float32) bool {
	for _, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return false
		}
	}
	return true
}
