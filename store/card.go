package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ollama/ollama/types/model"
)

// maxLayer is the most bytes of a file beside the weights: a template, a licence, the config.
const maxLayer = 1 << 20

// Card is all that the store says of a model.
type Card struct {
	Entry               // Err is nil
	Modelfile Modelfile // From is the model's own name
	Parent    string    // the model that its weights were taken from, where its manifest says so
	Config    Config
}

// Config is the first thing that a manifest names, "" and 0 where it says nothing.
type Config struct {
	Format       string   `json:"model_format"` // "gguf"
	Family       string   `json:"model_family"` // "llama"
	Families     []string `json:"model_families"`
	Parameters   string   `json:"model_type"` // "1.1B"
	Quantization string   `json:"file_type"`  // "Q4_K_M"
	Renderer     string   `json:"renderer"`   // ollama's name of a template that is part of its program
	Parser       string   `json:"parser"`     // likewise, of what reads the answers
	Capabilities []string `json:"capabilities"`
	Context      int      `json:"context_length"` // tokens
}

// Lookup reads what the store says of a model. Of one without a manifest that is its file or directory only. Errors are those of Find, and
// ErrFormat for a damaged layer.
func (s Store) Lookup(name string) (Card, error) {
	n := model.ParseName(name)
	if !n.IsValid() {
		return Card{}, fmt.Errorf("%w: %.100q", ErrName, name)
	}
	for {
		m, e, err := s.stored(n)
		if path, ok := s.plain(n); ok && errors.Is(err, ErrNoModel) {
			e := plainEntry(ModelName(path), path)
			return Card{Entry: e, Modelfile: Modelfile{From: e.Name}}, e.Err
		}
		if err != nil {
			return Card{}, err
		}
		c := Card{Entry: e, Modelfile: Modelfile{From: e.Name}}
		if err = s.readLayers(&c, m); err == nil {
			return c, nil
		}
		if now, _, gone := s.stored(n); gone == nil && now.digest == m.digest {
			return Card{}, fmt.Errorf("look up %s: %w", e.Name, err)
		} // else somebody has replaced or removed it meanwhile
	}
}

// readLayers reads the layers beside the weights. Of several of a kind that should be one the last counts, as with ollama.
func (s Store) readLayers(c *Card, m manifest) error {
	if m.Config.Digest != "" {
		if err := s.readJSON(m.Config, &c.Config); err != nil {
			return err
		}
	}
	f := &c.Modelfile
	f.Renderer, f.Parser = c.Config.Renderer, c.Config.Parser
	for _, l := range m.Layers {
		var err error
		switch l.MediaType {
		case layerModel:
			c.Parent = l.From
		case layerTemplate, layerPrompt:
			f.Template, err = s.readText(l)
		case layerSystem:
			f.System, err = s.readText(l)
		case layerLicense:
			var text string
			text, err = s.readText(l)
			f.License = append(f.License, text)
		case layerParams:
			f.Parameters = nil
			err = s.readJSON(l, &f.Parameters)
		case layerMessages:
			f.Messages = nil
			err = s.readJSON(l, &f.Messages)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s Store) readText(l layer) (string, error) {
	raw, err := s.readLayer(l)
	return string(raw), err
}

func (s Store) readJSON(l layer, v any) error {
	raw, err := s.readLayer(l)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return &FileError{File: s.blob(l.Digest), Part: l.MediaType, Limit: err.Error(), Err: ErrFormat}
	}
	return nil
}

// readLayer reads a small blob and checks that it is the one that the manifest means.
func (s Store) readLayer(l layer) ([]byte, error) {
	path := s.blob(l.Digest)
	if l.Size > maxLayer {
		limit := fmt.Sprintf("%d bytes, at most %d are read", l.Size, maxLayer)
		return nil, &FileError{File: path, Part: quoted("layer", l.MediaType), Limit: limit, Err: ErrUnsupported}
	}
	raw, err := readSmall(path, maxLayer)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != l.Digest[len("sha256:"):] {
		return nil, &FileError{File: path, Part: quoted("layer", l.MediaType), Limit: "its bytes have another digest", Err: ErrFormat}
	}
	return raw, nil
}

// canonical writes a checked digest as manifests do.
func canonical(digest string) string { return strings.Replace(digest, "sha256-", "sha256:", 1) }
