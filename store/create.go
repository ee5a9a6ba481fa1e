package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	unused, err := a.replace(n)
	if err != nil {
		return err
	}
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

// begin finds the weights, and what is inherited with them.
func (c *creation) begin(ctx context.Context, from string, files map[string]string) error {
	switch {
	case len(files) > 0:
		digest, err := onlyFile(from, files)
		if err != nil {
			return err
		}
		return c.fromBlob(digest)
	case filepath.IsAbs(from):
		return c.fromFile(ctx, from)
	}
	n := model.ParseName(from)
	if !n.IsValid() {
		return fmt.Errorf("from: %w: %.100q", ErrName, from)
	}
	m, e, err := c.store.stored(n)
	if path, ok := c.store.plain(n); ok && errors.Is(err, ErrNoModel) {
		return c.fromFile(ctx, path)
	}
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	return c.inherit(m, e)
}

// onlyFile gives the digest of a model's one file.
func onlyFile(from string, files map[string]string) (string, error) {
	for name, digest := range files {
		switch {
		case strings.HasSuffix(name, ".safetensors"):
			return "", &FileError{File: name, Limit: madeOfGGUF, Err: ErrUnsupported}
		case len(files) > 1:
			return "", &FileError{File: name, Limit: fmt.Sprintf("one of %d files; %s", len(files), madeOfGGUF), Err: ErrUnsupported}
		case !digests.MatchString(digest):
			return "", fmt.Errorf("%w: %.100q is not sha256 and 64 hex digits", ErrDigest, digest)
		case from != "" && from != name && canonical(from) != canonical(digest):
			return "", badModelfile("FROM", ErrUnsupported, "%.100q beside a file to make the model of", from)
		}
		return canonical(digest), nil
	}
	panic("winnow: bug: store: no files")
}

const madeOfGGUF = "a model is created of one GGUF file; split files and Hugging Face directories are served where they are, by their path"

// openWhole opens a GGUF file that is a model by itself.
func openWhole(path string) (*Checkpoint, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() || strings.EqualFold(filepath.Ext(path), ".safetensors") {
		return nil, &FileError{File: path, Limit: madeOfGGUF, Err: ErrUnsupported}
	}
	c, s, err := openPart(path)
	if err != nil {
		return nil, err
	}
	limit := ""
	if s.count > 1 {
		limit = fmt.Sprintf("one of %d files; %s", s.count, madeOfGGUF)
	}
	if kind, _ := c.Meta.String("general.type", "model"); kind != "model" {
		limit = fmt.Sprintf("holds a %.40q and no model", kind)
	}
	if limit != "" {
		return nil, errors.Join(&FileError{File: path, Limit: limit, Err: ErrUnsupported}, c.Close())
	}
	return c, nil
}

// fromFile copies a GGUF file into the store, unless it lies there as a blob already.
func (c *creation) fromFile(ctx context.Context, path string) error {
	if digest, ok := c.store.digestOf(path); ok {
		return c.fromBlob(digest)
	}
	base := filepath.Base(path)
	c.see(Progress{Status: "parsing GGUF"})
	ck, err := openWhole(path)
	if err != nil {
		return err
	}
	if err := ck.Close(); err != nil {
		return err
	}
	in, size, err := openRegular(path)
	if err != nil {
		return err
	}
	defer in.Close()
	told := int64(0)
	l, err := c.blob(&cancellable{Reader: in, ctx: ctx, see: func(n int64) {
		if n-told >= 64<<20 || n == size && n > told {
			told = n
			c.see(Progress{Status: "copying " + base, Total: size, Completed: n})
		}
	}}, "")
	if err != nil {
		return fmt.Errorf("copy %s: %w", path, err)
	}
	c.tell(l)
	return c.fromBlob(l.Digest)
}

// digestOf says whether a path is that of a blob of this store.
func (s Store) digestOf(path string) (string, bool) {
	base := filepath.Base(path)
	if !blobNames.MatchString(base) {
		return "", false
	}
	is, err := os.Stat(path)
	if err != nil {
		return "", false
	}
	ours, err := os.Stat(s.blob(base))
	return canonical(base), err == nil && os.SameFile(is, ours)
}

// fromBlob begins a model of a GGUF that is in the store.
func (c *creation) fromBlob(digest string) error {
	path := c.store.blob(digest)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the store has no file %s", ErrNoModel, digest)
	}
	if err != nil {
		return fileError(path, err)
	}
	c.layers = []layer{{MediaType: layerModel, Digest: digest, Size: st.Size()}}
	return c.describe(path)
}

// inherit begins a model of another one's layers and config.
func (c *creation) inherit(m manifest, e Entry) error {
	c.see(Progress{Status: "reading model metadata"})
	if m.Config.Digest != "" {
		if err := c.store.readJSON(m.Config, &c.config); err != nil {
			return err
		}
		if c.config == nil { // the config is JSON's null
			c.config = map[string]any{}
		}
	}
	for _, l := range m.Layers {
		l.Digest, l.From = canonical(l.Digest), cmp.Or(l.From, e.Name)
		path := c.store.blob(l.Digest)
		st, err := os.Stat(path)
		if err != nil {
			return fileError(path, err)
		}
		if st.Size() != l.Size {
			return &FileError{File: path, Limit: fmt.Sprintf("%d bytes, should be %d", st.Size(), l.Size), Err: ErrFormat}
		}
		c.see(Progress{Status: "using existing layer " + l.Digest, Digest: l.Digest})
		c.layers = append(c.layers, l)
	}
	return c.describe(e.Path)
}

// describe checks the weights and fills in of the config what it does not say yet.
func (c *creation) describe(path string) error {
	ck, err := openWhole(path)
	if err != nil {
		return err
	}
	arch, err := ck.Meta.String("general.architecture", "")
	for key, v := range map[string]any{
		"model_format": string(GGUF), "model_family": arch, "model_families": []string{arch}, "model_type": Magnitude(ck.Parameters()),
		"file_type": ck.Quantization(), "architecture": "amd64", "os": "linux",
	} {
		if c.config[key] == nil || c.config[key] == "" {
			c.config[key] = v
		}
	}
	return errors.Join(err, ck.Close())
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
