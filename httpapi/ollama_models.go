package httpapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/winnow-llm/winnow/serve"
)

// ollamaDetails are what a model is, in short.
type ollamaDetails struct {
	Parent       string   `json:"parent_model"`
	Format       string   `json:"format"`
	Family       string   `json:"family"`
	Families     []string `json:"families"`
	Parameters   string   `json:"parameter_size"`
	Quantization string   `json:"quantization_level"`
	Context      int      `json:"context_length,omitempty"`
	Embedding    int      `json:"embedding_length,omitempty"`
}

// ollamaModel is a model in a list. Expires, VRAM and Context are of the loaded ones.
type ollamaModel struct {
	Name         string        `json:"name"`
	Model        string        `json:"model"` // the same
	Modified     *time.Time    `json:"modified_at,omitempty"`
	Size         int64         `json:"size"`
	Digest       string        `json:"digest"`
	Details      ollamaDetails `json:"details"`
	Capabilities []string      `json:"capabilities,omitempty"`
	Expires      *time.Time    `json:"expires_at,omitempty"`
	VRAM         *int64        `json:"size_vram,omitempty"`
	Context      int           `json:"context_length,omitempty"`
}

// ollamaShow is all that is said of a model.
type ollamaShow struct {
	License      string                     `json:"license,omitempty"`
	Modelfile    string                     `json:"modelfile,omitempty"`
	Parameters   string                     `json:"parameters,omitempty"`
	Template     string                     `json:"template,omitempty"`
	System       string                     `json:"system,omitempty"`
	Details      ollamaDetails              `json:"details"`
	Messages     []serve.Message            `json:"messages,omitempty"`
	Meta         map[string]json.RawMessage `json:"model_info"` // never null, which clients do not bear
	Tensors      []ollamaTensor             `json:"tensors,omitempty"`
	Capabilities []string                   `json:"capabilities,omitempty"`
	Modified     time.Time                  `json:"modified_at"`
	Warnings     []string                   `json:"warnings,omitempty"`
}

type ollamaTensor struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape []int  `json:"shape"`
}

// noDigest stands for the digest of a model without a manifest: clients cut their digests short, and break on an empty one.
var noDigest = strings.Repeat("0", 64)

func ollamaDigest(d string) string {
	if d == "" {
		return noDigest
	}
	return strings.TrimPrefix(d, "sha256:")
}

func newOllamaDetails(d *serve.Description) ollamaDetails {
	out := ollamaDetails{
		Parent: d.Parent, Format: d.Format, Family: d.Family, Families: []string{}, Quantization: d.Quantization,
		Parameters: d.Magnitude(), Context: d.Context, Embedding: d.Embedding,
	}
	if d.Family != "" {
		out.Families = []string{d.Family}
	}
	return out
}

// describe says what a model is. Where there is no library, or a model of it cannot be read, it is what the pool knows.
func (s *Server) describe(l *serve.Listing, v serve.Verbosity) serve.Description {
	if s.opt.Library != nil {
		if d, err := s.opt.Library.Describe(l.Name, v); err == nil {
			return d
		}
	}
	d := serve.Description{
		Source: serve.Source{Name: l.Name, Created: l.Created, Size: l.Size, Digest: l.Digest}, Capabilities: []string{"completion"},
	}
	if l.Loaded {
		d.Family, d.Context, d.Embedding = l.Spec.Arch, l.Spec.Context, l.Spec.Dim
	}
	return d
}

// tags lists all models.
func (s *Server) tags(c *gin.Context) {
	all, err := s.pool.List()
	if err != nil {
		s.fail(c, err)
		return
	}
	out := make([]ollamaModel, len(all))
	for i := range all {
		l := &all[i]
		d := s.describe(l, serve.Brief)
		out[i] = ollamaModel{
			Name: l.Name, Model: l.Name, Modified: &l.Created, Size: l.Size, Digest: ollamaDigest(l.Digest),
			Details: newOllamaDetails(&d), Capabilities: d.Capabilities,
		}
	}
	s.answer(c, http.StatusOK, gin.H{"models": out})
}

