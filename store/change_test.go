package store

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRemoveKeepsWhatOthersNeed(t *testing.T) {
	s := ollamas(t)
	before := names(t, filepath.Join(s.Root, "blobs"))
	r, err := s.Remove(t.Context(), "ONE")
	if err != nil || r.Kept != nil {
		t.Fatal(r, err)
	}
	if got := strings.Join(verify(t, s), " "); got != "localhost:5000/Org/Mixed-Case:Q4_K_M old:7b one:small" {
		t.Error(got)
	}
	gone := []string{"Be brief.", "Others may too.", oneParams, oneMessages}
	want := int64(0)
	for _, c := range gone {
		want += int64(len(c))
		if has, err := s.HasBlob(digestFor(c)); has || err != nil {
			t.Errorf("%s is still there, %v", c, err)
		}
	}
	after := names(t, filepath.Join(s.Root, "blobs"))
	if len(before)-len(after) != len(gone)+1 || r.Bytes <= want { // and the config
		t.Errorf("%d files before, %d after, %d bytes gone of %d and a config", len(before), len(after), r.Bytes, want)
	}
	for _, keep := range []string{unfinished, unfinished + "-0", "notes"} {
		if !slices.Contains(after, keep) {
			t.Errorf("%s is gone", keep)
		}
	}
	if _, err := s.Remove(t.Context(), "localhost:5000/org/mixed-case:q4_k_m"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(s.Root, "manifests", "localhost:5000")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty folder stays: %v", err)
	}
	for name, want := range map[string]error{"one": ErrNoModel, "../x": ErrName, "": ErrName} {
		if _, err := s.Remove(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRemoveOfAModelThatIsOpen(t *testing.T) {
	s := ollamas(t)
	path, err := s.Find("old:7b")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := s.Remove(t.Context(), "old:7b")
	if err != nil || !errors.Is(r.Kept, ErrInUse) {
		t.Error(r, err)
	}
	if _, err := s.Find("old:7b"); !errors.Is(err, ErrNoModel) {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if r := s.Sweep(t.Context()); r.Kept != nil || r.Bytes != int64(len(weightsFor("old"))) {
		t.Error(r)
	}
}

// While another manifest cannot be read, nobody knows what it needs. A damaged model itself can go.
func TestRemoveBesideADamagedModel(t *testing.T) {
	s := ollamas(t)
	broken := filepath.Join(s.Root, "manifests", filepath.FromSlash(library+"broken/latest"))
	put(t, broken, "{")
	before := names(t, filepath.Join(s.Root, "blobs"))
	r, err := s.Remove(t.Context(), "one")
	if err != nil || !errors.Is(r.Kept, ErrFormat) || !strings.Contains(r.Kept.Error(), broken) || r.Bytes != 0 {
		t.Error(r, err)
	}
	if after := names(t, filepath.Join(s.Root, "blobs")); !slices.Equal(after, before) {
		t.Errorf("%v went to %v", before, after)
	}
	if r, err := s.Remove(t.Context(), "broken"); err != nil || r.Kept != nil || r.Bytes == 0 {
		t.Errorf("%+v, %v: what was left should go now", r, err)
	}
	verify(t, s)
}

// An addition may rely on any file, and it may take hours.
func TestRemoveDoesNotWaitForAnAddition(t *testing.T) {
	s := ollamas(t)
	a, err := s.add(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Remove(t.Context(), "old:7b")
	if err != nil || !errors.Is(r.Kept, ErrInUse) || r.Bytes != 0 {
		t.Error(r, err)
	}
	a.Close()
	if r := s.Sweep(t.Context()); r.Kept != nil || r.Bytes == 0 {
		t.Error(r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Remove(ctx, "one"); err != nil {
		t.Errorf("the model is gone all the same: %v", err)
	}
}

func TestSweep(t *testing.T) {
	s := ollamas(t)
	now := time.Now()
	blob := "sha256-" + strings.Repeat("1", 64)
	for name, c := range map[string]struct {
		age  time.Duration
		gone bool
	}{
		"blobs/" + blob: {2 * time.Hour, true}, "blobs/sha256-" + strings.Repeat("2", 64): {50 * time.Minute, false},
		"blobs/" + prefixTemp + "1": {2 * time.Hour, true}, "blobs/" + prefixTemp + "2": {time.Minute, false},
		"manifests/" + prefixTemp + "3": {2 * time.Hour, true},
		"blobs/" + blob + suffixPartial: {48 * time.Hour, true}, "blobs/" + blob + suffixPartial + ".map": {48 * time.Hour, true},
		"blobs/sha256-" + strings.Repeat("3", 64) + suffixPartial:          {2 * time.Hour, false},
		"blobs/sha256-" + strings.Repeat("4", 64) + suffixPartial:          {48 * time.Hour, false}, // what is beside it is younger
		"blobs/sha256-" + strings.Repeat("4", 64) + suffixPartial + ".map": {23 * time.Hour, false},
		"blobs/" + blob + "-partial":                                       {1000 * time.Hour, false}, "blobs/" + blob + "-partial-3": {1000 * time.Hour, false},
		"blobs/" + blob + "-winnowed": {1000 * time.Hour, false}, "blobs/sha256-short": {1000 * time.Hour, false},
	} {
		path := filepath.Join(s.Root, filepath.FromSlash(name))
		put(t, path, "x")
		if err := os.Chtimes(path, now, now.Add(-c.age)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) != c.gone {
				t.Errorf("%s: gone should be %v, %v", name, c.gone, err)
			}
		}()
	}
	if r := s.Sweep(t.Context()); r.Kept != nil || r.Bytes != 5 {
		t.Errorf("%+v", r)
	}
	if got := verify(t, s); len(got) != 4 {
		t.Errorf("%v", got)
	}
}

// Manifests behind a linked folder are found, so that their files stay.
func TestSweepFollowsLinksOfFolders(t *testing.T) {
	s := ollamas(t)
	host, away := filepath.Join(s.Root, "manifests", "registry.ollama.ai"), filepath.Join(t.TempDir(), "away")
	if err := os.Rename(host, away); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(away, host); err != nil {
		t.Skip("no links here: ", err)
	}
	if r := s.Sweep(t.Context()); r.Kept != nil || r.Bytes != 0 {
		t.Errorf("%+v", r)
	}
	if got := verify(t, s); len(got) != 4 {
		t.Errorf("%v", got)
	}
}

func TestCopy(t *testing.T) {
	s := ollamas(t)
	for _, to := range []string{"two", "host:1/a/b:c", "OLD:7B", "one"} {
		if err := s.Copy(t.Context(), "One", to); err != nil {
			t.Errorf("%s: %v", to, err)
		}
		a, err := s.Lookup("one")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := s.Lookup(to); err != nil || a.Digest != b.Digest || a.Path != b.Path {
			t.Errorf("%s: %+v, %v", to, b.Entry, err)
		}
	}
	if has, err := s.HasBlob(digestFor(weightsFor("old"))); has || err != nil {
		t.Errorf("what only the replaced model named is there, %v", err)
	}
	put(t, filepath.Join(s.Root, "mine.gguf"), weightsFor("mine"))
	put(t, filepath.Join(s.Root, "manifests", filepath.FromSlash(library+"broken/latest")), "{")
	for names, want := range map[[2]string]error{
		{"nobody", "x"}: ErrNoModel, {"", "x"}: ErrName, {"one", "a b"}: ErrName, {"one", "../x"}: ErrName, {"one", "mine"}: ErrExists,
		{"mine", "x"}: ErrUnsupported, {"broken", "x"}: ErrFormat,
	} {
		if err := s.Copy(t.Context(), names[0], names[1]); !errors.Is(err, want) {
			t.Errorf("%v: %v, want %v", names, err, want)
		}
	}
	if _, err := s.Remove(t.Context(), "mine"); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "mine.gguf") {
		t.Error(err)
	}
	if _, err := s.Remove(t.Context(), "broken"); err != nil {
		t.Error(err)
	}
	if got := strings.Join(verify(t, s), " "); got != "host:1/a/b:c localhost:5000/Org/Mixed-Case:Q4_K_M old:7b one:latest one:small two:latest" {
		t.Error(got)
	}
}

func TestCreate(t *testing.T) {
	s := ollamas(t)
	file := filepath.Join(t.TempDir(), "new.gguf")
	put(t, file, weightsFor("new"))
	f := Modelfile{From: file, Template: "{{ .Prompt }}!", System: "Be long.", License: []string{"L"}, Messages: []Message{{"user", "Hi"}},
		Parameters: map[string]any{"num_ctx": 512, "stop": "</s>", "use_mmap": true}}
	var said []string
	see := func(p Progress) { said = append(said, p.Status) }
	if err := s.Create(t.Context(), "new", f, nil, see); err != nil {
		t.Fatal(err)
	}
	c, err := s.Lookup("new")
	want := f
	want.From, want.Parameters = "new:latest", map[string]any{"num_ctx": 512.0, "stop": []any{"</s>"}, "use_mmap": true}
	if err != nil || !reflect.DeepEqual(c.Modelfile, want) {
		t.Errorf("%+v, %v", c.Modelfile, err)
	}
	if c.Config.Family != "llama" || c.Config.Parameters != "70" || c.Config.Quantization != "Q4_K_M" || !slices.Equal(c.Config.Families, []string{"llama"}) {
		t.Errorf("%+v", c.Config)
	}
	if first, last := said[0], said[len(said)-2:]; first != "parsing GGUF" || !slices.Equal(last, []string{"writing manifest", "success"}) ||
		!slices.Contains(said, "copying new.gguf") || !slices.Contains(said, "creating new layer "+digestFor("L")) {
		t.Errorf("%q", said)
	}
	if raw, err := os.ReadFile(c.Path); err != nil || string(raw) != weightsFor("new") {
		t.Error(err)
	}
	verify(t, s)
}

func TestCreateInherits(t *testing.T) {
	s := ollamas(t)
	f := Modelfile{From: "ONE", System: "Be long.", Parameters: map[string]any{"temperature": 0.1, "top_k": 3.0}, License: []string{oneLicense, "More."}}
	var said []string
	if err := s.Create(t.Context(), "child", f, nil, func(p Progress) { said = append(said, p.Status) }); err != nil {
		t.Fatal(err)
	}
	c, err := s.Lookup("child")
	if err != nil {
		t.Fatal(err)
	}
	want := Modelfile{From: "child:latest", Template: onePrompt, System: "Be long.", License: []string{oneLicense, "Others may too.", "More."},
		Parameters: map[string]any{"stop": []any{"</s>", "<|im_end|>"}, "temperature": 0.1, "num_gqa": 8.0, "top_k": 3.0},
		Messages:   []Message{{"user", "Hi"}, {"assistant", "Hello"}}}
	if !reflect.DeepEqual(c.Modelfile, want) {
		t.Errorf("%+v", c.Modelfile)
	}
	m, _, err := s.stored(s.nameOf(filepath.Join(s.Root, "manifests", filepath.FromSlash(library+"child/latest"))))
	if err != nil || m.Layers[0].From != "one:latest" {
		t.Errorf("%+v, %v", m, err)
	}
	var config map[string]any
	if err := s.readJSON(m.Config, &config); err != nil || config["base_name"] != library+"one/latest" || config["file_type"] != "Q4_0" {
		t.Errorf("%v, %v", config, err)
	}
	if !slices.Contains(said, "reading model metadata") || !slices.Contains(said, "using existing layer "+digestFor(weightsFor("one"))) {
		t.Errorf("%q", said)
	}
	// The older kind of template gives way to a new one, and a model can be made anew of itself.
	f = Modelfile{From: "old:7b", Template: "new"}
	for range 2 {
		if err := s.Create(t.Context(), "old:7b", f, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := s.Lookup("old:7b"); err != nil || c.Modelfile.Template != "new" {
		t.Errorf("%+v, %v", c, err)
	}
	verify(t, s)
}

func TestCreateOfABlob(t *testing.T) {
	s := Store{t.TempDir()}
	content := weightsFor("sent")
	digest := digestFor(content)
	if has, err := s.HasBlob(digest); has || err != nil {
		t.Error(has, err)
	}
	if err := s.AddBlob(t.Context(), digest, strings.NewReader(content[1:])); !errors.Is(err, ErrDigest) {
		t.Error(err)
	}
	if left := names(t, filepath.Join(s.Root, "blobs")); len(left) != 0 {
		t.Errorf("%v", left)
	}
	for range 2 {
		if err := s.AddBlob(t.Context(), strings.Replace(digest, ":", "-", 1), strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	if has, err := s.HasBlob(digest); !has || err != nil {
		t.Error(has, err)
	}
	for name, f := range map[string]Modelfile{"a": {}, "b": {From: "m.gguf"}, "c": {From: digest}} {
		if err := s.Create(t.Context(), name, f, map[string]string{"m.gguf": digest}, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The path of a blob of the store, as show --modelfile prints it, is no new file.
	if err := s.Create(t.Context(), "d", Modelfile{From: s.blob(digest)}, nil, nil); err != nil {
		t.Error(err)
	}
	if got := verify(t, s); len(got) != 4 {
		t.Errorf("%v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.AddBlob(ctx, digestFor("x"), strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestCreateRefuses(t *testing.T) {
	s := ollamas(t)
	put(t, filepath.Join(s.Root, "mine.gguf"), weightsFor("mine"))
	put(t, filepath.Join(s.Root, "hf", "config.json"), "{}")
	other := dir(t, map[string]string{"cut.gguf": weightsFor("cut")[:300], "empty.gguf": "", "hf/config.json": "{}", "hf/model.safetensors": "x", "text": "hello"})
	g := good()
	g.keys = append(g.keys, testKey{"general.type", ggufString, raw("adapter")})
	put(t, filepath.Join(other, "adapter.gguf"), string(g.bytes()))
	g = good()
	g.keys = append(g.keys, testKey{"split.count", 2, raw(uint16(2))}, testKey{"split.no", 2, raw(uint16(0))}, testKey{"split.tensors.count", 5, raw(int32(4))})
	put(t, filepath.Join(other, "split-00001-of-00002.gguf"), string(g.bytes()))
	before, models := names(t, filepath.Join(s.Root, "blobs")), verify(t, s)
	at := func(name string) string { return filepath.Join(other, name) }
	digest := digestFor(weightsFor("one"))
	for _, c := range []struct {
		name  string
		f     Modelfile
		files map[string]string
		want  error
		says  string
	}{
		{name: "../x", f: Modelfile{From: "one"}, want: ErrName},
		{name: "mine", f: Modelfile{From: "one"}, want: ErrExists, says: "mine.gguf"},
		{name: "x", f: Modelfile{From: "nobody"}, want: ErrNoModel, says: "nobody"},
		{name: "x", f: Modelfile{}, want: ErrName},
		{name: "x", f: Modelfile{From: "../../etc/passwd"}, want: ErrName},
		{name: "x", f: Modelfile{From: "hf"}, want: ErrUnsupported, says: "served where they are"},
		{name: "x", f: Modelfile{From: at("hf")}, want: ErrUnsupported, says: "served where they are"},
		{name: "x", f: Modelfile{From: at("hf/model.safetensors")}, want: ErrUnsupported, says: "served where they are"},
		{name: "x", f: Modelfile{From: at("split-00001-of-00002.gguf")}, want: ErrUnsupported, says: "one of 2 files"},
		{name: "x", f: Modelfile{From: at("adapter.gguf")}, want: ErrUnsupported, says: "adapter"},
		{name: "x", f: Modelfile{From: at("cut.gguf")}, want: ErrFormat, says: "cut.gguf"},
		{name: "x", f: Modelfile{From: at("empty.gguf")}, want: ErrFormat},
		{name: "x", f: Modelfile{From: at("text")}, want: ErrFormat},
		{name: "x", f: Modelfile{From: at("missing.gguf")}, want: fs.ErrNotExist, says: "missing.gguf"},
		{name: "x", f: Modelfile{From: "one", Template: "{{ .Prompt "}, want: ErrFormat, says: "TEMPLATE"},
		{name: "x", f: Modelfile{From: "one", Parameters: map[string]any{"warmth": 1.0}}, want: ErrUnsupported, says: "warmth"},
		{name: "x", f: Modelfile{From: "one", Parameters: map[string]any{"temperature": "hot"}}, want: ErrFormat, says: "temperature"},
		{name: "x", f: Modelfile{From: "one", Messages: []Message{{"nobody", "x"}}}, want: ErrFormat, says: "nobody"},
		{name: "x", f: Modelfile{From: "one", System: strings.Repeat("x", maxLayer+1)}, want: ErrUnsupported},
		{name: "x", f: Modelfile{From: "one", License: make([]string, maxLicenses+1)}, want: ErrFormat},
		{name: "x", f: Modelfile{From: "one"}, files: map[string]string{"m.gguf": digest}, want: ErrUnsupported},
		{name: "x", files: map[string]string{"m.gguf": "sha256:../../x"}, want: ErrDigest},
		{name: "x", files: map[string]string{"m.gguf": digestFor("nobody sent it")}, want: ErrNoModel},
		{name: "x", files: map[string]string{"m.gguf": digest, "n.gguf": digest}, want: ErrUnsupported},
		{name: "x", files: map[string]string{"model.safetensors": digest}, want: ErrUnsupported, says: "served where they are"},
		{name: "x", files: map[string]string{"m.gguf": digestFor(oneLicense)}, want: ErrFormat},
	} {
		err := s.Create(t.Context(), c.name, c.f, c.files, nil)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 1000 {
			t.Errorf("%s of %+.200v: %v, want %v and %q", c.name, c.f, err, c.want, c.says)
		}
	}
	if after := names(t, filepath.Join(s.Root, "blobs")); !slices.Equal(after, before) {
		t.Errorf("left behind: %v, were %v", after, before)
	}
	if after := verify(t, s); !slices.Equal(after, models) {
		t.Errorf("%v, were %v", after, models)
	}
}

// A request that ends while a file is copied leaves nothing behind.
func TestCreateEndsWithItsContext(t *testing.T) {
	s := Store{t.TempDir()}
	file := filepath.Join(t.TempDir(), "new.gguf")
	put(t, file, weightsFor("new"))
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Create(ctx, "new", Modelfile{From: file}, nil, func(p Progress) {
		if p.Status == "parsing GGUF" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(names(t, filepath.Join(s.Root, "blobs"))) != 0 || len(verify(t, s)) != 0 {
		t.Error(err, names(t, filepath.Join(s.Root, "blobs")))
	}
}

func TestInheritedNullsAreNoTrouble(t *testing.T) {
	s := Store{t.TempDir()}
	lay(t, s, library+"m/latest", [2]string{"model", weightsFor("m")}, [2]string{"params", "null"}, [2]string{"messages", "null"})
	m, _, err := s.stored(s.nameOf(filepath.Join(s.Root, "manifests", filepath.FromSlash(library+"m/latest"))))
	if err != nil {
		t.Fatal(err)
	}
	put(t, s.blob(digestFor("null")), "null")
	m.Config.Digest, m.Config.Size = digestFor("null"), 4
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(s.Root, "manifests", filepath.FromSlash(library+"m/latest")), string(raw))
	if err := s.Create(t.Context(), "n", Modelfile{From: "m", Parameters: map[string]any{"top_k": 1.0}}, nil, nil); err != nil {
		t.Error(err)
	}
	verify(t, s)
}
