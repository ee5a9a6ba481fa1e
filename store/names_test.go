package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var hex64 = strings.Repeat("0123456789abcdef", 4)

func manifestOf(layers string) string {
	return `{"schemaVersion":2,"config":{"digest":"sha256:` + hex64 + `","size":100},"layers":[` + layers + `]}`
}

func modelLayer(digest string, size int64) string {
	return fmt.Sprintf(`{"mediaType":"application/vnd.ollama.image.model","digest":%q,"size":%d}`, digest, size)
}

func testStore(t *testing.T) Store {
	const library = "manifests/registry.ollama.ai/library/"
	return Store{dir(t, map[string]string{
		"blobs/sha256-" + hex64:            "12345",
		library + "qwen3/8b":               manifestOf(modelLayer("sha256:"+hex64, 5) + `,{"mediaType":"application/vnd.ollama.image.license","digest":"sha256-` + hex64 + `","size":7}`),
		library + "Mixed/latest":           manifestOf(modelLayer("sha256:"+hex64, 5)),
		"manifests/host.x/Org/Repo/Q4_K_M": manifestOf(modelLayer("sha256:"+hex64, 5)),
		library + ".DS_Store":              "x",
		library + "qwen3/.tmp":             "x",
		library + "short/latest":           manifestOf(modelLayer("sha256:"+hex64, 6)),
		library + "path/latest":            manifestOf(modelLayer("sha256:../../../x", 5)),
		library + "gone/latest":            manifestOf(modelLayer("sha256:"+strings.Repeat("f", 64), 5)),
		library + "text/latest":            "hello",
		library + "two/latest":             manifestOf(modelLayer("sha256:"+hex64, 5) + "," + modelLayer("sha256:"+hex64, 5)),
		library + "tensors/latest":         manifestOf(`{"mediaType":"application/vnd.ollama.image.tensor","digest":"sha256:` + hex64 + `","size":5}`),
		"plain.gguf":                       "GGUF",
		"hf/config.json":                   "{}",
		"hf/model-00001-of-2.safetensors":  "123",
		"hf/model-00002-of-2.safetensors":  "4567",
		"no model/config.json":             "{}",
		"notes.txt":                        "x",
	})}
}

