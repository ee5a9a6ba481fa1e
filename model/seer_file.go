package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Layout: a GGUF file beside a model, of general.architecture "winnow-gates", shapes slowest dimension first:
//
//	blk.N.attn_gate_q.weight       [KV, heads/KV, dim, width]                         of seer_decode
//	blk.N.attn_gate_k.weight       [KV, 3*dim, width]; of seer [heads, 3*dim, width]  inputs: max, min, mean
//	blk.N.attn_gate_q_norm.weight  [width]                                            where norms is true
//	blk.N.attn_gate_k_norm.weight  [width]
//
// in F32, F16 or BF16, and keys winnow-gates.*: kind, block_count (layers), attention.head_count, attention.head_count_kv,
// attention.key_length (dim), gate_length (width), block_size (64), norms, base.fingerprint (see Identity), base.name, and under training.
// what the maker wants to say. Channels are in the order of published checkpoints, in which value i of a head turns with value i + dim/2,
// whatever the model's own file does.
const (
	gatesArch   = "winnow-gates"
	gatesPrefix = gatesArch + "."
	gatesFacts  = gatesPrefix + "training."

	gateQuery, gateKey         = "attn_gate_q.weight", "attn_gate_k.weight"
	gateQueryNorm, gateKeyNorm = "attn_gate_q_norm.weight", "attn_gate_k_norm.weight"
)

// OpenGates reads the gates of a model from a file, checks that they are its own and puts their channels in its order. ErrGates, in a
// *GateError: they are another's.
func OpenGates(path string, c *store.Checkpoint) (*Gates, error) {
	g, err := ReadGates(path)
	if err != nil {
		return nil, err
	}
	return g.fitted(path, c)
}

// DescribeGates is OpenGates without the values, which the gates' File has.
func DescribeGates(path string, c *store.Checkpoint) (*Gates, error) {
	g, err := readGates(path, (*gateTensorSpec).check)
	if err != nil {
		return nil, err
	}
	g.File = path
	return g.fitted(path, c)
}

func (g *Gates) fitted(path string, c *store.Checkpoint) (*Gates, error) {
	err := g.Fit(c)
	if e := (*GateError)(nil); errors.As(err, &e) {
		e.File = path
	}
	if err != nil {
		return nil, err
	}
	return g, nil
}

// ReadGates reads a file of gates, whosever they are.
func ReadGates(path string) (*Gates, error) { return readGates(path, (*gateTensorSpec).read) }

