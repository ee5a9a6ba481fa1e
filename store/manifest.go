package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const maxManifest = 4 << 20 // bytes

// Media types of manifests and of their layers.
const (
	typeManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeConfig   = "application/vnd.docker.container.image.v1+json"

	layerModel    = "application/vnd.ollama.image.model" // GGUF
	layerTensor   = "application/vnd.ollama.image.tensor"
	layerAdapter  = "application/vnd.ollama.image.adapter"
	layerTemplate = "application/vnd.ollama.image.template" // Go template
	layerPrompt   = "application/vnd.ollama.image.prompt"   // the older word for it
	layerSystem   = "application/vnd.ollama.image.system"
	layerParams   = "application/vnd.ollama.image.params"   // JSON object
	layerMessages = "application/vnd.ollama.image.messages" // JSON list
	layerLicense  = "application/vnd.ollama.image.license"
)

// digests are written with ":" in manifests and with "-" in file names; nothing else becomes part of a path.
var digests = regexp.MustCompile(`^sha256[:-][0-9a-f]{64}$`)

// layer is one file of a model.
type layer struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`           // bytes
	From      string `json:"from,omitempty"` // the model that it was taken from
}

// manifest says which blobs make up a model.
type manifest struct {
	Version   int     `json:"schemaVersion"`
	MediaType string  `json:"mediaType,omitempty"`
	Config    layer   `json:"config"`
	Layers    []layer `json:"layers"`

	digest string // of the manifest's own bytes
}

// parseManifest reads a manifest in which every digest may become part of a path.
func parseManifest(raw []byte) (m manifest, err error) {
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, err
	}
	if m.Version != 2 {
		return m, fmt.Errorf("schemaVersion %d, should be 2", m.Version)
	}
	sum := int64(0)
	for i, l := range m.Layers {
		if !digests.MatchString(l.Digest) {
			return m, fmt.Errorf("layer %d: digest %.100q is not sha256 and 64 hex digits", i, l.Digest)
		}
		if l.Size < 0 || l.Size > math.MaxInt64/2-sum {
			return m, fmt.Errorf("layer %d: size of %d bytes", i, l.Size)
		}
		sum += l.Size
	}
	if c := m.Config; c.Size < 0 || c.Size > maxManifest || c.Digest != "" && !digests.MatchString(c.Digest) {
		return m, fmt.Errorf("config: digest %.100q, %d bytes", c.Digest, c.Size)
	}
	s := sha256.Sum256(raw)
	m.digest = "sha256:" + hex.EncodeToString(s[:])
	return m, nil
}

// size is the bytes of all blobs.
func (m manifest) size() int64 {
	n := m.Config.Size
	for _, l := range m.Layers {
		n += l.Size
	}
	return n
}

// digests are those of all blobs.
func (m manifest) digests() (out []string) {
	if m.Config.Digest != "" {
		out = append(out, m.Config.Digest)
	}
	for _, l := range m.Layers {
		out = append(out, l.Digest)
	}
	return out
}

func (s Store) readManifest(path string) (manifest, error) {
	raw, err := readSmall(path, maxManifest)
	if err != nil {
		return manifest{}, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return m, &FileError{File: path, Part: "manifest", Limit: err.Error(), Err: ErrFormat}
	}
	return m, nil
}

// weights gives the blob with a model's GGUF, of the size that its manifest (at path) says.
func (s Store) weights(path string, m manifest) (string, error) {
	bad := &FileError{File: path, Part: "manifest", Err: ErrUnsupported}
	var found []layer
	for _, l := range m.Layers {
		switch l.MediaType {
		case layerModel:
			found = append(found, l)
		case layerTensor:
			bad.Limit = "weights in one blob per tensor"
			return "", bad
		case layerAdapter:
			bad.Limit = "an adapter beside the weights"
			return "", bad
		}
	}
	if len(found) != 1 {
		bad.Limit = fmt.Sprintf("%d layers with weights, one GGUF file is read", len(found))
		return "", bad
	}
	blob := s.blob(found[0].Digest)
	st, err := os.Stat(blob)
	if errors.Is(err, os.ErrNotExist) {
		return "", &FileError{File: blob, Limit: "named by " + path + ", not there", Err: ErrFormat}
	}
	if err != nil {
		return "", fileError(blob, err)
	}
	if !st.Mode().IsRegular() || st.Size() != found[0].Size {
		limit := fmt.Sprintf("%s of %d bytes, should be a file of %d", st.Mode(), st.Size(), found[0].Size)
		return "", &FileError{File: blob, Limit: limit, Err: ErrFormat}
	}
	return blob, nil
}

// blob is the path of a file by its digest, which has been checked.
func (s Store) blob(digest string) string {
	if !digests.MatchString(digest) {
		panic("winnow: bug: store: unchecked digest")
	}
	return filepath.Join(s.Root, "blobs", strings.Replace(digest, ":", "-", 1))
}
