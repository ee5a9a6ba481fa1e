package store

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeHub is Hugging Face's hub with one repository, which keeps large files at another host.
type fakeHub struct {
	*httptest.Server
	cdn   *registry
	files map[string][]byte
	large map[string]bool
	token string
	tree  func(w http.ResponseWriter) bool // nil, or an answer of a test's own
	pages int

	mu     sync.Mutex
	served int // small files
}

func newHub(t *testing.T, files map[string][]byte) *fakeHub {
	h := &fakeHub{cdn: newRegistry(t), files: files, large: map[string]bool{}, pages: 1}
	for name := range files {
		h.large[name] = strings.HasSuffix(name, ".gguf") || strings.HasSuffix(name, ".safetensors") || name == "tokenizer.json"
	}
	h.Server = httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(h.Close)
	h.cdn.odd = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			t.Error("the storage is shown the token")
		}
		return false
	}
	return h
}

func (h *fakeHub) serve(w http.ResponseWriter, r *http.Request) {
	if h.token != "" && r.Header.Get("Authorization") != "Bearer "+h.token {
		http.Error(w, `{"error":"Access to model Org/Repo is restricted"}`, http.StatusUnauthorized)
		return
	}
	const tree, resolve = "/api/models/Org/Repo/tree/main", "/Org/Repo/resolve/main/"
	if name, ok := strings.CutPrefix(r.URL.Path, resolve); ok && h.files[name] != nil {
		if h.large[name] {
			http.Redirect(w, r, h.cdn.URL+"/"+h.cdn.add(h.files[name])+"?signature=secret", http.StatusFound)
			return
		}
		h.mu.Lock()
		h.served++
		h.mu.Unlock()
		w.Write(h.files[name])
		return
	}
	if r.URL.Path != tree {
		http.NotFound(w, r)
		return
	}
	if h.tree != nil && h.tree(w) {
		return
	}
	var list []map[string]any
	for name, b := range h.files {
		sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(b)), b...))
		f := map[string]any{"type": "file", "path": name, "size": len(b), "oid": hex.EncodeToString(sum[:])}
		if h.large[name] {
			f["lfs"] = map[string]any{"oid": strings.TrimPrefix(h.cdn.add(b), "sha256:"), "size": len(b), "pointerSize": 130}
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b map[string]any) int { return strings.Compare(a["path"].(string), b["path"].(string)) })
	page := 0
	fmt.Sscan(r.URL.Query().Get("cursor"), &page)
	if page+1 < h.pages {
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, h.URL, tree, page+1))
	}
	list = list[len(list)*page/h.pages : len(list)*(page+1)/h.pages]
	raw, _ := json.Marshal(append(list, map[string]any{"type": "directory", "path": "sub"}))
	w.Write(raw)
}

func (h *fakeHub) remote(t *testing.T) Remote {
	r := hasty(t)
	r.HuggingFace, r.Token = h.URL, h.token
	return r
}

// gguf is a small GGUF file that differs by its name.
func gguf(name string) []byte {
	g := good()
	g.keys = append(g.keys, testKey{"general.name", ggufString, raw(name)})
	return g.bytes()
}

