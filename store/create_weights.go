package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ollama/ollama/types/model"
)

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
