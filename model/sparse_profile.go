package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/store"
)

// ErrSparseProfile is of a profile of selectors that is damaged, contradicts itself or is another model's; a *SparseProfileError says in what.
var ErrSparseProfile = errors.New("model: profile of selectors")

// SparseProfileError names what of a profile is wrong.
type SparseProfileError struct {
	File  string // "" = not from a file
	Field string // as the file has it: "settings[2].knobs"
	Why   string
}

func (e *SparseProfileError) Error() string {
	s := fmt.Sprintf("%s %s: %v", e.Field, e.Why, ErrSparseProfile)
	if e.File != "" {
		s = e.File + ": " + s
	}
	return s
}

func (e *SparseProfileError) Unwrap() error { return ErrSparseProfile }

// SparseProfile is what the knobs of selectors must be turned to, layer by layer, for a model to read a share of its attention with the fewest
// keys, as was measured on a text.
//
// Layout: JSON with the fields below, one setting a line. Every list that goes by layer has as many entries as full.
type SparseProfile struct {
	Format   int             `json:"format"` // sparseProfileFormat
	Model    string          `json:"model"`  // Identity, which quantisation leaves as it is
	Name     string          `json:"name"`   // what the model was called
	Text     string          `json:"text"`   // sha256 of what was read
	Device   string          `json:"device"` // on which times were taken
	Context  int             `json:"context"`
	Layers   int             `json:"layers"` // of the model
	Full     []int           `json:"full"`   // those that selectors serve, ascending, counted from 0
	Settings []SparseSetting `json:"settings"`
}

// SparseSetting is a selector at a recall.
type SparseSetting struct {
	Selector  string    `json:"selector"`
	Phase     string    `json:"phase"`     // prefill or decode
	Recall    float32   `json:"recall"`    // share of the softmax that was asked for, as the mean over rows and heads of each layer
	Knob      string    `json:"knob"`      // the selector's word for it
	Knobs     []float32 `json:"knobs"`     // by layer, as all below
	Recalls   []float32 `json:"recalls"`   // measured; below Recall where no knob reaches it
	Densities []float32 `json:"densities"` // share of the visible keys that was read
	Ms        float32   `json:"ms"`        // to choose keys and read them, all layers: of the prompt's last part, or of one token
	MsDense   float32   `json:"ms_dense"`  // to read all keys
}

const (
	sparseProfileFormat = 2       // more by one whenever a number of a knob comes to read other keys than before
	mostSparseProfile   = 8 << 20 // bytes of a file
	mostSparseSettings  = 256
)

// phaseNames are the phases as files have them.
var phaseNames = map[string]attention.Phases{"prefill": attention.Prefill, "decode": attention.Decode}

// ReadSparseProfile reads a profile, whosever it is. ErrSparseProfile: it is none.
func ReadSparseProfile(path string) (*SparseProfile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, mostSparseProfile+1))
	if err != nil {
		return nil, err
	}
	p, err := ParseSparseProfile(raw)
	if e := (*SparseProfileError)(nil); errors.As(err, &e) {
		e.File = path
	}
	return p, err
}

// ParseSparseProfile reads the JSON of a profile. The error is a *SparseProfileError.
func ParseSparseProfile(raw []byte) (*SparseProfile, error) {
	if len(raw) > mostSparseProfile {
		return nil, &SparseProfileError{Field: "file", Why: fmt.Sprintf("has more than %d bytes", mostSparseProfile)}
	}
	p := &SparseProfile{}
	if err := json.Unmarshal(raw, p); err != nil {
		field := "file"
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
			field = e.Field
		}
		return nil, &SparseProfileError{Field: field, Why: "is no JSON of a profile: " + err.Error()}
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return p, nil
}

// Check says what in a profile cannot be. The error is a *SparseProfileError.
func (p *SparseProfile) Check() error {
	bad := func(field, format string, v ...any) error {
		return &SparseProfileError{Field: field, Why: fmt.Sprintf(format, v...)}
	}
	switch {
	case p.Format != sparseProfileFormat:
		return bad("format", "is %d, want %d: calibrate again", p.Format, sparseProfileFormat)
	case len(p.Model) != 64:
		return bad("model", "is %.80q, want 64 hex digits", p.Model)
	case p.Layers < 1 || p.Layers > mostLayers:
		return bad("layers", "is %d, want 1 to %d", p.Layers, mostLayers)
	case p.Context < 1 || p.Context > mostContext:
		return bad("context", "is %d, want 1 to %d", p.Context, mostContext)
	case len(p.Full) < 1 || len(p.Full) > p.Layers:
		return bad("full", "has %d layers of %d", len(p.Full), p.Layers)
	case len(p.Settings) < 1 || len(p.Settings) > mostSparseSettings:
		return bad("settings", "are %d, want 1 to %d", len(p.Settings), mostSparseSettings)
	}
	for i, layer := range p.Full {
		if layer >= p.Layers || layer < 0 || i > 0 && layer <= p.Full[i-1] {
			return bad("full", "has layer %d where one of %d that are ascending should be", layer, p.Layers)
		}
	}
	for i := range p.Settings {
		if field, why := p.Settings[i].check(len(p.Full)); why != "" {
			return bad(fmt.Sprintf("settings[%d].%s", i, field), "%s", why)
		}
		for _, other := range p.Settings[:i] {
			if s := &p.Settings[i]; s.Selector == other.Selector && s.Phase == other.Phase && s.Recall == other.Recall {
				return bad(fmt.Sprintf("settings[%d]", i), "is %s of %s for a recall of %v a second time", s.Phase, s.Selector, s.Recall)
			}
		}
	}
	return nil
}