func TestPullOfAGGUFFromTheHub(t *testing.T) {
	leaks(t)
	files := map[string][]byte{"README.md": []byte("read me")}
	for _, name := range []string{"Repo-Q8_0.gguf", "Repo-Q4_K_M.gguf", "BF16/Repo.gguf", "mmproj-Repo-Q4_K_M.gguf", "repo-UD-Q2_K_XL.gguf"} {
		files[name] = gguf(name)
	}
	h := newHub(t, files)
	h.token, h.pages = "hf_secret", 3
	s := Store{t.TempDir()}
	for name, file := range map[string]string{
		"hf.co/Org/Repo": "Repo-Q4_K_M.gguf", "hf.co/Org/Repo:latest": "Repo-Q4_K_M.gguf", "https://huggingface.co/Org/Repo:q8_0": "Repo-Q8_0.gguf",
		"hf.co/Org/Repo:BF16": "BF16/Repo.gguf", "hf.co/Org/Repo:Q2_K_XL": "repo-UD-Q2_K_XL.gguf", "hf.co/Org/Repo:Repo-Q8_0.gguf": "Repo-Q8_0.gguf",
	} {
		if err := s.Pull(t.Context(), name, h.remote(t), nil); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		path, err := s.Find(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got, _ := os.ReadFile(path); !bytes.Equal(got, files[file]) {
			t.Errorf("%s is not %s", name, file)
		}
	}
	if err := s.PullAs(t.Context(), "hf.co/Org/Repo:Q8_0", "mine", h.remote(t), nil); err != nil {
		t.Error(err)
	}
	if _, err := s.Find("mine"); err != nil {
		t.Error(err)
	}
	m, err := s.readManifest(s.manifestPath(mustName(t, "mine")))
	if err != nil {
		t.Fatal(err)
	}
	about, err := os.ReadFile(s.blob(m.Config.Digest))
	if err != nil || !strings.Contains(string(about), `"model_format":"gguf"`) || !strings.Contains(string(about), `"file_type":"Q8_0"`) {
		t.Errorf("%s, %v", about, err)
	}
	err = s.Pull(t.Context(), "hf.co/Org/Repo:Q5_K_M", h.remote(t), nil)
	if !errors.Is(err, ErrNoModel) || !strings.Contains(err.Error(), `"Q4_K_M"`) {
		t.Error(err)
	}
	r := h.remote(t)
	r.Token = ""
	if err := s.Pull(t.Context(), "hf.co/Org/Repo", r, nil); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "is restricted") {
		t.Error(err)
	}
	if err := s.Pull(t.Context(), "hf.co/Org/Other", h.remote(t), nil); !errors.Is(err, ErrNoModel) {
		t.Error(err)
	}
}

