package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/ollama/ollama/types/model"
)

// Create makes a model, in place of the one that has the name. Its weights are those of f.From: a model of the store, whose template,
// parameters and all else it inherits where f says nothing, or the absolute path of a GGUF file, which is copied into the store; or, where
// files are given, the one blob that they name, from file name to digest. see is told how it goes on, in turn; it may be nil.
//
// ErrName; ErrExists: a file that the user placed has the name; ErrNoModel: f.From is none; ErrFormat and ErrUnsupported: what f says cannot
// be, or the weights cannot. A creation that fails leaves the store as it was.
func (s Store) Create(ctx context.Context, name string, f Modelfile, files map[string]string, see func(Progress)) error {
	n := model.ParseName(name)
	if !n.IsValid() {
		return fmt.Errorf("%w: %.100q", ErrName, name)
	}
	if err := f.check(); err != nil {
		return err
	}
	if see == nil {
		see = func(Progress) {}
	}
	a, err := s.add(ctx)
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.replace(n); err != nil {
		return err
	}
	unused := a.replaced
	c := &creation{addition: a, see: see, config: map[string]any{}}
	if err = c.make(ctx, n, &f, files); err != nil {
		unused = a.added
	}
	a.Close()
	s.discard(context.WithoutCancel(ctx), unused)
	if err != nil {
		return fmt.Errorf("create %s: %w", n.DisplayShortest(), err)
	}
	see(Progress{Status: "success"})
	return nil
}

// creation is a model as far as it is made.
type creation struct {
	*addition
	see    func(Progress)
	layers []layer
	config map[string]any // of the config blob; what nobody here knows is inherited too
}

func (c *creation) make(ctx context.Context, n model.Name, f *Modelfile, files map[string]string) error {
	if err := c.begin(ctx, f.From, files); err != nil {
		return err
	}
	if err := c.say(f); err != nil {
		return err
	}
	config, err := c.configLayer(f)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	c.see(Progress{Status: "writing manifest"})
	return c.write(n, manifest{Config: config, Layers: c.layers})
}

// say puts what a Modelfile says in the place of what is inherited. Licences are added, since those of the weights go on.
func (c *creation) say(f *Modelfile) error {
	if f.Template != "" {
		c.drop(layerPrompt)
		if err := c.put(layerTemplate, []byte(f.Template)); err != nil {
			return err
		}
	}
	if f.System != "" {
		if err := c.put(layerSystem, []byte(f.System)); err != nil {
			return err
		}
	}
	if len(f.Parameters) > 0 {
		all := map[string]any{}
		for _, l := range c.layers {
			if l.MediaType == layerParams {
				if err := c.store.readJSON(l, &all); err != nil {
					return err
				}
			}
		}
		if all == nil { // the layer is JSON's null
			all = map[string]any{}
		}
		maps.Copy(all, f.Parameters)
		if err := c.putJSON(layerParams, all); err != nil {
			return err
		}
	}
	if len(f.Messages) > 0 {
		if err := c.putJSON(layerMessages, f.Messages); err != nil {
			return err
		}
	}
	for _, text := range f.License {
		l, err := c.small(layerLicense, []byte(text))
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(c.layers, func(o layer) bool { return o.MediaType == layerLicense && o.Digest == l.Digest }) {
			c.layers = append(c.layers, l)
		}
	}
	return nil
}

// drop takes all layers of a kind away.
func (c *creation) drop(kind string) {
	c.layers = slices.DeleteFunc(c.layers, func(l layer) bool { return l.MediaType == kind })
}

// put makes the only layer of a kind.
func (c *creation) put(kind string, content []byte) error {
	l, err := c.small(kind, content)
	if err != nil {
		return err
	}
	c.drop(kind)
	c.layers = append(c.layers, l)
	return nil
}

func (c *creation) putJSON(kind string, v any) error {
	raw, err := encode(v)
	if err != nil {
		return err
	}
	return c.put(kind, raw)
}

// encode writes JSON as ollama does, so that equal layers are one blob.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	err := json.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

// small writes a layer that is read as a whole.
func (c *creation) small(kind string, content []byte) (layer, error) {
	if len(content) > maxLayer {
		return layer{}, badModelfile(quoted("layer", kind), ErrUnsupported, "%d bytes, at most %d are kept", len(content), maxLayer)
	}
	l, err := c.blob(io.Reader(bytes.NewReader(content)), "")
	l.MediaType = kind
	if err == nil {
		c.tell(l)
	}
	return l, err
}

// tell says whether a layer is new.
func (c *creation) tell(l layer) {
	what := "using existing layer "
	if slices.Contains(c.added, l.Digest) {
		what = "creating new layer "
	}
	c.see(Progress{Status: what + l.Digest, Digest: l.Digest})
}

// configLayer writes the config of the finished layers.
func (c *creation) configLayer(f *Modelfile) (layer, error) {
	if f.Template != "" { // it counts, not one that the base names
		delete(c.config, "renderer")
	}
	if f.Renderer != "" {
		c.config["renderer"] = f.Renderer
	}
	if f.Parser != "" {
		c.config["parser"] = f.Parser
	}
	ids := []string{}
	for _, l := range c.layers {
		ids = append(ids, l.Digest)
	}
	c.config["rootfs"] = map[string]any{"type": "layers", "diff_ids": ids}
	raw, err := encode(c.config)
	if err != nil {
		return layer{}, err
	}
	return c.small(typeConfig, raw)
}
