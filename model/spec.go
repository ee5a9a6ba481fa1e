// Package model is the network: what an architecture is, how its checkpoint becomes prepared operations on a device, and the one
// forward pass that all architectures share.
package model

import (
	"errors"
	"fmt"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Errors of loading, by when they happen.
var (
	ErrArchitecture = errors.New("model: unknown architecture")          // nobody here knows the network
	ErrSpec         = errors.New("model: checkpoint contradicts itself") // a number or a shape of the file is out of range
	ErrAssumption   = errors.New("model: not covered")                   // the architecture is known, this variant of it is not
)

// Spec is what an architecture is: the numbers that turn a checkpoint's tensors into a network.
type Spec struct {
	Arch    string // as GGUF names it: "qwen3moe"
	Vocab   int    // ids
	Dim     int    // width of the residual stream
	Context int    // tokens the model was made for
	Eps     float32
	Tied    bool // the output matrix is the embedding table
	Layers  []LayerSpec
	MTP     []LayerSpec // layers that foretell further tokens (multi-token prediction), see Model.LoadHead; empty where there are none
	Repairs []string    // what the checkpoint says otherwise than most or not at all, and what is taken for it: for people
}

// LayerSpec is one layer. Layers of a model may differ in every field.
type LayerSpec struct {
	Heads, KVHeads, HeadDim int
	Window                  int     // keys a row reads, itself included; 0 = all
	Scale                   float32 // of attention scores
	QKNorm                  bool    // RMS norm of queries and keys before RoPE, each head by itself
	WholeNorm               bool    // ... or all heads of a row as one
	QKVBias, OutBias        bool
	Rope                    Rope
	Width                   int              // hidden width of the dense network; 0 in a layer of experts
	FFNBias                 bool             // of the dense network
	Router                  *moe.RouterSpec  // nil in a dense layer
	Tree                    *TreeSpec        // a router of trees, of which Router has experts and the most that a row takes; nil = by Router
	DSelect                 *moe.DSelectSpec // a router of selectors, likewise
	Hash                    bool             // tokens choose by a table, and Router weighs
	Shortlist               int              // experts of whom a tree finds the likeliest for Router to choose among; 0 = it chooses among all
	Map                     moe.ExpertMap    // which experts exist
	Banks                   []int            // experts in each of the stacks that the checkpoint has; nil = one of as many as the router has rows
	ExpertWidth             int              // hidden width of an expert
	Stored                  ExpertLayout     // of the experts' matrices in the checkpoint
}

// architecture is a family: how its files describe it. Each has its own file here, which holds its names and asserts its assumptions.
type architecture struct {
	name   string // general.architecture of GGUF
	hf     string // model_type of config.json
	gguf   func(c *store.Checkpoint) (Spec, error)
	config func(c *config) (Spec, error)
	names  map[string]string // Hugging Face names beyond the common ones: our layer tensor -> pattern
	mtp    string            // what Hugging Face names of layers that foretell further tokens begin with; "" = there are none
}

var architectures []*architecture

func register(a *architecture) *architecture {
	for _, b := range architectures {
		if a.name == b.name || a.hf == b.hf {
			panic("winnow: bug: model: architecture " + a.name + " is registered twice")
		}
	}
	architectures = append(architectures, a)
	return a
}

// Describe reads a checkpoint's architecture without touching its weights.
func Describe(c *store.Checkpoint) (Spec, error) {
	spec, _, err := describe(c)
	return spec, err
}

func describe(c *store.Checkpoint) (Spec, *architecture, error) {
	var spec Spec
	arch, err := find(c)
	if err != nil {
		return spec, nil, inFile(c, err)
	}
	if c.Kind == store.GGUF {
		spec, err = arch.gguf(c)
	} else {
		var cfg *config
		if cfg, err = readConfig(c.Files["config.json"]); err == nil {
			spec, err = arch.config(cfg)
		}
	}
	if err == nil {
		spec.Arch = arch.name
		err = spec.check()
	}
	if err != nil {
		return spec, nil, inFile(c, err)
	}
	return spec, arch, nil
}

func find(c *store.Checkpoint) (*architecture, error) {
	var name string
	if c.Kind == store.GGUF {
		var err error
		if name, err = c.Meta.String("general.architecture", ""); err != nil {
			return nil, err
		}
	} else {
		cfg, err := readConfig(c.Files["config.json"])
		if err != nil {
			return nil, err
		}
		name = cfg.ModelType
	}
	var known []string
	for _, a := range architectures {
		if c.Kind == store.GGUF && a.name == name || c.Kind != store.GGUF && a.hf == name {
			return a, nil
		}
		known = append(known, a.name)
	}
	return nil, fmt.Errorf("%w %q (known: %v)", ErrArchitecture, name, known)
}

// Largest numbers that a spec may hold, above every published model; they bound what a hostile file makes us allocate.
const (
	mostLayers  = 1024
	mostDim     = 1 << 16
	mostVocab   = 1 << 21
	mostWidth   = 1 << 20
	mostContext = 1 << 24
)

func (s *Spec) check() error {
	for _, n := range []struct {
		name     string
		got, top int
	}{
		{"layers", len(s.Layers), mostLayers}, {"vocabulary", s.Vocab, mostVocab},
		{"embedding width", s.Dim, mostDim}, {"context", s.Context, mostContext},
	} {
		if n.got < 1 || n.got > n.top {
			return fmt.Errorf("%w: %s is %d, want 1 to %d", ErrSpec, n.name, n.got, n.top)
		}
	}
	if !(s.Eps >= 0 && s.Eps < 1) {
		return fmt.Errorf("%w: norm epsilon is %v, want 0 to 1", ErrSpec, s.Eps)
	}
	for i := range s.Layers {
		if err := s.Layers[i].check(); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	for i := range s.MTP {
		if err := s.MTP[i].check(); err != nil {
			return fmt.Errorf("mtp layer %d: %w", i, err)
		}
	}
	return nil
}

func (l *LayerSpec) check() error {
	switch {
	case l.Heads < 1 || l.KVHeads < 1 || l.Heads%l.KVHeads != 0 || l.Heads > mostDim:
		return fmt.Errorf("%w: %d heads read %d key-value heads", ErrSpec, l.Heads, l.KVHeads)
	case l.HeadDim < 2 || l.HeadDim > 1024 || l.HeadDim%2 != 0:
		return fmt.Errorf("%w: heads of %d values, want an even number of 2 to 1024", ErrSpec, l.HeadDim)
	case l.Window < 0:
		return fmt.Errorf("%w: a window of %d keys", ErrSpec, l.Window)
	case len(l.Rope.Freq) < 1 || 2*len(l.Rope.Freq) > l.HeadDim:
		return fmt.Errorf("%w: RoPE turns %d of %d values", ErrSpec, 2*len(l.Rope.Freq), l.HeadDim)
	}
	if l.Router == nil {
		if l.Width < 1 || l.Width > mostWidth {
			return fmt.Errorf("%w: hidden width is %d, want 1 to %d", ErrSpec, l.Width, mostWidth)
		}
		return nil
	}
	if l.ExpertWidth < 1 || l.ExpertWidth > mostWidth {
		return fmt.Errorf("%w: experts of width %d, want 1 to %d", ErrSpec, l.ExpertWidth, mostWidth)
	}
	if err := l.Router.Check(); err != nil {
		return fmt.Errorf("%w: router: %w", ErrSpec, err)
	}
	if err := l.Map.Check(*l.Router); err != nil {
		return fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return nil
}

// PageBytes is what one page of the cache takes in all layers together; where full pages are pruned, one that is.
func (s *Spec) PageBytes(kv KV) int {
	total := 0
	for i := range s.Layers {
		shape := kv.shape(&s.Layers[i])
		if kv.Pruned > 0 {
			total += shape.PrunedBytes()
		} else {
			total += shape.PageBytes()
		}
	}
	return total
}

// DenseBytes is what the cache takes, where full pages are pruned, for the pages that are not; else nothing.
func (s *Spec) DenseBytes(kv KV, lim Limits) int64 {
	if kv.Pruned == 0 {
		return 0
	}
	return int64(lim.dense()) * int64(s.PageBytes(KV{Format: kv.Format}))
}

// MoE says whether any layer has experts.
func (s *Spec) MoE() bool {
	for _, l := range s.Layers {
		if l.Router != nil {
			return true
		}
	}
	return false
}

// Placement says which device holds what. Today one device holds every layer and every bank.
type Placement struct{ Device tensor.Device }

// StepRows is how many tokens a step computes where nobody says: 512, and so many more, up to 2048, that an expert which is chosen as often as others
// meets 128 of them, for its weights are fetched and taken apart once for all.
func (s *Spec) StepRows() int {
	n := 512
	for i := range s.Layers {
		if r := s.Layers[i].Router; r != nil && r.K > 0 {
			n = max(n, min(128*r.Experts/r.K, 2048))
		}
	}
	return n
}