// never is when a model is unloaded that stays until somebody unloads it: so late that clients say so.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// running lists the models that are loaded.
func (s *Server) running(c *gin.Context) {
	all := s.pool.Loaded()
	out := make([]ollamaModel, len(all))
	for i := range all {
		l := &all[i]
		d := s.describe(l, serve.Brief)
		expires := l.Expires
		if expires.IsZero() {
			expires = never
		}
		out[i] = ollamaModel{
			Name: l.Name, Model: l.Name, Size: l.Memory, Digest: ollamaDigest(l.Digest), Details: newOllamaDetails(&d),
			Expires: &expires, VRAM: new(int64), Context: l.Context,
		}
		if l.Memory == 0 {
			out[i].Size = l.Size
		}
	}
	s.answer(c, http.StatusOK, gin.H{"models": out})
}

// show describes one model.
func (s *Server) show(c *gin.Context) {
	body, err := s.body(c)
	if err != nil {
		s.fail(c, err)
		return
	}
	o, err := parseObject(body)
	if err != nil {
		s.fail(c, err)
		return
	}
	name, verbosity := o.modelName(), serve.Brief
	if o.flag("verbose") {
		verbosity = serve.Verbose
	}
	system, warnings := o.text("system"), o.strangers()
	if o.err() != nil {
		s.fail(c, o.err())
		return
	}
	d, err := s.look(name, verbosity)
	if err != nil {
		s.fail(c, ollamaFault(name, err))
		return
	}
	if system != nil && *system != "" {
		d.Modelfile.System = *system
	}
	out := newOllamaShow(&d)
	out.Warnings = warnings
	s.answer(c, http.StatusOK, out)
}

// look describes a model by a client's word for it. One that is listed and whose files nobody describes is what the pool knows.
func (s *Server) look(name string, v serve.Verbosity) (serve.Description, error) {
	failed := serve.ErrNoModel
	if s.opt.Library != nil {
		d, err := s.opt.Library.Describe(name, v)
		if err == nil || errors.Is(err, serve.ErrNoModel) {
			return d, err
		}
		failed = err
	}
	all, err := s.pool.List()
	if err != nil {
		return serve.Description{}, err
	}
	for i := range all {
		if serve.SameName(all[i].Name, name) {
			return s.describe(&all[i], v), nil
		}
	}
	return serve.Description{}, failed
}

// modelfileText is a file that makes a model again. Its weights go by their name, since clients have no use for the server's paths.
func modelfileText(name string, f serve.Modelfile) string {
	f.From = cmp.Or(f.From, name)
	return fmt.Sprintf("# A model like this one begins with:\n# FROM %s\n\n%s", name, f)
}

// keyTemplate is where a GGUF has its own template, which is shown as the model's.
const keyTemplate = "tokenizer.chat_template"

func newOllamaShow(d *serve.Description) ollamaShow {
	f := d.Modelfile
	out := ollamaShow{
		License: strings.Join(f.License, "\n"), Modelfile: modelfileText(d.Name, f), Parameters: strings.TrimSuffix(f.ParameterText(), "\n"),
		Template: f.Template, System: f.System, Messages: f.Messages, Details: newOllamaDetails(d), Capabilities: d.Capabilities,
		Modified: d.Created, Meta: map[string]json.RawMessage{},
	}
	for key, v := range d.Meta {
		if raw, err := json.Marshal(v); err == nil { // a number that is none has no word in JSON
			out.Meta[key] = raw
		}
	}
	if own, ok := d.Meta[keyTemplate].(string); ok && out.Template == "" {
		out.Template = own
	}
	delete(out.Meta, keyTemplate)
	for _, t := range d.Tensors {
		out.Tensors = append(out.Tensors, ollamaTensor{t.Name, t.Format, t.Shape})
	}
	return out
}
