package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ollama/ollama/api"

	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

// library is a server with a store of its own, and ollama's Go client of it.
func library(t *testing.T) (*rig, *api.Client) {
	t.Helper()
	r := start(t, Options{Version: "1.2.3", Library: serve.NewLibrary(serve.LibraryOptions{
		Store: store.Store{Root: t.TempDir()}, Named: serve.Sources(sources(t)),
		Open: func(string, string) (*serve.Model, error) { return nil, store.ErrUnsupported },
	})})
	base, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	return r, api.NewClient(base, http.DefaultClient)
}

func TestOllamaClientAnswers(t *testing.T) {
	r, client := library(t)
	ctx := t.Context()
	if err := client.Heartbeat(ctx); err != nil {
		t.Error(err)
	}
	if v, err := client.Version(ctx); v != "1.2.3" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	var text strings.Builder
	var last api.ChatResponse
	chat := &api.ChatRequest{
		Model: "demo-moe", Messages: []api.Message{{Role: "user", Content: "Tell me a story about a cat."}}, Logprobs: true,
		Options: map[string]any{"num_predict": 12, "temperature": 0}, KeepAlive: &api.Duration{Duration: time.Minute}, Think: &api.ThinkValue{Value: false},
	}
	err := client.Chat(ctx, chat, func(p api.ChatResponse) error {
		text.WriteString(p.Message.Content)
		last = p
		if !p.Done && len(p.Logprobs) == 0 {
			t.Errorf("%+v", p)
		}
		return nil
	})
	if err != nil || text.Len() < 10 || !last.Done || last.DoneReason != "length" || last.EvalCount != 12 || last.EvalDuration <= 0 || last.PromptEvalDuration <= 0 {
		t.Errorf("%v: %q %+v", err, text.String(), last)
	}
	var prompted string
	err = client.Generate(ctx, &api.GenerateRequest{Model: "demo-moe", Prompt: "Tell me a story about a cat.", Options: chat.Options, Stream: new(bool)},
		func(p api.GenerateResponse) error {
			prompted = p.Response
			return nil
		})
	if err != nil || prompted != text.String() {
		t.Errorf("%v: %q, chat %q", err, prompted, text.String())
	}
	e, err := client.Embed(ctx, &api.EmbedRequest{Model: "demo-moe", Input: []string{"a cat", "a dog"}})
	if err != nil || len(e.Embeddings) != 2 || e.PromptEvalCount == 0 {
		t.Errorf("%v: %+v", err, e)
	}
	old, err := client.Embeddings(ctx, &api.EmbeddingRequest{Model: "demo-moe", Prompt: "a cat"})
	if err != nil || len(old.Embedding) != len(e.Embeddings[0]) || math.Abs(old.Embedding[0]-float64(e.Embeddings[0][0])) > 1e-6 {
		t.Errorf("%v: %+v", err, old)
	}
	var refused api.StatusError
	err = client.Chat(ctx, &api.ChatRequest{Model: "none"}, func(api.ChatResponse) error { return nil })
	if !errors.As(err, &refused) || refused.StatusCode != 404 || !strings.Contains(refused.ErrorMessage, "not found") {
		t.Errorf("%v", err)
	}
	r.healthy()
}

// A client that goes away frees what its answer held.
func TestOllamaClientGone(t *testing.T) {
	r, client := library(t)
	gone := errors.New("enough")
	err := client.Generate(t.Context(), &api.GenerateRequest{Model: "demo-moe", Prompt: "Tell me a story.", Options: map[string]any{"num_predict": 400}},
		func(api.GenerateResponse) error { return gone })
	if !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	r.idle()
}

func TestOllamaClientLists(t *testing.T) {
	_, client := library(t)
	ctx := t.Context()
	if list, err := client.ListRunning(ctx); err != nil || len(list.Models) != 0 {
		t.Errorf("%v: %+v", err, list)
	}
	if err := client.Generate(ctx, &api.GenerateRequest{Model: "demo-moe"}, func(api.GenerateResponse) error { return nil }); err != nil {
		t.Fatal(err)
	}
	list, err := client.List(ctx)
	if err != nil || len(list.Models) != 3 {
		t.Fatalf("%v: %+v", err, list)
	}
	for _, m := range list.Models {
		if m.Name == "" || m.Model != m.Name || len(m.Digest) != 64 {
			t.Errorf("%+v", m)
		}
	}
	running, err := client.ListRunning(ctx)
	if err != nil || len(running.Models) != 1 {
		t.Fatalf("%v: %+v", err, running)
	}
	if m := running.Models[0]; m.Name != "demo-moe" || m.ContextLength != 512 || m.SizeVRAM != 0 || !m.ExpiresAt.After(time.Now()) || len(m.Digest) != 64 {
		t.Errorf("%+v", m)
	}
	var refused api.StatusError
	if _, err := client.Show(ctx, &api.ShowRequest{Model: "none"}); !errors.As(err, &refused) || refused.StatusCode != 404 {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"demo-moe", "Demo-Moe:latest"} {
		show, err := client.Show(ctx, &api.ShowRequest{Model: name})
		if err != nil || show.ModelInfo == nil || show.Details.Family == "" || !strings.Contains(show.Modelfile, "FROM ") || len(show.Capabilities) == 0 {
			t.Errorf("%s: %v: %+v", name, err, show)
		}
	}
}

