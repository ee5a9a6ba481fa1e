package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestBenchDrafts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ask.txt")
	if err := os.WriteFile(file, []byte("Tell me a story about a cat. A cat. A cat."), 0o600); err != nil {
		t.Fatal(err)
	}
	alone(t)
	out := must(t, "", "bench", "demo", "-f", file, "--speculative", "always", "-n", "40", "-r", "2", "-o", "json", "--log", "warn")
	var results []draftResult
	if err := json.Unmarshal([]byte(out), &results); err != nil {
		t.Fatal(err)
	}
	if r := results[0]; len(results) != 1 || r.NGen < 2 || r.NGen > 40 || r.PlainTS <= 0 || r.DraftTS <= 0 || r.Drafted < r.Accepted {
		t.Errorf("%+v", results)
	}
	if out := must(t, "", "bench", "demo", "-f", file, "-n", "10", "-r", "1"); !strings.Contains(out, "with drafts") {
		t.Error(out)
	}
	for _, args := range [][]string{{"-f", file, "--speculative", "off"}, {"-f", "nowhere"}, {"-f", file, "-n", "0"}} {
		if out, _, err := winnow(t, "", append([]string{"bench", "demo"}, args...)...); err == nil {
			t.Errorf("%v: %s", args, out)
		}
	}
}

// A draft model is another MODEL, or an overlay by which the model itself has fewer experts. What it foretold is counted apart.
func TestBenchDraftModel(t *testing.T) {
	dir := t.TempDir()
	file, thin := filepath.Join(dir, "ask.txt"), filepath.Join(dir, "thin.json")
	if err := os.WriteFile(file, []byte("Tell me a story about a cat."), 0o600); err != nil {
		t.Fatal(err)
	}
	alone(t)
	must(t, "", "experts", "plan", "demo", "--keep", "0.75", "-o", thin, "--log", "warn")
	for _, draft := range []string{"demo", thin} {
		out := must(t, "", "bench", "demo", "-f", file, "--speculative", "always", "--draft-model", draft, "--draft-max", "4", "-n", "40", "-r", "1", "-o", "json", "--log", "warn")
		var results []draftResult
		if err := json.Unmarshal([]byte(out), &results); err != nil {
			t.Fatal(err)
		}
		if r := results[0]; r.ModelAccepted < 10 || r.ModelDrafted > int64(r.Drafted) || r.ModelSeconds <= 0 || draft == "demo" && r.ModelAccepted != r.ModelDrafted {
			t.Errorf("%s: %+v", draft, r)
		}
	}
	for _, args := range [][]string{{"--speculative", "draft"}, {"--draft-model", "nowhere"}, {"--draft-model", "nowhere.json"}, {"--draft-model", "demo", "--draft-max", "8"}} {
		if out, _, err := winnow(t, "", append([]string{"bench", "demo", "-f", file}, args...)...); err == nil {
			t.Errorf("%v: %s", args, out)
		}
	}
}

// An answer of run is the same with a draft model, and one of another vocabulary is refused with the id.
func TestRunDraftModel(t *testing.T) {
	other, err := filepath.Abs("../../model/testdata/stories260k")
	if err != nil {
		t.Fatal(err)
	}
	alone(t)
	ask := []string{"run", "demo", "Tell me a story", "--seed", "1", "--max-tokens", "30"}
	plain := must(t, "", ask...)
	if got := must(t, "", append(ask, "--draft-model", "demo", "--speculative", "always")...); got != plain {
		t.Errorf("%q, want %q", got, plain)
	}
	if _, _, err = winnow(t, "", append(ask, "--draft-model", other)...); err == nil || !strings.Contains(err.Error(), "another vocabulary: id ") {
		t.Error(err)
	}
}

// Models that are served have draft models by name, the first one without, and /metrics counts what those do.
func TestServeDraftModels(t *testing.T) {
	alone(t)
	answer := func(url, model string) string {
		status, body := ask(t, url, model)
		if status != http.StatusOK {
			t.Errorf("%s: %d %s", model, status, body)
		}
		_, text, _ := strings.Cut(body, `"choices"`)
		text, _, _ = strings.Cut(text, `"usage"`)
		return text
	}
	overlay := "half=" + written(t, "half", half)
	url, stop := serving(t, "demo", "--expert-overlay", overlay)
	whole, pruned := answer(url, "demo"), answer(url, "half")
	if err := stop(); err != nil {
		t.Error(err)
	}
	url, stop = serving(t, "demo", "--expert-overlay", overlay, "--speculative", "always", "--draft-model", "half=demo", "--draft-model", written(t, "thin", half))
	if got := answer(url, "demo"); got != whole {
		t.Errorf("%s, want %s", got, whole)
	}
	if got := answer(url, "half"); got != pruned {
		t.Errorf("%s, want %s", got, pruned)
	}
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, model := range []string{"demo", "half"} {
		for _, want := range []string{"winnow_draft_model_drafted_tokens_total", "winnow_draft_model_rows_total", "winnow_draft_model_time_seconds_total"} {
			m := regexp.MustCompile(want + `\{[^}]*model="` + model + `"[^}]*\} (\S+)`).FindSubmatch(page)
			if m == nil || string(m[1]) == "0" {
				t.Errorf("%s of %s: %q", want, model, m)
			}
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{"--draft-model", "other=demo"}, {"--draft-model", "demo", "--draft-model", "demo=nowhere"}} {
		if out, _, err := winnow(t, "", append([]string{"serve", "demo", "--addr", "127.0.0.1:0"}, args...)...); err == nil {
			t.Errorf("%v: %s", args, out)
		}
	}
}
