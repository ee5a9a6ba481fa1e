package serve

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
)

var demoDigest = func() string {
	sum := sha256.Sum256(demo.GGUF)
	return fmt.Sprintf("sha256:%x", sum)
}()

// library is one with the demo as blob, made into two models, a damaged file in the store, and one model from the start.
func library(t *testing.T, named ...string) *Library {
	t.Helper()
	opt := LibraryOptions{Store: store.Store{Root: t.TempDir()}, Open: func(name, path string) (*Model, error) {
		c, err := store.Open(path)
		if err != nil {
			return nil, err
		}
		return nil, errors.Join(errors.New("would open "+name), c.Close())
	}, Checkpoint: func(weights string) (*store.Checkpoint, error) {
		if slices.Contains(named, weights) {
			return store.OpenBytes(weights, demo.GGUF)
		}
		return store.Open(weights)
	}}
	for _, n := range named {
		opt.Named = append(opt.Named, Source{Name: n})
	}
	l := NewLibrary(opt)
	if err := l.AddBlob(t.Context(), demoDigest, bytes.NewReader(demo.GGUF)); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]store.Modelfile{
		"tales": {Template: "{{ range .Messages }}{{ .Content }}{{ end }}{{ .Suffix }}", System: "Be brief.", Parameters: map[string]any{"top_k": 3}},
		"tales:second": {Template: `{{ range .Tools }}{{ . }}{{ end }}{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}` +
			`{{ .Content }}{{ end }}`},
		"plain": {},
	} {
		if err := opt.Store.Create(t.Context(), name, f, map[string]string{"m.gguf": demoDigest}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(opt.Store.Root, "cut.gguf"), demo.GGUF[:5000], 0o644); err != nil {
		t.Fatal(err)
	}
	return l
}

func listed(t *testing.T, l *Library) (out []string) {
	t.Helper()
	all, err := l.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		out = append(out, s.Name)
	}
	return out
}

func TestLibrary(t *testing.T) {
	l := library(t, "demo", "plain:latest")
	if got := strings.Join(listed(t, l), " "); got != "demo plain:latest tales:latest tales:second" {
		t.Error(got)
	}
	if s, err := l.Find(""); err != nil || s.Name != "demo" {
		t.Error(s.Name, err)
	}
	a, err := l.Find("TALES")
	if err != nil || a.Name != "tales:latest" || a.Digest == "" || a.Modelfile.System != "Be brief." || a.Created.IsZero() || a.Size < int64(len(demo.GGUF)) {
		t.Errorf("%+v, %v", a, err)
	}
	if b, err := l.Find("tales:second"); err != nil || b.Weights != a.Weights {
		t.Errorf("two names of the same weights: %q and %q, %v", a.Weights, b.Weights, err)
	}
	if _, err := a.Open(); err == nil || !strings.Contains(err.Error(), "would open tales:latest") {
		t.Error(err)
	}
	for _, name := range []string{"nobody", "../demo", "/etc/passwd", strings.Repeat("x", 1<<16)} {
		if _, err := l.Find(name); !errors.Is(err, ErrNoModel) || len(err.Error()) > 1000 {
			t.Errorf("%.100q: %v", name, err)
		}
	}
	if s, err := l.Find("cut"); err != nil || s.Name != "cut" {
		t.Errorf("loading it says what is wrong: %v", err)
	}
	if s, err := library(t).Find(""); err != nil || s.Name != "plain:latest" {
		t.Errorf("the first of the store is the default where nothing is named: %s, %v", s.Name, err)
	}
	if _, err := NewLibrary(LibraryOptions{Store: store.Store{Root: t.TempDir()}}).Find(""); !errors.Is(err, ErrNoModel) {
		t.Error(err)
	}
}

func TestDescribe(t *testing.T) {
	l := library(t, "demo")
	for name, capabilities := range map[string]string{
		"demo": "completion", "tales": "completion insert", "tales:second": "completion tools thinking", "plain": "completion",
	} {
		for range 2 {
			d, err := l.Describe(name, Brief)
			if err != nil || d.Family != "qwen3moe" || d.Parameters != 6963200 || d.Format != "gguf" || d.Context != 2048 || d.Embedding != 256 {
				t.Errorf("%s: %+v, %v", name, d, err)
			}
			if got := strings.Join(d.Capabilities, " "); got != capabilities || d.Quantization != "Q8_0" || d.Tensors != nil {
				t.Errorf("%s: %s, %s, %d tensors", name, got, d.Quantization, len(d.Tensors))
			}
			if tokens, has := d.Meta["tokenizer.ggml.tokens"]; !has || tokens != nil || d.Meta["general.parameter_count"] != int64(6963200) {
				t.Errorf("%s: %v", name, d.Meta)
			}
		}
	}
	d, err := l.Describe("tales", Verbose)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := l.Describe("plain", Brief); err != nil || !strings.Contains(plain.Template, "messages") || !strings.Contains(d.Template, "{{ .Content }}") {
		t.Errorf("templates %q and %q, %v", plain.Template, d.Template, err)
	}
	if tokens, _ := d.Meta["tokenizer.ggml.tokens"].([]string); len(tokens) != 4096 || len(d.Tensors) < 43 || d.Name != "tales:latest" {
		t.Errorf("%d tokens, %d tensors", len(tokens), len(d.Tensors))
	}
	if !slices.ContainsFunc(d.Tensors, func(d TensorDescription) bool { return d.Format == "Q8_0" && len(d.Shape) > 1 }) {
		t.Errorf("%+v", d.Tensors)
	}
	if _, err := l.Describe("cut", Brief); !errors.Is(err, ErrLoad) || !strings.Contains(err.Error(), "cut.gguf") {
		t.Error(err)
	}
	if _, err := l.Describe("nobody", Brief); !errors.Is(err, ErrNoModel) {
		t.Error(err)
	}
}

