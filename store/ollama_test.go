package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ollama/ollama/types/model"
)

func digestFor(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// weightsFor is a GGUF that differs from all others of another name.
func weightsFor(name string) string {
	g := good()
	g.keys = append(g.keys, testKey{"general.name", ggufString, raw(name)}, testKey{"general.file_type", 4, raw(uint32(15))})
	return string(g.bytes())
}

// lay writes a model by ollama's rules: a blob of each content, and a manifest at host/namespace/model/tag.
func lay(t testing.TB, s Store, path string, layers ...[2]string) {
	t.Helper()
	config := `{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"1.1B","file_type":"Q4_0",` +
		`"renderer":"","architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"base_name":"` + path + `"}`
	m := manifest{Version: 2, MediaType: typeManifest, Config: layer{MediaType: typeConfig, Digest: digestFor(config), Size: int64(len(config))}}
	put(t, s.blob(m.Config.Digest), config)
	for _, l := range layers {
		d := digestFor(l[1])
		put(t, s.blob(d), l[1])
		m.Layers = append(m.Layers, layer{MediaType: "application/vnd.ollama.image." + l[0], Digest: d, Size: int64(len(l[1]))})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(s.Root, "manifests", filepath.FromSlash(path)), string(raw))
}

func put(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

const (
	library     = "registry.ollama.ai/library/"
	onePrompt   = "{{ .System }} {{ .Prompt }}"
	oneLicense  = "You may."
	oneParams   = `{"stop":["</s>","<|im_end|>"],"temperature":0.7,"num_gqa":8}`
	oneMessages = `[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]`
)

var unfinished = "sha256-" + strings.Repeat("ab", 32) + "-partial"

// ollamas is a store that ollama has used for a while: models that share files, one with the older name of the template's layer, one from a
// host with a port, one in mixed case, and a pull under way.
func ollamas(t testing.TB) Store {
	s := Store{t.TempDir()}
	lay(t, s, library+"one/latest", [2]string{"model", weightsFor("one")}, [2]string{"template", onePrompt}, [2]string{"system", "Be brief."},
		[2]string{"license", oneLicense}, [2]string{"license", "Others may too."}, [2]string{"params", oneParams}, [2]string{"messages", oneMessages})
	lay(t, s, library+"one/small", [2]string{"model", weightsFor("one")}, [2]string{"license", oneLicense})
	lay(t, s, library+"old/7b", [2]string{"model", weightsFor("old")}, [2]string{"prompt", onePrompt})
	lay(t, s, "localhost:5000/Org/Mixed-Case/Q4_K_M", [2]string{"model", weightsFor("mixed")}, [2]string{"license", oneLicense})
	put(t, filepath.Join(s.Root, "blobs", unfinished), "half a file")
	put(t, filepath.Join(s.Root, "blobs", unfinished+"-0"), `{"N":0,"Offset":0,"Size":100,"Completed":11}`)
	put(t, filepath.Join(s.Root, "blobs", "notes"), "nothing of ours")
	put(t, filepath.Join(s.Root, "manifests", ".DS_Store"), "x")
	old := time.Now().Add(-48 * time.Hour)
	for _, f := range names(t, filepath.Join(s.Root, "blobs")) {
		if err := os.Chtimes(filepath.Join(s.Root, "blobs", f), old, old); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func names(t testing.TB, dir string) (out []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, f := range files {
		out = append(out, f.Name())
	}
	return out
}

// verify checks that all models are whole to the last bit, and gives their names.
func verify(t testing.TB, s Store) (models []string) {
	t.Helper()
	for _, n := range s.manifests() {
		m, _, err := s.stored(n)
		if err != nil {
			t.Errorf("%s: %v", n, err)
		}
		for _, d := range m.digests() {
			f, err := os.Open(s.blob(d))
			if err != nil {
				t.Errorf("%s: %v", n, err)
				continue
			}
			sum := sha256.New()
			if _, err := io.Copy(sum, f); err != nil || "sha256:"+hex.EncodeToString(sum.Sum(nil)) != d {
				t.Errorf("%s: %s has other bytes, %v", n, d, err)
			}
			f.Close()
		}
		models = append(models, n.DisplayShortest())
	}
	slices.Sort(models)
	return models
}

func TestLookup(t *testing.T) {
	s := ollamas(t)
	c, err := s.Lookup("ONE")
	want := Modelfile{From: "one:latest", Template: onePrompt, System: "Be brief.", License: []string{oneLicense, "Others may too."},
		Parameters: map[string]any{"stop": []any{"</s>", "<|im_end|>"}, "temperature": 0.7, "num_gqa": 8.0},
		Messages:   []Message{{"user", "Hi"}, {"assistant", "Hello"}}}
	if err != nil || !reflect.DeepEqual(c.Modelfile, want) {
		t.Errorf("%+v, %v", c.Modelfile, err)
	}
	if c.Name != "one:latest" || c.Path != s.blob(digestFor(weightsFor("one"))) || c.Digest == "" || c.Size < 1000 || c.Err != nil {
		t.Errorf("%+v", c.Entry)
	}
	if c.Config.Quantization != "Q4_0" || c.Config.Parameters != "1.1B" || c.Config.Family != "llama" || c.Config.Format != "gguf" {
		t.Errorf("%+v", c.Config)
	}
	if c, err := s.Lookup("old:7b"); err != nil || c.Modelfile.Template != onePrompt || c.Modelfile.Parameters != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := s.Lookup("localhost:5000/org/mixed-case:q4_k_m"); err != nil || c.Name != "localhost:5000/Org/Mixed-Case:Q4_K_M" {
		t.Errorf("%+v, %v", c.Entry, err)
	}
	put(t, filepath.Join(s.Root, "mine.gguf"), weightsFor("mine"))
	if c, err := s.Lookup("mine"); err != nil || c.Path != filepath.Join(s.Root, "mine.gguf") || c.Modelfile.From != "mine" || c.Digest != "" {
		t.Errorf("%+v, %v", c, err)
	}
	for name, want := range map[string]error{"two": ErrNoModel, "../one": ErrName, "": ErrName} {
		if _, err := s.Lookup(name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A layer of another size or with other bytes, and one that is no JSON or too long, is an error that names the file.
func TestLookupOfADamagedLayer(t *testing.T) {
	for name, c := range map[string]struct {
		kind, content, on string
		want              error
	}{
		"other bytes": {kind: "template", content: "{{ .Prompt }}", on: "{{ .Prompt ]]", want: ErrFormat},
		"cut":         {kind: "system", content: "Be brief.", on: "Be", want: ErrFormat},
		"no JSON":     {kind: "params", content: "{", on: "{", want: ErrFormat},
		"a list":      {kind: "params", content: "[1]", on: "[1]", want: ErrFormat},
		"no messages": {kind: "messages", content: `{"role":"user"}`, on: `{"role":"user"}`, want: ErrFormat},
		"too long":    {kind: "license", content: strings.Repeat("x", maxLayer+1), on: "", want: ErrUnsupported},
		"an adapter":  {kind: "adapter", content: "x", on: "x", want: ErrUnsupported},
	} {
		s := Store{t.TempDir()}
		lay(t, s, library+"m/latest", [2]string{"model", weightsFor("m")}, [2]string{c.kind, c.content})
		put(t, s.blob(digestFor(c.content)), c.on)
		if _, err := s.Lookup("m"); !errors.Is(err, c.want) || !strings.Contains(err.Error(), s.Root) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMagnitude(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 12345: "12K", 6_963_200: "6.96M", 22_000_000: "22M", 1_100_048_384: "1.1B", 30_000_000_000: "30B"} {
		if got := Magnitude(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestNamesOfManifestsReadBack(t *testing.T) {
	s := ollamas(t)
	for _, n := range s.manifests() {
		if got := s.nameOf(s.manifestPath(n)); got != n {
			t.Errorf("%s: %s", n, got)
		}
	}
	if n := s.nameOf(s.manifestPath(model.ParseName("oNe"))); n.DisplayShortest() != "one:latest" {
		t.Error(n)
	}
}
