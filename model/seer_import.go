package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// publishedGates is what gates are called when they are published, and our name of each.
var publishedGates = regexp.MustCompile(`^(?:model\.)?layers\.(\d{1,4})\.self_attn\.attn_gate\.(\w+)\.weight$`)

var publishedGateParts = map[string]struct {
	kind GateKind
	part string
}{
	"mask_linear_k":     {SeerPrefill, gateKey},
	"attngate_linear_q": {SeerDecode, gateQuery},
	"attngate_linear_k": {SeerDecode, gateKey},
	"attngate_qnorm":    {SeerDecode, gateQueryNorm},
	"attngate_knorm":    {SeerDecode, gateKeyNorm},
}

const (
	gateWeights = "attn_gate_weights.pth" // in the folder of published gates
	gateConfig  = "config.json"
)

// ImportGates reads gates as SeerAttention publishes them, for a model: a folder, or the file of weights in it. Where a config.json lies beside
// it, what that says of the gates is held against what is covered here. The gates are in the order of files.
func ImportGates(path string, c *store.Checkpoint) (g *Gates, err error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, gateWeights)
	}
	t, err := store.OpenTorch(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	spec, err := Describe(c)
	if err != nil {
		return nil, err
	}
	g = &Gates{Pairs: tensor.Halves, Layer: make([]GateLayer, len(spec.Layers))}
	if g.Heads, err = GateSizes(&spec); err != nil {
		return nil, inFile(c, err)
	}
	named, err := g.published(t)
	if err != nil {
		return nil, err
	}
	if g.Kind == SeerDecode { // whose width is free
		for _, name := range named[gateKey] {
			if w := t.Tensors[name].Shape; len(w) == 3 && w[2] > 0 && w[2] <= mostGate && w[2]%2 == 0 {
				g.Heads.Width = w[2]
			}
			break
		}
	}
	if err := g.config(filepath.Join(filepath.Dir(path), gateConfig)); err != nil {
		return nil, err
	}
	for i := range g.Layer {
		for _, s := range g.shapes(i) {
			if err := s.imported(t, named[s.part][i], i); err != nil {
				return nil, err
			}
		}
	}
	if g.Base, err = Identity(c); err != nil {
		return nil, err
	}
	g.Facts = append(g.Facts, Fact{"source", "published weights, " + filepath.Base(path)})
	return g, nil
}

// imported reads a tensor that is there, of the shape that the model's heads give.
func (s *gateTensorSpec) imported(t *store.Checkpoint, name string, layer int) error {
	if name == "" {
		return &store.FileError{File: t.Path, Limit: fmt.Sprintf("layer %d has no %s", layer, s.part), Err: store.ErrNoTensor}
	}
	w, err := t.Tensor(name)
	if err != nil {
		return err
	}
	if fmt.Sprint(w.Shape) != fmt.Sprint(s.shape) {
		return &GateError{t.Path, fmt.Sprintf("shape of %q", name), fmt.Sprint(w.Shape), fmt.Sprint(s.shape)}
	}
	return s.read(t, w)
}

// published sorts names by part and layer, and says by them what kind of gates these are.
func (g *Gates) published(t *store.Checkpoint) (map[string]map[int]string, error) {
	named := map[string]map[int]string{}
	last := -1
	for _, name := range t.Names() {
		bad := &store.FileError{File: t.Path, Part: fmt.Sprintf("tensor %.100q", name), Err: store.ErrUnsupported}
		m := publishedGates.FindStringSubmatch(name)
		if m == nil {
			bad.Limit = "is no part of a gate"
			return nil, bad
		}
		p, known := publishedGateParts[m[2]]
		layer, err := strconv.Atoi(m[1])
		switch {
		case err != nil || !known:
			bad.Limit = "a kind of gate that is not covered"
			return nil, bad
		case g.Kind != "" && p.kind != g.Kind:
			bad.Limit = fmt.Sprintf("of a %s gate among those of %s", p.kind, g.Kind)
			return nil, bad
		}
		g.Kind = p.kind
		if named[p.part] == nil {
			named[p.part] = map[int]string{}
		}
		named[p.part][layer] = name
		last = max(last, layer)
	}
	if last < 0 {
		return nil, &store.FileError{File: t.Path, Limit: "no gates", Err: store.ErrFormat}
	}
	if last+1 != len(g.Layer) {
		return nil, &GateError{t.Path, "layers", fmt.Sprint(last + 1), fmt.Sprint(len(g.Layer))}
	}
	g.Norms = named[gateQueryNorm] != nil || named[gateKeyNorm] != nil
	return named, nil
}

// config reads what a published config.json says of the gates: ErrAssumption where that is not what Winnow computes.
func (g *Gates) config(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return err
	}
	c := &config{}
	if err := json.Unmarshal(raw, &c.fields); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrSpec, err)
	}
	g.Name = c.text("base_model", "")
	prefill, seq, head := "Qavg_Kmaxminavg", "Kmaxminavg", "Qproj"
	rope, norms, double := true, g.Norms, false
	value(c, "seerattn_use_rope", &rope)
	value(c, "seerattn_use_qk_norm", &norms)
	value(c, "seerattn_gate_force_double", &double)
	if g.Kind == SeerPrefill {
		prefill = c.text("seerattn_gate_type", prefill)
	} else {
		seq, head = c.text("seerattn_k_seq_pooling_type", seq), c.text("seerattn_q_head_pooling_type", head)
	}
	for _, a := range []struct {
		key       string
		got, want any
	}{
		{"seerattn_gate_type", prefill, "Qavg_Kmaxminavg"},
		{"seerattn_k_seq_pooling_type", seq, "Kmaxminavg"},
		{"seerattn_q_head_pooling_type", head, "Qproj"},
		{"seerattn_use_rope", rope, true},
		{"seerattn_use_qk_norm", norms, g.Norms},
		{"seerattn_gate_force_double", double, false},
		{"seerattn_gate_block_size", c.number("seerattn_gate_block_size", attention.PageTokens), attention.PageTokens},
		{"seerattn_gate_hidden_size", c.number("seerattn_gate_hidden_size", g.Heads.Width), g.Heads.Width},
	} {
		if c.err == nil && a.got != a.want {
			c.err = fmt.Errorf("%w: config.json: %s is %v, want %v", ErrAssumption, a.key, a.got, a.want)
		}
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w", path, c.err)
	}
	return nil
}