// A file that the user replaces is looked at again.
func TestDescribeSeesANewFile(t *testing.T) {
	l := library(t)
	cut := filepath.Join(l.opt.Store.Root, "cut.gguf")
	if got := listed(t, l); slices.Contains(got, "cut") {
		t.Error(got)
	}
	if err := os.WriteFile(cut, demo.GGUF, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, l); !slices.Contains(got, "cut") {
		t.Error(got)
	}
	if d, err := l.Describe("cut", Brief); err != nil || d.Family != "qwen3moe" {
		t.Error(d, err)
	}
	if err := os.Remove(cut); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, l); slices.Contains(got, "cut") || len(l.glances) != 1 {
		t.Error(got, len(l.glances))
	}
}

func TestLibraryChanges(t *testing.T) {
	l := library(t, "demo")
	if err := l.Copy(t.Context(), "tales", "other"); err != nil {
		t.Error(err)
	}
	if err := l.Create(t.Context(), "child", store.Modelfile{From: "other", System: "x"}, nil, nil); err != nil {
		t.Error(err)
	}
	for name, parent := range map[string]string{"child": "other:latest", "other": "", "demo": ""} {
		if d, err := l.Describe(name, Brief); err != nil || d.Parent != parent {
			t.Errorf("%s is of %q, %v", name, d.Parent, err)
		}
	}
	if err := l.Remove(t.Context(), "tales:second"); err != nil {
		t.Error(err)
	}
	if got := strings.Join(listed(t, l), " "); got != "demo child:latest other:latest plain:latest tales:latest" {
		t.Error(got)
	}
	if has, err := l.HasBlob(demoDigest); !has || err != nil {
		t.Error(has, err)
	}
	file := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(file, demo.GGUF, 0o644); err != nil {
		t.Fatal(err)
	}
	hasNone := func() error { _, err := l.HasBlob("sha256:../../x"); return err }
	for name, c := range map[string]struct {
		err   error
		param string // "" = ErrNoModel
	}{
		"a path of the server":       {l.Create(t.Context(), "x", store.Modelfile{From: file}, nil, nil), "from"},
		"no name":                    {l.Create(t.Context(), "../x", store.Modelfile{From: "tales"}, nil, nil), "model"},
		"no model to make it of":     {l.Create(t.Context(), "x", store.Modelfile{From: "nobody"}, nil, nil), ""},
		"a name from the start":      {l.Create(t.Context(), "demo", store.Modelfile{From: "tales"}, nil, nil), "model"},
		"an unknown parameter":       {l.Create(t.Context(), "x", store.Modelfile{From: "tales", Parameters: map[string]any{"warmth": 1}}, nil, nil), "model"},
		"copy of nothing":            {l.Copy(t.Context(), "nobody", "x"), ""},
		"copy to no name":            {l.Copy(t.Context(), "tales", "a b"), "destination"},
		"copy onto what is named":    {l.Copy(t.Context(), "tales", "demo"), "destination"},
		"copy onto the user's file":  {l.Copy(t.Context(), "tales", "cut"), "destination"},
		"removal of nothing":         {l.Remove(t.Context(), "nobody"), ""},
		"removal of what is named":   {l.Remove(t.Context(), "demo"), "model"},
		"removal of the user's file": {l.Remove(t.Context(), "cut"), "model"},
		"other bytes":                {l.AddBlob(t.Context(), "sha256:"+strings.Repeat("0", 64), strings.NewReader("x")), "digest"},
		"no digest":                  {hasNone(), "digest"},
	} {
		if c.param == "" && !errors.Is(c.err, ErrNoModel) || param(c.err) != c.param {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

// What a registry got wrong is no fault of the request, but for what cannot be pulled at all.
func TestRefusalOfRemoteErrors(t *testing.T) {
	for sentinel, remote := range map[error]bool{store.ErrDigest: true, store.ErrFormat: true, store.ErrRemote: true, store.ErrUnsupported: false} {
		err := refusal("model", &store.RemoteError{Host: "h", Err: sentinel})
		if _, ours := errors.AsType[*RequestError](err); ours == remote || !errors.Is(err, sentinel) {
			t.Errorf("%v: %v", sentinel, err)
		}
	}
}

// FuzzTemplateCapabilities checks that no Go template is more than one that says nothing.
func FuzzTemplateCapabilities(f *testing.F) {
	f.Add(`{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}{{ .Suffix }}{{ .Tools }}`)
	f.Add(`{{ define "a" }}{{ end }}{{ template "a" . }}{{ range $i, $m := .Messages }}{{ $m.Thinking }}{{ break }}{{ else }}{{ end }}`)
	f.Fuzz(func(t *testing.T, source string) { templateCapabilities(source) })
}
