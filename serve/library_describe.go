package serve

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ollama/ollama/template"
	"github.com/ollama/ollama/thinking"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
)

// Description is what can be said of a model without loading it. Its maps and lists are not to be written.
type Description struct {
	Source
	Parent       string // the model that its weights were taken from; "" = none, or nobody knows
	Family       string // "llama", as the weights say
	Parameters   int64  // of the weights
	Quantization string // the format of most weights: "Q4_K_M"
	Format       string // "gguf" or "safetensors"
	Context      int    // tokens that the model was made for
	Embedding    int    // width of the network
	Capabilities []string
	Template     string              // of a conversation: the Modelfile's, or else the weights' own, which is Jinja; "" = none
	Meta         map[string]any      // GGUF's keys; long lists only where they are asked for, else nil
	Tensors      []TensorDescription // by name; only where they are asked for
}

// Magnitude is the number of parameters as people say it: "7.6B"; "" where none is known.
func (d *Description) Magnitude() string {
	if d.Parameters == 0 {
		return ""
	}
	return store.Magnitude(d.Parameters)
}

// TensorDescription is one weight of a model.
type TensorDescription struct {
	Name   string
	Format string // "" where Winnow does not read it; then there is no shape either
	Shape  []int
}

// Verbosity is how much of a model is described.
type Verbosity int

// How much is described.
const (
	Brief   Verbosity = iota
	Verbose           // long lists and all tensors too
)

// longList is from how many values on a list is described only where it is asked for.
const longList = 16

// Describe says what a model is. The weights are opened, not read; a brief description is remembered until their file changes. ErrNoModel,
// ErrLoad.
func (l *Library) Describe(name string, verbose Verbosity) (Description, error) {
	s, card, err := l.find(name)
	if err != nil {
		return Description{}, err
	}
	g := l.glance(&s)
	if verbose == Verbose && g.err == nil {
		g = l.look(&s, Verbose)
	}
	if g.err != nil {
		return Description{}, fmt.Errorf("%w: %s: %w", ErrLoad, s.Name, g.err)
	}
	d := g.description
	d.Source = s
	if f := d.Source.Modelfile; f.Template != "" {
		d.Template = f.Template
		d.Capabilities = append(d.Capabilities[:1:1], templateCapabilities(f.Template)...)
	}
	if card == nil {
		return d, nil
	}
	d.Parent = card.Parent
	if q := card.Config.Quantization; q != "" {
		d.Quantization = q
	}
	for _, c := range card.Config.Capabilities {
		if !slices.Contains(d.Capabilities, c) {
			d.Capabilities = append(slices.Clip(d.Capabilities), c)
		}
	}
	return d, nil
}

// glance is a brief look at a model's weights.
type glance struct {
	size        int64     // of the source that it is of; 0 where that has a digest, since such weights never change
	created     time.Time // likewise
	description Description
	err         error // why they cannot be loaded, when that shows without reading them
}

// glance looks at a model's weights unless it has before.
func (l *Library) glance(s *Source) glance {
	var size int64
	var created time.Time
	if s.Digest == "" {
		size, created = s.Size, s.Created
	}
	l.mu.Lock()
	g, ok := l.glances[cmp.Or(s.Weights, s.Name)]
	l.mu.Unlock()
	if ok && g.size == size && g.created.Equal(created) {
		return g
	}
	g = l.look(s, Brief)
	g.size, g.created = size, created
	l.mu.Lock()
	defer l.mu.Unlock()
	l.glances[cmp.Or(s.Weights, s.Name)] = g
	return g
}

// forget drops the looks at weights that are no more.
func (l *Library) forget(seen map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.glances {
		if !seen[key] {
			delete(l.glances, key)
		}
	}
}

// look opens a model's weights and describes them.
func (l *Library) look(s *Source, verbose Verbosity) (g glance) {
	c, err := l.opt.Checkpoint(cmp.Or(s.Weights, s.Name))
	if err != nil {
		return glance{err: err}
	}
	g.description, err = describe(c, verbose)
	g.err = errors.Join(err, c.Close())
	return g
}

// describe says what a checkpoint is, all but the source.
func describe(c *store.Checkpoint, verbose Verbosity) (Description, error) {
	spec, err := model.Describe(c)
	if err != nil {
		return Description{}, err
	}
	pooling, err := declaredPooling(c, spec.Arch)
	if err != nil {
		return Description{}, err
	}
	d := Description{
		Family: spec.Arch, Parameters: c.Parameters(), Quantization: c.Quantization(), Format: string(c.Kind), Context: spec.Context,
		Embedding: spec.Dim, Capabilities: []string{"completion"}, Meta: map[string]any{},
	}
	if pooling != "" {
		d.Capabilities[0] = "embedding"
	}
	d.Template, _ = templateSource(c) // a file that says nothing that can be read has none
	if t, err := chatTemplate(c); err == nil {
		if t.Uses("tools") {
			d.Capabilities = append(d.Capabilities, "tools")
		}
		if t.Uses("enable_thinking") || t.Uses("thinking") || t.Uses("reasoning_effort") || strings.Contains(d.Template, "</think>") {
			d.Capabilities = append(d.Capabilities, "thinking")
		}
	}
	for key, v := range c.Meta {
		if list := reflect.ValueOf(v); verbose == Brief && list.Kind() == reflect.Slice && list.Len() >= longList {
			v = nil
		}
		d.Meta[key] = v
	}
	for key, v := range map[string]any{ // what ollama adds, and what a Hugging Face directory says in other words
		"general.architecture": spec.Arch, "general.parameter_count": d.Parameters, spec.Arch + ".context_length": int64(spec.Context),
		spec.Arch + ".embedding_length": int64(spec.Dim), spec.Arch + ".block_count": int64(len(spec.Layers)),
	} {
		if _, ok := d.Meta[key]; !ok {
			d.Meta[key] = v
		}
	}
	if verbose == Verbose {
		for _, name := range c.Names() {
			one := TensorDescription{Name: name}
			if t, ok := c.Tensors[name]; ok {
				one.Format, one.Shape = t.Format.Name, slices.Clone(t.Shape)
			}
			d.Tensors = append(d.Tensors, one)
		}
	}
	return d, nil
}

// templateCapabilities are what a Go template knows beyond turns of a conversation.
func templateCapabilities(source string) (out []string) {
	t, err := template.Parse(source)
	if err != nil {
		return nil
	}
	vars, err := t.Vars()
	if err != nil {
		return nil
	}
	if slices.Contains(vars, "tools") {
		out = append(out, "tools")
	}
	if slices.Contains(vars, "suffix") {
		out = append(out, "insert")
	}
	open, shut := thinking.InferTags(t.Template)
	if open != "" && shut != "" || slices.Contains(vars, "think") {
		out = append(out, "thinking")
	}
	return out
}