func TestPullOfAFolderFromTheHub(t *testing.T) {
	leaks(t)
	index := `{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}`
	files := map[string][]byte{
		"config.json": []byte(`{"model_type":"x"}`), "tokenizer.json": noise(1, 3000), hfIndex: []byte(index), "1_Pooling/config.json": []byte("{}"),
		"model-00001-of-00002.safetensors": noise(2, 2<<20), "model-00002-of-00002.safetensors": noise(3, 3<<20),
		"consolidated.safetensors": noise(4, 1<<20), "run.py": []byte("import os"), "original/config.json": []byte("{}"),
	}
	h := newHub(t, files)
	s := Store{t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	h.cdn.set(func() { h.cdn.drip = 1e6 })
	err := s.Pull(ctx, "hf.co/Org/Repo", h.remote(t), func(p Progress) {
		if p.Completed > 1<<20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Errorf("half a model is listed: %v, %v", list, err)
	}
	h.cdn.set(func() { h.cdn.drip = 0 })
	var last string
	if err := s.Pull(t.Context(), "hf.co/Org/Repo", h.remote(t), func(p Progress) {
		if p.Status != "success" {
			last = p.Status
		}
	}); err != nil {
		t.Fatal(err)
	}
	if over := h.cdn.served.Load() - 5<<20 - 3000; over > 1<<20 {
		t.Errorf("%d bytes fetched twice", over)
	}
	got := s.files(t)
	want := []string{"Repo/.winnow-pull", "Repo/1_Pooling/config.json", "Repo/config.json", "Repo/model-00001-of-00002.safetensors",
		"Repo/model-00002-of-00002.safetensors", "Repo/" + hfIndex, "Repo/tokenizer.json"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for _, name := range []string{"Repo", "hf.co/Org/Repo", "huggingface.co/org/repo:latest"} {
		if path, err := s.Find(name); err != nil || path != filepath.Join(s.Root, "Repo") {
			t.Errorf("%s: %q, %v", name, path, err)
		}
	}
	if last != "saved as Repo" {
		t.Errorf("last said %q", last)
	}
	served, small := h.cdn.served.Load(), h.served
	if err := s.Pull(t.Context(), "hf.co/Org/Repo", h.remote(t), nil); err != nil || h.cdn.served.Load() != served || h.served != small+1 { // the index
		t.Errorf("a repeat: %v, %d bytes, %d small files", err, h.cdn.served.Load()-served, h.served-small)
	}
	h.files["config.json"] = []byte(`{"model_type":"y"}`)
	served = h.cdn.served.Load()
	if err := s.Pull(t.Context(), "hf.co/Org/Repo", h.remote(t), nil); err != nil {
		t.Fatal(err)
	}
	if raw, _ := os.ReadFile(filepath.Join(s.Root, "Repo", "config.json")); string(raw) != `{"model_type":"y"}` || len(s.files(t)) != len(want) {
		t.Errorf("%s, %q", raw, s.files(t))
	}
	if h.cdn.served.Load() != served {
		t.Errorf("%d bytes fetched that were there", h.cdn.served.Load()-served)
	}
	if err := os.Mkdir(filepath.Join(s.Root, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.PullAs(t.Context(), "hf.co/Org/Repo", "taken", h.remote(t), nil); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if err := s.PullAs(t.Context(), "hf.co/Org/Repo", "o/taken", h.remote(t), nil); !errors.Is(err, ErrName) {
		t.Error(err)
	}
	h.files[hfIndex] = []byte(`{"weight_map":{"a":"../x.safetensors"}}`)
	if err := s.PullAs(t.Context(), "hf.co/Org/Repo", "other", h.remote(t), nil); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if len(s.files(t)) != len(want) {
		t.Errorf("left behind: %q", s.files(t))
	}
	if err := os.MkdirAll(filepath.Dir(s.manifestPath(mustName(t, "hidden"))), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.manifestPath(mustName(t, "hidden")), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.files[hfIndex] = []byte(index)
	if err := s.PullAs(t.Context(), "hf.co/Org/Repo", "hidden", h.remote(t), nil); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	busy, err := holdFolder(t.Context(), workFolder(filepath.Join(s.Root, "Repo")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "Repo"); !errors.Is(err, ErrInUse) {
		t.Errorf("removal while somebody pulls: %v", err)
	}
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Remove(t.Context(), "hf.co/org/repo"); err != nil || r.Kept != nil || r.Bytes != 5<<20 {
		t.Errorf("removal: %+v, %v", r, err)
	}
	if left, err := os.ReadDir(s.Root); err != nil || len(left) != 3 { // the lock, the manifests, and the folder that was taken
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestPullOfASplitGGUFFromTheHub(t *testing.T) {
	a, b := noise(1, 1000), noise(2, 2000)
	h := newHub(t, map[string][]byte{"Q4_K_M/Repo-Q4_K_M-00001-of-00002.gguf": a, "Q4_K_M/Repo-Q4_K_M-00002-of-00002.gguf": b,
		"Repo-Q8_0-00001-of-00002.gguf": a})
	s := Store{t.TempDir()}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := s.Pull(t.Context(), "hf.co/Org/Repo:Q4_K_M", h.remote(t), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := h.cdn.served.Load(); got != 3000 {
		t.Errorf("%d bytes fetched", got)
	}
	for _, name := range []string{"Repo-Q4_K_M", "hf.co/Org/Repo:Q4_K_M"} {
		if path, err := s.Find(name); err != nil || path != filepath.Join(s.Root, "Repo-Q4_K_M") {
			t.Errorf("%s: %q, %v", name, path, err)
		}
	}
	if err := s.Pull(t.Context(), "hf.co/Org/Repo", h.remote(t), nil); err != nil {
		t.Error(err)
	}
	if path, err := s.Find("hf.co/Org/Repo"); err != nil || path != filepath.Join(s.Root, "Repo-Q4_K_M") || h.cdn.served.Load() != 3000 {
		t.Errorf("%q, %v, %d bytes", path, err, h.cdn.served.Load())
	}
	if err := s.Pull(t.Context(), "hf.co/Org/Repo:Q8_0", h.remote(t), nil); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "one of 2, and 1") {
		t.Error(err)
	}
	if files := s.files(t); len(files) != 3 {
		t.Errorf("%q", files)
	}
}

// TestHubLies pulls from a hub whose list is hostile.
func TestHubLies(t *testing.T) {
	file := func(path string, size int64, oid string) string {
		return fmt.Sprintf(`[{"type":"file","path":%q,"size":%d,"oid":"%040d","lfs":{"oid":%q}}]`, path, size, 0, oid)
	}
	for name, tree := range map[string]string{
		"no list": "{}", "no JSON": "<html>", "path": file("../../x.gguf", 1, hex64), "absolute": file("/etc/x.gguf", 1, hex64), "inner": file("a/../../x.gguf", 1, hex64),
		"backslash": file(`..\x.gguf`, 1, hex64), "negative": file("x.gguf", -1, hex64), "huge": file("x.gguf", 1<<60, hex64), "digest": file("x.gguf", 1, "../../x"),
		"large": `["` + strings.Repeat("x", maxTree) + `"]`, "nothing": "[]", "only words": `[{"type":"file","path":"README.md","size":1,"oid":"` + hex64[:40] + `"}]`,
	} {
		h := newHub(t, nil)
		h.tree = func(w http.ResponseWriter) bool { fmt.Fprint(w, tree); return true }
		s := Store{t.TempDir()}
		err := s.Pull(t.Context(), "hf.co/Org/Repo", h.remote(t), nil)
		if _, ok := errors.AsType[*RemoteError](err); !ok || !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) || len(s.files(t)) > 0 {
			t.Errorf("%s: %v, %q", name, err, s.files(t))
		}
	}
	h := newHub(t, map[string][]byte{"Repo.gguf": []byte("this is no GGUF file")})
	s := Store{t.TempDir()}
	if err := s.Pull(t.Context(), "hf.co/Org/Repo", h.remote(t), nil); !errors.Is(err, ErrFormat) || strings.Count(err.Error(), ErrFormat.Error()) != 1 || len(s.files(t)) > 0 {
		t.Errorf("no GGUF: %v, %q", err, s.files(t))
	}
	h.tree = func(w http.ResponseWriter) bool {
		w.Header().Set("Link", `<https://other.example/x>; rel="next"`)
		fmt.Fprint(w, "[]")
		return true
	}
	if err := s.Pull(t.Context(), "hf.co/Org/Repo", h.remote(t), nil); !errors.Is(err, ErrRemote) || !strings.Contains(err.Error(), "other.example") {
		t.Error(err)
	}
	h = newHub(t, map[string][]byte{"config.json": []byte("{}"), hfWeights: noise(1, 10)})
	h.large["config.json"] = false
	h.tree = func(w http.ResponseWriter) bool { h.files["config.json"] = []byte("[]"); return false } // listed as it is, then changed
	if err := s.Pull(t.Context(), "hf.co/Org/Repo", h.remote(t), nil); err != nil {
		t.Error(err)
	}
}

func TestPullFile(t *testing.T) {
	raw := gguf("a file")
	g := newRegistry(t)
	digest := g.add(raw)
	g.odd = func(w http.ResponseWriter, r *http.Request) bool {
		r.URL.Path = "/" + digest
		return false
	}
	s := Store{t.TempDir()}
	f := File{URL: g.URL + "/some/where/My.Model-Q8_0.gguf?x=1", SHA256: strings.ToUpper(digest[7:])}
	if err := s.PullFile(t.Context(), f, hasty(t), nil); err != nil {
		t.Fatal(err)
	}
	path, err := s.Find("My.Model-Q8_0")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, raw) {
		t.Error("the bytes are others")
	}
	seen := g.seen("")
	f.Name = "team/other:8b"
	if err := s.PullFile(t.Context(), f, hasty(t), nil); err != nil || g.seen("") != seen {
		t.Errorf("a repeat: %v, %d requests", err, g.seen("")-seen)
	}
	if _, err := s.Find("team/other:8b"); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		f    File
		want error
		says string
	}{
		{File{URL: f.URL}, ErrName, "by its sha256"},
		{File{URL: f.URL, SHA256: "../../x"}, ErrName, "by its sha256"},
		{File{URL: f.URL, SHA256: hex64}, ErrDigest, hex64},
		{File{URL: f.URL, SHA256: hex64, Name: "../x"}, ErrName, "../x"},
		{File{URL: "http://user:secret@h/x.gguf", SHA256: hex64}, ErrName, "address"},
		{File{URL: "ftp://h/x.gguf", SHA256: hex64}, ErrRemote, "no address of the web"},
		{File{URL: "", SHA256: hex64}, ErrName, "no address"},
	} {
		s := Store{t.TempDir()}
		err := s.PullFile(t.Context(), c.f, hasty(t), nil)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || len(s.files(t)) > 0 {
			t.Errorf("%+v: %v, %q", c.f, err, s.files(t))
		}
	}
	if err := (Store{t.TempDir()}).PullFile(t.Context(), f, Remote{}, nil); !errors.Is(err, ErrPlain) {
		t.Error(err)
	}
}

func TestQuants(t *testing.T) {
	for file, want := range map[string]string{
		"Qwen3-30B-A3B-Q4_K_M.gguf": "Q4_K_M", "a/b/gpt-oss-20b-mxfp4.gguf": "MXFP4", "x.UD-IQ2_XXS.gguf": "UD-IQ2_XXS", "m-bf16.gguf": "BF16", "m-f16.gguf": "F16",
		"m-fp16.gguf": "FP16", "m-Q8_0-00001-of-00009.gguf": "Q8_0", "m.gguf": "", "Qwen3.gguf": "", "m-TQ1_0.gguf": "TQ1_0", "Q5_K_S.gguf": "Q5_K_S", "model-7b.gguf": "",
	} {
		if got := quantOf(file); got != want {
			t.Errorf("%s: %q", file, got)
		}
	}
}

func FuzzHubTree(f *testing.F) {
	f.Add([]byte(`[{"type":"file","path":"a.gguf","size":5,"oid":"` + hex64[:40] + `","lfs":{"oid":"` + hex64 + `"}}]`))
	f.Add([]byte(`[{"type":"file","path":"../m-Q4_0-00001-of-00002.gguf","size":-5,"lfs":null}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		files, err := parseTree(raw)
		if err != nil {
			return
		}
		for _, file := range files {
			if !filepath.IsLocal(filepath.FromSlash(file.Path)) || file.Size < 0 || len(file.digest()) < 40 {
				t.Fatalf("%+v", file)
			}
		}
		if sets := ggufs(files); len(sets) > 0 {
			if set, err := choose(sets, ""); err != nil || len(set.files) == 0 {
				t.Fatalf("%v, %v", set, err)
			}
		}
	})
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://h/token",service="s",scope="repository:library/x:pull"`)
	f.Add(`bearer realm=https://h/token, scope="a b" , x="\"\\"`)
	f.Add(`Basic realm="x"`)
	f.Fuzz(func(t *testing.T, h string) {
		c, err := parseChallenge(h)
		if err == nil && (c.realm == "" || len(h) > maxChallenge) {
			t.Fatalf("%q: %+v", h, c)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Fatal("an error longer than a line")
		}
	})
}
