package serve

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

// own is what a source says of a model beside its weights. The zero value says nothing.
type own struct {
	file     store.Modelfile
	source   string           // of template
	template *text.GoTemplate // nil = the weights' own is used
	system   string           // before conversations without a system message
	messages []Turn           // before a conversation's own
	parameters
}

// variants are the models that share some weights, by name.
type variants struct {
	mu sync.Mutex
	of map[string]variant
}

// variant is a model, and what its source was when it was made.
type variant struct {
	digest    string
	modelfile store.Modelfile
	model     *Model
}

// mostVariants bounds how many are kept; what is gone is made again.
const mostVariants = 256

// As is the model under a source's name: the same engine and weights, with the source's own template, parameters and messages. A template
// that cannot be used leaves a model that cannot chat; parameters of a wrong type are an error.
func (m *Model) As(s *Source) (*Model, error) {
	if m.name == s.Name && silent(&s.Modelfile) {
		return m, nil
	}
	m.variants.mu.Lock()
	defer m.variants.mu.Unlock()
	if v, ok := m.variants.of[s.Name]; ok && v.digest == s.Digest && (v.digest != "" || reflect.DeepEqual(v.modelfile, s.Modelfile)) {
		return v.model, nil
	}
	other, err := m.with(s)
	if err != nil {
		return nil, err
	}
	if len(m.variants.of) >= mostVariants {
		clear(m.variants.of)
	}
	m.variants.of[s.Name] = variant{s.Digest, s.Modelfile, other}
	return other, nil
}

// Modelfile is what the model's source says beside the weights, the zero value where that is nothing. Its maps and lists are not to be written.
func (m *Model) Modelfile() Modelfile { return m.own.file }

// silent reports whether a Modelfile changes nothing.
func silent(f *store.Modelfile) bool {
	return f.Template == "" && f.System == "" && len(f.Parameters) == 0 && len(f.Messages) == 0
}

func (m *Model) with(s *Source) (*Model, error) {
	other := *m
	other.name, other.identity = s.Name, identities.Add(1)
	f := &s.Modelfile
	other.own = own{file: *f, source: f.Template, system: f.System}
	for i, one := range f.Messages {
		if !slices.Contains([]string{"system", "user", "assistant"}, one.Role) {
			return nil, fmt.Errorf("message %d of the model has role %.64q: %w", i, one.Role, store.ErrFormat)
		}
		other.own.messages = append(other.own.messages, Turn{Role: one.Role, Content: one.Content})
	}
	if f.Template != "" {
		var err error
		other.templateErr = nil
		if other.own.template, err = text.ParseGoTemplate(f.Template); err != nil {
			other.templateErr = fmt.Errorf("%w that can be used: %w", ErrNoTemplate, err)
		}
	}
	p, recommended, err := readParameters(f.Parameters)
	if err != nil {
		return nil, err
	}
	other.own.parameters = p
	r := &other.recommended
	r.Temperature, r.TopP, r.MinP = cmp.Or(recommended.Temperature, r.Temperature), cmp.Or(recommended.TopP, r.TopP), cmp.Or(recommended.MinP, r.MinP)
	r.TypicalP, r.TopK = cmp.Or(recommended.TypicalP, r.TypicalP), cmp.Or(recommended.TopK, r.TopK)
	r.Repetition = cmp.Or(recommended.Repetition, r.Repetition)
	return &other, nil
}

// turns are a conversation with what the model's source puts before it: a system message where it has none, and messages unless it goes on
// from an earlier one.
func (m *Model) turns(r *ChatRequest) []Turn {
	var before []Turn
	if m.own.system != "" && !slices.ContainsFunc(r.Messages, func(t Turn) bool { return t.Role == "system" }) {
		before = append(before, Turn{Role: "system", Content: m.own.system})
	}
	if len(r.Before) == 0 {
		before = append(before, m.own.messages...)
	}
	if len(before) == 0 {
		return r.Messages
	}
	return append(before, r.Messages...)
}
