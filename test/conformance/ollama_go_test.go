package conformance

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ollama/ollama/api"
)

// serveStore serves the demo and an empty store, and names a model that can be pulled.
func serveStore(t *testing.T) (address, pullable string) {
	t.Helper()
	return serve(t, "--models", t.TempDir()), registry(t)
}

// registry serves the demo's file as a registry does, and gives its name there.
func registry(t *testing.T) string {
	t.Helper()
	weights, err := os.ReadFile("../../model/demo/demo.gguf")
	if err != nil {
		t.Fatal(err)
	}
	blobs := map[string][]byte{}
	layer := func(kind string, b []byte) string {
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(b))
		blobs[digest] = b
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, kind, digest, len(b))
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":%s,"layers":[%s]}`,
		layer("application/vnd.docker.container.image.v1+json", []byte(`{"model_format":"gguf","model_family":"qwen3moe","model_families":["qwen3moe"]}`)),
		layer("application/vnd.ollama.image.model", weights))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/library/tiny/manifests/latest" {
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
			io.WriteString(w, manifest)
			return
		}
		digest, ok := strings.CutPrefix(r.URL.Path, "/v2/library/tiny/blobs/")
		if b := blobs[digest]; ok && b != nil {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(b)))
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://") + "/library/tiny:latest"
}

func TestOllamaGo(t *testing.T) {
	address, registry := serveStore(t)
	base, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	client, ctx := api.NewClient(base, http.DefaultClient), t.Context()
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	check("heartbeat", client.Heartbeat(ctx))
	version, err := client.Version(ctx)
	if err != nil || version == "" {
		t.Errorf("version %q: %v", version, err)
	}
	options := map[string]any{"temperature": 0, "num_predict": 16}
	var chat, prompted strings.Builder
	var last api.ChatResponse
	ask := &api.ChatRequest{Model: "demo", Messages: []api.Message{{Role: "user", Content: "Tell me a story about a cat."}}, Options: options}
	check("chat", client.Chat(ctx, ask, func(p api.ChatResponse) error {
		chat.WriteString(p.Message.Content)
		last = p
		return nil
	}))
	check("generate", client.Generate(ctx, &api.GenerateRequest{Model: "demo", Prompt: ask.Messages[0].Content, Options: options}, func(p api.GenerateResponse) error {
		prompted.WriteString(p.Response)
		return nil
	}))
	if !last.Done || last.EvalCount == 0 || last.EvalCount > 16 || last.PromptEvalDuration <= 0 || chat.Len() == 0 || prompted.String() != chat.String() {
		t.Errorf("%q, %q, %+v", chat.String(), prompted.String(), last)
	}
	embedded, err := client.Embed(ctx, &api.EmbedRequest{Model: "demo", Input: "a cat"})
	if err != nil || len(embedded.Embeddings) != 1 {
		t.Errorf("embed: %v %+v", err, embedded)
	}
	running, err := client.ListRunning(ctx)
	if err != nil || len(running.Models) != 1 || running.Models[0].Name != "demo" {
		t.Errorf("ps: %v %+v", err, running)
	}
	if show, err := client.Show(ctx, &api.ShowRequest{Model: "demo"}); err != nil || show.ModelInfo == nil {
		t.Errorf("show: %v %+v", err, show)
	}
	ollamaGoLibrary(t, client, registry)
}

// ollamaGoLibrary pulls a model, makes another of it, and removes both.
func ollamaGoLibrary(t *testing.T, client *api.Client, registry string) {
	ctx := t.Context()
	var status []string
	see := func(p api.ProgressResponse) error {
		status = append(status, p.Status)
		return nil
	}
	if err := client.Pull(ctx, &api.PullRequest{Model: registry, Insecure: true}, see); err != nil || status[0] != "pulling manifest" || status[len(status)-1] != "success" {
		t.Fatalf("pull: %v %q", err, status)
	}
	const weights = "not a model"
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(weights)))
	if err := client.CreateBlob(ctx, digest, strings.NewReader(weights)); err != nil {
		t.Errorf("blob: %v", err)
	}
	if err := client.Create(ctx, &api.CreateRequest{Model: "broken", Files: map[string]string{"m.gguf": digest}}, see); err == nil {
		t.Error("made a model of text")
	}
	if err := client.Create(ctx, &api.CreateRequest{Model: "go-cat", From: registry, System: "You are a cat."}, see); err != nil {
		t.Fatalf("create: %v", err)
	}
	if show, err := client.Show(ctx, &api.ShowRequest{Model: "go-cat"}); err != nil || show.System != "You are a cat." {
		t.Errorf("show: %v %+v", err, show)
	}
	if err := client.Copy(ctx, &api.CopyRequest{Source: "go-cat", Destination: "go-kitten"}); err != nil {
		t.Errorf("copy: %v", err)
	}
	list, err := client.List(ctx)
	if err != nil || len(list.Models) < 3 {
		t.Errorf("list: %v %+v", err, list)
	}
	for _, name := range []string{"go-cat", "go-kitten", registry} {
		if err := client.Delete(ctx, &api.DeleteRequest{Model: name}); err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	var refused api.StatusError
	if err := client.Delete(ctx, &api.DeleteRequest{Model: "go-cat"}); !errors.As(err, &refused) || refused.StatusCode != 404 {
		t.Errorf("delete again: %v", err)
	}
}