// check says which field of a setting for so many layers is wrong, and why; "" = none.
func (s *SparseSetting) check(layers int) (field, why string) {
	k, phase := attention.KindOf(s.Selector), phaseNames[s.Phase]
	switch {
	case k == nil:
		return "selector", fmt.Sprintf("is %.40q, there are %q", s.Selector, attention.Kinds(attention.Prefill|attention.Decode))
	case phase == 0 || k.Phases&phase == 0:
		return "phase", fmt.Sprintf("is %.40q, which %s does not serve", s.Phase, s.Selector)
	case k.Knob.Name == "" || s.Knob != k.Knob.Name:
		return "knob", fmt.Sprintf("is %.40q, %s has %q", s.Knob, s.Selector, k.Knob.Name)
	case !(s.Recall > 0 && s.Recall <= 1):
		return "recall", fmt.Sprintf("is %v, want above 0 to 1", s.Recall)
	case len(s.Knobs) != layers:
		return "knobs", fmt.Sprintf("has %d numbers for %d layers", len(s.Knobs), layers)
	}
	for _, v := range s.Knobs {
		if err := k.Knob.Check(float64(v)); err != nil {
			return "knobs", "has one that cannot be: " + err.Error()
		}
	}
	for _, f := range []struct {
		name string
		v    []float32
	}{{"recalls", s.Recalls}, {"densities", s.Densities}} {
		if len(f.v) != layers {
			return f.name, fmt.Sprintf("has %d numbers for %d layers", len(f.v), layers)
		}
		for _, v := range f.v {
			if !(v >= 0 && v <= 1.001) {
				return f.name, fmt.Sprintf("has %v, want 0 to 1", v)
			}
		}
	}
	for _, v := range []float32{s.Ms, s.MsDense} {
		if !(v >= 0 && v <= math.MaxFloat32) {
			return "ms", fmt.Sprintf("is %v", v)
		}
	}
	return "", ""
}

// Fit checks that a profile was made for a model. The error is a *SparseProfileError.
func (p *SparseProfile) Fit(c *store.Checkpoint) error {
	is, err := Identity(c)
	if err != nil {
		return err
	}
	if is != p.Model {
		return &SparseProfileError{Field: "model", Why: fmt.Sprintf("is %.12s (%.60q), the model's is %.12s", p.Model, p.Name, is)}
	}
	spec, err := Describe(c)
	if err != nil {
		return err
	}
	if n := len(spec.Layers); n != p.Layers {
		return &SparseProfileError{Field: "layers", Why: fmt.Sprintf("is %d, the model's are %d", p.Layers, n)}
	}
	if full := spec.FullLayers(); !slices.Equal(full, p.Full) {
		return &SparseProfileError{Field: "full", Why: fmt.Sprintf("is %v, the model's layers that read everything are %v", p.Full, full)}
	}
	return nil
}

// FullLayers are the layers that selectors can serve together: those without a window, of the shape of the first of them.
func (s *Spec) FullLayers() (layers []int) {
	for i := range s.Layers {
		if l := &s.Layers[i]; l.Window == 0 && (len(layers) == 0 || alike(l, &s.Layers[layers[0]])) {
			layers = append(layers, i)
		}
	}
	return layers
}

// WriteSparseProfile writes a profile to a file, which is there whole or not at all.
func WriteSparseProfile(path string, p *SparseProfile) (err error) {
	p.Format = sparseProfileFormat
	if err := p.Check(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	head := *p
	head.Settings = nil
	raw, err := json.Marshal(&head)
	for i := range p.Settings {
		line, bad := json.Marshal(&p.Settings[i])
		if err = errors.Join(err, bad); i == 0 {
			raw = append(raw[:len(raw)-len("null}")], "[\n"...)
		} else {
			raw = append(raw, ",\n"...)
		}
		raw = append(raw, line...)
	}
	raw = append(raw, "]}\n"...)
	temp, bad := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err = errors.Join(err, bad); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = temp.Write(raw)
	if err = errors.Join(err, temp.Chmod(0o644), temp.Sync(), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(temp.Name())))
	}
	return nil
}
