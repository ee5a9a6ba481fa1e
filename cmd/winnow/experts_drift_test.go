package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

// A server shows how far its experts' choices are from those of a profile of its model, and refuses one of another.
func TestServeExpertProfile(t *testing.T) {
	alone(t)
	must(t, strings.Repeat(story, 4), "experts", "profile", "demo", "-o", "demo.json", "--log", "warn")
	raw, err := os.ReadFile("demo.json")
	if err != nil {
		t.Fatal(err)
	}
	other := regexp.MustCompile(`"model": "[0-9a-f]{64}"`).ReplaceAll(raw, []byte(`"model": "`+strings.Repeat("ab", 32)+`"`))
	if err := os.WriteFile("other.json", other, 0o644); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"other.json": "other.json: profile of another model: it is of one with fingerprint abababababab", "nowhere.json": "nowhere.json"} {
		_, _, err := winnow(t, "", "serve", "demo", "--addr", "127.0.0.1:0", "--expert-profile", file)
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, serve.ErrProfile) != (file == "other.json") {
			t.Errorf("%s: %v", file, err)
		}
	}
	url, stop := serving(t, "demo", "--expert-profile", "demo.json", "--expert-overlay", "half="+written(t, "half", half))
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	fetch := func(path string) string {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	for _, name := range []string{"demo", "half"} {
		if status, body := ask(t, url, name); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	type layer struct {
		Recent int64 `json:"recent_tokens"`
		Drift  *float64
	}
	var heat struct{ Models []struct{ Layers []layer } }
	for range 500 { // until both engines have fallen idle
		if err := json.Unmarshal([]byte(fetch("/debug/moe")), &heat); err != nil {
			t.Fatal(err)
		}
		if len(heat.Models) == 2 && heat.Models[0].Layers[0].Drift != nil && heat.Models[1].Layers[0].Drift != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, m := range heat.Models {
		for _, l := range m.Layers {
			if l.Drift == nil || !(*l.Drift > 0 && *l.Drift < 0.9) || l.Recent < 5 {
				t.Errorf("%+v", l)
			}
		}
	}
	page := fetch("/metrics")
	for _, name := range []string{"demo", "half"} {
		if !regexp.MustCompile(`(?m)^winnow_moe_drift_ratio\{model="` + name + `"\} 0\.`).MatchString(page) {
			t.Errorf("no drift of %s", name)
		}
	}
}