// readGates has each tensor of a file taken in.
func readGates(path string, take func(*gateTensorSpec, *store.Checkpoint, store.Tensor) error) (g *Gates, err error) {
	c, err := store.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	arch, err := c.Meta.String("general.architecture", "")
	if err == nil && arch != gatesArch {
		err = &store.FileError{File: c.Path, Part: `key "general.architecture"`, Limit: fmt.Sprintf("%.40q, want %q", arch, gatesArch), Err: store.ErrUnsupported}
	}
	if err != nil {
		return nil, inFile(c, err)
	}
	g = &Gates{Pairs: tensor.Halves, Half: true}
	if err := g.keys(c); err != nil {
		return nil, inFile(c, err)
	}
	for i := range g.Layer {
		if err := g.tensors(c, i, take); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// keys reads and checks the numbers. The first bad one sticks.
func (g *Gates) keys(c *store.Checkpoint) error {
	m := &metadata{c: c, prefix: gatesPrefix}
	within := func(key string, top int) int {
		n := m.number(key, missing)
		if m.err == nil && (n < 1 || n > top) {
			m.keep(fmt.Errorf("key %q is %d, want 1 to %d", gatesPrefix+key, n, top))
		}
		return n
	}
	g.Kind = GateKind(m.text("kind", ""))
	layers := within("block_count", mostLayers)
	g.Heads = GateHeads{
		Query: within("attention.head_count", mostDim), KV: within("attention.head_count_kv", mostDim),
		Dim: within("attention.key_length", mostGate), Width: within("gate_length", mostGate),
	}
	block := within("block_size", mostContext)
	g.Base, g.Name = m.text("base.fingerprint", ""), m.text("base.name", "")
	norms, err := c.Meta.Bool(gatesPrefix + "norms")
	m.keep(err)
	g.Norms = norms
	h := &g.Heads
	switch {
	case m.err != nil:
		return m.err
	case g.Kind != SeerPrefill && g.Kind != SeerDecode:
		return fmt.Errorf("%w: gates of kind %.40q, want %q or %q", ErrAssumption, g.Kind, SeerPrefill, SeerDecode)
	case block != attention.PageTokens:
		return fmt.Errorf("%w: gates of blocks of %d keys, want %d", ErrAssumption, block, attention.PageTokens)
	case h.Query%h.KV != 0 || h.Dim%2 != 0 || h.Width%2 != 0:
		return fmt.Errorf("%w: gates of %d heads that read %d key-value heads, of %d values, as %d", ErrSpec, h.Query, h.KV, h.Dim, h.Width)
	case g.Kind == SeerPrefill && (h.Width != h.Dim || g.Norms):
		return fmt.Errorf("%w: %s gates that norm, or are of %d values where a head has %d", ErrAssumption, g.Kind, h.Width, h.Dim)
	}
	for _, key := range c.Keys {
		if name, ok := strings.CutPrefix(key, gatesFacts); ok {
			g.Facts = append(g.Facts, Fact{name, fmt.Sprint(c.Meta[key])})
		}
	}
	g.Layer = make([]GateLayer, layers)
	return nil
}

// mostGate is the most values of a head, and of a gate.
const mostGate = 1024

// shapes are the tensors of a layer: what they are called, and where their values go.
func (g *Gates) shapes(layer int) []gateTensorSpec {
	l, h := &g.Layer[layer], g.Heads
	out := []gateTensorSpec{{gateKey, &l.Key, []int{g.KeyHeads(), 3 * h.Dim, h.Width}}}
	if g.QueryInputs() > 0 {
		out = append(out, gateTensorSpec{gateQuery, &l.Query, []int{h.KV, h.Query / h.KV, h.Dim, h.Width}})
	}
	if g.Norms {
		out = append(out, gateTensorSpec{gateQueryNorm, &l.QueryNorm, []int{h.Width}}, gateTensorSpec{gateKeyNorm, &l.KeyNorm, []int{h.Width}})
	}
	return out
}

type gateTensorSpec struct {
	part   string
	values *[]float32
	shape  []int
}

func (g *Gates) tensors(c *store.Checkpoint, layer int, take func(*gateTensorSpec, *store.Checkpoint, store.Tensor) error) error {
	for _, s := range g.shapes(layer) {
		t, err := c.Tensor(fmt.Sprintf("blk.%d.%s", layer, s.part))
		if err != nil {
			return err
		}
		if err := take(&s, c, t); err != nil {
			return err
		}
		g.Half = g.Half && (t.Format == quant.BF16 || len(s.shape) == 1)
	}
	return nil
}

// check says whether a tensor has the right shape, in a format of plain numbers.
func (s *gateTensorSpec) check(c *store.Checkpoint, t store.Tensor) error {
	if !slices.Contains([]*quant.Format{quant.F32, quant.F16, quant.BF16}, t.Format) || !slices.Equal(t.Shape, s.shape) {
		return s.bad(c, t, fmt.Sprintf("%s %v, want F32, F16 or BF16 %v", t.Format, t.Shape, s.shape))
	}
	return nil
}

func (s *gateTensorSpec) bad(c *store.Checkpoint, t store.Tensor, limit string) error {
	return &store.FileError{File: c.Path, Part: fmt.Sprintf("tensor %.100q", t.Name), Limit: limit, Err: store.ErrFormat}
}

// read decodes a tensor that is as check wants it, and finite.
func (s *gateTensorSpec) read(c *store.Checkpoint, t store.Tensor) error {
	if err := s.check(c, t); err != nil {
		return err
	}
	*s.values = make([]float32, len(t.Data)/t.Format.Bytes)
	if t.Format.Decode(*s.values, t.Data); !sound(*s.values) {
		return s.bad(c, t, "holds numbers that are none")
	}
	return nil
}

// WriteGates writes gates to a file, in a format of plain numbers; norms are F32. The gates' channels must be in the order of files.
func WriteGates(ctx context.Context, path string, g *Gates, f *quant.Format) error {
	if g.Pairs != tensor.Halves {
		panic("winnow: bug: model: gates in a model's own order go to no file")
	}
	h := g.Heads
	out := store.NewGGUF{Meta: store.Meta{}, Replace: true}
	set := func(key string, v any) {
		out.Meta[key] = v
		out.Keys = append(out.Keys, key)
	}
	set("general.architecture", gatesArch)
	set("general.type", "gates")
	set(gatesPrefix+"kind", string(g.Kind))
	set(gatesPrefix+"base.fingerprint", g.Base)
	set(gatesPrefix+"base.name", g.Name)
	for _, n := range []struct {
		key string
		v   int
	}{
		{"block_count", len(g.Layer)}, {"attention.head_count", h.Query}, {"attention.head_count_kv", h.KV}, {"attention.key_length", h.Dim},
		{"gate_length", h.Width}, {"block_size", attention.PageTokens},
	} {
		set(gatesPrefix+n.key, uint32(n.v))
	}
	set(gatesPrefix+"norms", g.Norms)
	for _, fact := range g.Facts {
		set(gatesFacts+fact.Name, fact.Text)
	}
	for i := range g.Layer {
		for _, s := range g.shapes(i) {
			as := f
			if len(s.shape) == 1 {
				as = quant.F32
			}
			raw := make([]byte, len(*s.values)*as.Bytes)
			as.Encode(raw, *s.values)
			out.Tensors = append(out.Tensors, store.NewTensor{
				Name: fmt.Sprintf("blk.%d.%s", i, s.part), Format: as, Shape: s.shape, Pieces: slices.Values([][]byte{raw}),
			})
		}
	}
	if err := store.WriteGGUF(ctx, path, out, nil); err != nil {
		return fmt.Errorf("write gates: %w", err)
	}
	return nil
}
