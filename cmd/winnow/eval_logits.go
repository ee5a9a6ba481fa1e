package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
)

// routed is the sequence whose router choices are written.
const routed = "s70"

// asked is the file that --logits names.
type asked struct {
	Sequences map[string][]int32 `json:"sequences"`
	Greedy    int                `json:"greedy"` // tokens to continue each sequence by
	experts   *model.Experts
}

func (e *evaluation) runLogits(c *cobra.Command, name string) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	in, err := readAsked(e.logits)
	if err != nil {
		return err
	}
	in.experts = e.experts
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	seen := &routes{}
	if in.Sequences[routed] != nil {
		m.device = tensor.Observed(m.device, seen.see)
	}
	longest := 0
	for _, ids := range in.Sequences {
		longest = max(longest, len(ids))
	}
	most := longest + in.Greedy
	n, err := m.network(name, model.Limits{
		Rows: scoredRows, Sequences: 1, Wanted: scoredRows, Context: most,
		Pages: (most + attention.PageTokens - 1) / attention.PageTokens,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	for i, l := range n.Spec().Layers {
		if l.Router != nil {
			seen.layers = append(seen.layers, choices{layer: i, k: l.Router.K})
		}
	}
	out, err := in.compute(ctx, n, seen)
	if err != nil {
		return err
	}
	return writeSafetensors(e.out, append(out, seen.tensors()...))
}

func readAsked(path string) (asked, error) {
	var in asked
	raw, err := os.ReadFile(path)
	if err != nil {
		return in, err
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return in, fmt.Errorf("%s: %w", path, err)
	}
	if len(in.Sequences) == 0 || in.Greedy < 0 {
		return in, fmt.Errorf("%s: %d sequences to be continued by %d tokens", path, len(in.Sequences), in.Greedy)
	}
	return in, nil
}

// compute runs every sequence: once for its logits, once for its continuation, which never stops early.
func (in *asked) compute(ctx context.Context, n *network, seen *routes) ([]namedTensor, error) {
	var out []namedTensor
	vocab := n.Spec().Vocab
	for _, name := range slices.Sorted(maps.Keys(in.Sequences)) {
		ids := in.Sequences[name]
		logits := make([]float32, 0, len(ids)*vocab)
		seen.recording = name == routed
		err := n.engine.Score(ctx, engine.Scoring{IDs: ids, Experts: in.experts}, func(_ int, rows []float32) { logits = append(logits, rows...) })
		seen.recording = false
		if err != nil {
			return nil, fmt.Errorf("sequence %s: %w", name, err)
		}
		out = append(out, floats(name+".logits", []int{len(ids), vocab}, logits))
		if in.Greedy == 0 {
			continue
		}
		var greedy []int32
		for t, err := range n.engine.Generate(ctx, engine.Request{Prompt: ids, MaxTokens: in.Greedy, Experts: in.experts, Alternatives: -1}) {
			if err != nil {
				return nil, fmt.Errorf("continue %s: %w", name, err)
			}
			greedy = append(greedy, t.ID)
		}
		out = append(out, integers(name+".greedy", []int{len(greedy)}, greedy))
	}
	return out, nil
}

// routes collects the choices of every router while it is recording. The engine's loop calls see; the fields change only while the
// engine is idle.
type routes struct {
	recording bool
	layers    []choices // those with experts, in order
	next      int       // which of them routes next
}

// choices are one layer's, row after row.
type choices struct {
	layer, k int
	experts  []int32
	weights  []float32
}

func (r *routes) see(op tensor.Op, read func(tensor.Mat) []byte) {
	o, ok := op.(*moe.Route)
	if !ok || !r.recording {
		return
	}
	rows := o.X.Rows
	if o.N.Present() {
		rows = int(binary.LittleEndian.Uint32(read(o.N)))
	}
	l := &r.layers[r.next]
	r.next = (r.next + 1) % len(r.layers)
	ids, weights := read(o.IDs), read(o.Weights)
	for i := range rows * l.k {
		l.experts = append(l.experts, int32(binary.LittleEndian.Uint32(ids[4*i:])))
		l.weights = append(l.weights, math.Float32frombits(binary.LittleEndian.Uint32(weights[4*i:])))
	}
}

func (r *routes) tensors() []namedTensor {
	var out []namedTensor
	for _, l := range r.layers {
		if len(l.experts) == 0 {
			continue
		}
		name, shape := fmt.Sprintf("router.%d", l.layer), []int{len(l.experts) / l.k, l.k}
		out = append(out, integers(name+".experts", shape, l.experts), floats(name+".weights", shape, l.weights))
	}
	return out
}