func TestOllamaClientLibrary(t *testing.T) {
	r, client := library(t)
	ctx := context.Background()
	var refused api.StatusError
	status := func(what string, err error, want int) {
		t.Helper()
		if !errors.As(err, &refused) || refused.StatusCode != want {
			t.Errorf("%s: %v, want %d", what, err, want)
		}
	}
	var said []string
	see := func(p api.ProgressResponse) error {
		said = append(said, p.Status)
		return nil
	}
	weights := fmt.Sprintf("sha256:%x", sha256.Sum256(demo.GGUF))
	err := client.CreateBlob(ctx, weights, bytes.NewReader(demo.GGUF))
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Create(ctx, &api.CreateRequest{Model: "base", Files: map[string]string{"base.gguf": weights}}, see); err != nil {
		t.Fatal(err)
	}
	status("of nothing", client.Create(ctx, &api.CreateRequest{Model: "cat", From: "none"}, see), 404)
	err = client.Create(ctx, &api.CreateRequest{Model: "cat", From: "base", System: "You are a cat.", Parameters: map[string]any{"temperature": 0.5, "stop": []string{"dog"}},
		License: []string{"free"}, Messages: []api.Message{{Role: "user", Content: "hi"}, {Role: "assistant", Content: "meow"}}}, see)
	if err != nil || len(said) == 0 || said[len(said)-1] != "success" {
		t.Fatalf("create: %v %q", err, said)
	}
	show, err := client.Show(ctx, &api.ShowRequest{Model: "cat"})
	if err != nil || show.System != "You are a cat." || !strings.Contains(show.Parameters, "0.5") || !strings.Contains(show.Modelfile, "MESSAGE user hi") || show.License != "free" {
		t.Errorf("%v: %+v", err, show)
	}
	thinking := &api.ChatRequest{Model: "cat", Messages: []api.Message{{Role: "user", Content: "x"}}, Think: &api.ThinkValue{Value: "high"}}
	status("thinking", client.Chat(ctx, thinking, func(api.ChatResponse) error { return nil }), 400)
	if err := client.Copy(ctx, &api.CopyRequest{Source: "cat", Destination: "kitten"}); err != nil {
		t.Errorf("copy: %v", err)
	}
	status("copy of nothing", client.Copy(ctx, &api.CopyRequest{Source: "none", Destination: "x"}), 404)
	status("copy to no name", client.Copy(ctx, &api.CopyRequest{Source: "cat", Destination: "../x"}), 400)
	if err := client.Delete(ctx, &api.DeleteRequest{Model: "kitten"}); err != nil {
		t.Errorf("delete: %v", err)
	}
	status("delete again", client.Delete(ctx, &api.DeleteRequest{Model: "kitten"}), 404)
	const digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // of abc
	if err := client.CreateBlob(ctx, digest, strings.NewReader("abc")); err != nil {
		t.Errorf("blob: %v", err)
	}
	if resp, _ := r.call("HEAD", "/api/blobs/"+digest, ""); resp.StatusCode != 200 {
		t.Errorf("head: %d", resp.StatusCode)
	}
	other := digest[:len(digest)-1] + "0"
	status("other bytes", client.CreateBlob(ctx, other, strings.NewReader("abc")), 400)
	if resp, _ := r.call("HEAD", "/api/blobs/"+other, ""); resp.StatusCode != 404 {
		t.Errorf("head: %d", resp.StatusCode)
	}
	if err := client.Pull(ctx, &api.PullRequest{Model: "127.0.0.1:1/library/none", Insecure: true}, see); err == nil {
		t.Error("pulled from nowhere")
	}
	r.healthy()
}
