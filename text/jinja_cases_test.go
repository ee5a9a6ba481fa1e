package text

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// TestTemplateCases renders the small templates of testdata/jinja/cases; what they write is what Python's jinja2 writes, as
// testdata/jinja/reference.py records it.
func TestTemplateCases(t *testing.T) {
	vars, err := ParseJSON(read(t, "testdata/jinja/vars.json"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/jinja/cases/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		var cases [][2]string
		if err := json.Unmarshal(read(t, file), &cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for i, c := range cases {
			got, err := renderCase(c[0], vars)
			switch fails := strings.HasPrefix(c[1], "ERR "); {
			case fails && err == nil:
				t.Errorf("%s %d: %q: no error, want %s\n got %q", file, i, c[0], c[1], got)
			case !fails && err != nil:
				t.Errorf("%s %d: %q: %v", file, i, c[0], err)
			case !fails && got != c[1]:
				t.Errorf("%s %d: %q:\n got %q\nwant %q", file, i, c[0], got, c[1])
			}
		}
	}
}

func renderCase(src string, vars Value) (string, error) {
	tmpl, err := ParseTemplate(src)
	if err != nil {
		return "", err
	}
	spans, err := tmpl.Render(vars, Limits{Now: clock})
	return spanText(spans), err
}