func TestFind(t *testing.T) {
	s := testStore(t)
	for name, want := range map[string]string{
		"qwen3:8b": "blobs/sha256-" + hex64, "library/qwen3:8b": "blobs/sha256-" + hex64, "QWEN3:8B": "blobs/sha256-" + hex64,
		"https://registry.ollama.ai/library/qwen3:8b": "blobs/sha256-" + hex64,
		"mixed": "blobs/sha256-" + hex64, "host.x/org/repo:q4_k_m": "blobs/sha256-" + hex64,
		"plain": "plain.gguf", "plain:latest": "plain.gguf", "plain.gguf": "plain.gguf", "hf": "hf",
	} {
		got, err := s.Find(name)
		if err != nil || got != filepath.Join(s.Root, want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, want := range map[string]error{
		"qwen3": ErrNoModel, "plain:8b": ErrNoModel, "other/plain": ErrNoModel, "blobs": ErrNoModel, "notes.txt": ErrNoModel,
		"short": ErrFormat, "path": ErrFormat, "gone": ErrFormat, "text": ErrFormat, "two": ErrUnsupported, "tensors": ErrUnsupported,
		"": ErrName, " ": ErrName, "..": ErrName, "../x": ErrName, "a/../../x": ErrName, "/etc/passwd": ErrName, "m:t:u": ErrName, "a\\b": ErrName,
		"a\x00": ErrName, "ａ": ErrName, "x@sha256:" + hex64: ErrName, strings.Repeat("x", 1<<16): ErrName, "no model": ErrName,
	} {
		if got, err := s.Find(name); got != "" || !errors.Is(err, want) || len(err.Error()) > 1000 {
			t.Errorf("%.100q: %q, %v, want %v", name, got, err, want)
		}
	}
	if _, err := (Store{"does-not-exist"}).Find("qwen3"); !errors.Is(err, ErrNoModel) {
		t.Error(err)
	}
}

func TestResolve(t *testing.T) {
	s := testStore(t)
	t.Chdir(dir(t, map[string]string{"m.gguf": "GGUF", "qwen3/x": "", "local/config.json": "{}", "sub/blob": "GGUF", "plain": "a file of that name"}))
	abs, err := filepath.Abs("m.gguf")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"m.gguf": "m.gguf", "./m.gguf": "./m.gguf", abs: abs, "local": "local", "sub/blob": "sub/blob",
		"plain": filepath.Join(s.Root, "plain.gguf"), "hf": filepath.Join(s.Root, "hf"),
	} {
		if got, err := s.Resolve(name); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, want := range map[string]error{"qwen3": ErrNoModel, "./missing.gguf": ErrNoModel, "missing.gguf": ErrNoModel, "": ErrNoModel} {
		if got, err := s.Resolve(name); got != "" || !errors.Is(err, want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := s.Find("m.gguf"); !errors.Is(err, ErrNoModel) {
		t.Errorf("Find left the store: %v", err)
	}
}

func TestList(t *testing.T) {
	s := testStore(t)
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		if e.Err != nil {
			e.Name += "!"
		} else if found, err := s.Find(e.Name); err != nil || found != e.Path || e.Modified.IsZero() {
			t.Errorf("%+v: %q, %v", e, found, err)
		}
		names = append(names, e.Name)
		if e.Name == "qwen3:8b" && (e.Size != 112 || !digests.MatchString(e.Digest)) || e.Name == "hf" && (e.Size != 7 || e.Digest != "") {
			t.Errorf("%+v", e)
		}
	}
	want := "Mixed:latest gone:latest! hf host.x/Org/Repo:Q4_K_M path:latest! plain qwen3:8b short:latest! tensors:latest! text:latest! two:latest!"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if list, err := (Store{"does-not-exist"}).List(); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := (Store{filepath.Join(s.Root, "plain.gguf")}).List(); err == nil {
		t.Error("a file is no store")
	}
}

func TestManifestHostile(t *testing.T) {
	layer := func(digest, size string) string { return manifestOf(`{"digest":"` + digest + `","size":` + size + `}`) }
	for name, text := range map[string]string{
		"empty": "", "array": "[]", "version": `{"schemaVersion":1}`,
		"no digest": manifestOf(`{"size":1}`), "short digest": layer("sha256:abc", "1"), "upper case": layer("sha256:"+strings.ToUpper(hex64), "1"),
		"path": layer("../../etc/x", "1"), "line behind": layer("sha256:"+hex64+`\n`, "1"), "negative": layer("sha256:"+hex64, "-1"),
		"huge": layer("sha256:"+hex64, "9223372036854775807"), "fraction": layer("sha256:"+hex64, "1.5"), "over int64": layer("sha256:"+hex64, "1e30"),
		"sum":           manifestOf(modelLayer("sha256:"+hex64, 1<<61) + "," + modelLayer("sha256:"+hex64, 1<<62)),
		"config digest": `{"schemaVersion":2,"config":{"digest":"../x"}}`, "config size": `{"schemaVersion":2,"config":{"size":-1}}`,
	} {
		if _, err := parseManifest([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s := Store{t.TempDir()}
	for _, layers := range []string{"null", "[]"} {
		m, err := parseManifest([]byte(`{"schemaVersion":2,"layers":` + layers + `}`))
		if err != nil {
			t.Error(err)
		}
		if _, err := s.weights("m", m); !errors.Is(err, ErrUnsupported) {
			t.Errorf("layers %s: %v", layers, err)
		}
	}
	big := filepath.Join(s.Root, "big")
	if err := os.WriteFile(big, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, 1<<30); err != nil {
		t.Fatal(err)
	}
	if _, err := s.readManifest(big); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(manifestOf(modelLayer("sha256:"+hex64, 5))))
	f.Add([]byte(manifestOf(modelLayer("sha256:../../x", -5))))
	f.Add([]byte(`{"schemaVersion":2,"layers":null}`))
	s := Store{f.TempDir()}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseManifest(raw)
		if err != nil {
			return
		}
		if m.size() < 0 {
			t.Fatalf("size %d", m.size())
		}
		for _, l := range m.Layers {
			if filepath.Dir(s.blob(l.Digest)) != filepath.Join(s.Root, "blobs") {
				t.Fatalf("digest %q leaves the store", l.Digest)
			}
		}
	})
}
