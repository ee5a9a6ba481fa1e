package httpapi

import (
	"fmt"
	"strings"
	"testing"
)

func TestOllamaEmbed(t *testing.T) {
	r := start(t, Options{})
	type wire struct {
		Model      string
		Embeddings [][]float32
		Embedding  []float32
		Total      int64 `json:"total_duration"`
		Load       int64 `json:"load_duration"`
		Prompt     int   `json:"prompt_eval_count"`
		Warnings   []string
	}
	ask := func(path, body string) wire {
		t.Helper()
		status, out := r.post(path, body)
		if status != 200 {
			t.Fatalf("%s: %d %s", body, status, out)
		}
		return parse[wire](t, out)
	}
	one := ask("/api/embed", `{"model":"demo-moe","input":"a cat"}`)
	two := ask("/api/embed", `{"model":"demo-moe","input":["a cat","a dog"],"dimensions":8}`)
	old := ask("/api/embeddings", `{"model":"demo-moe","prompt":"a cat"}`)
	if len(one.Embeddings) != 1 || one.Total <= 0 || one.Load <= 0 || one.Prompt <= 0 || one.Model != "demo-moe" {
		t.Errorf("%+v", one)
	}
	if len(two.Embeddings) != 2 || len(two.Embeddings[1]) != 8 || two.Prompt <= one.Prompt {
		t.Errorf("%+v", two)
	}
	if fmt.Sprint(old.Embedding) != fmt.Sprint(one.Embeddings[0]) {
		t.Errorf("%v, not %v", old.Embedding, one.Embeddings[0])
	}
	for _, v := range append(one.Embeddings, two.Embeddings...) {
		var sum float32
		for _, x := range v {
			sum += x * x
		}
		if sum < 0.999 || sum > 1.001 {
			t.Errorf("length %v", sum)
		}
	}
	for _, body := range []string{`{"model":"demo-moe"}`, `{"model":"demo-moe","input":""}`, `{"model":"demo-moe","input":[]}`} {
		if e := ask("/api/embed", body); e.Embeddings == nil || len(e.Embeddings) != 0 {
			t.Errorf("%s: %+v", body, e)
		}
	}
	if e := ask("/api/embeddings", `{"model":"demo-moe"}`); e.Embedding == nil || len(e.Embedding) != 0 {
		t.Errorf("%+v", e)
	}
	long := strings.Repeat("a cat and a dog ", 30)
	cut := ask("/api/embed", `{"model":"demo-moe","input":["x","`+long+`"],"options":{"num_ctx":20}}`)
	if len(cut.Embeddings) != 2 || cut.Prompt > 25 || len(cut.Warnings) != 1 || !strings.Contains(cut.Warnings[0], "input 1") {
		t.Errorf("%+v", cut)
	}
	status, body := r.post("/api/embed", `{"model":"demo-moe","input":["x","`+long+`"],"truncate":false,"options":{"num_ctx":20}}`)
	if status != 400 || !strings.Contains(body, "input[1]") || !strings.Contains(body, "20 tokens") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := r.post("/api/embed", `{"model":"none","input":"x"}`); status != 404 || !strings.Contains(body, "not found") {
		t.Errorf("%d %s", status, body)
	}
}
