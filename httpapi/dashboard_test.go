package httpapi

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// What of a query is no name of a metric: labels in braces, ranges, strings, the labels of by and on, and functions.
var (
	noNames = regexp.MustCompile(`"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)|[a-z_]+\s*(?:(?:by|without)\s*\([^)]*\)\s*)?\(|\b(?:and|or|unless)\b`)
	names   = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	queried = regexp.MustCompile(`label_values\(([a-z_]+),`)
)

// metricsOf are the names of metrics that a query asks for.
func metricsOf(query string) []string {
	return names.FindAllString(noNames.ReplaceAllString(query, " "), -1)
}

func TestMetricsOfQueries(t *testing.T) {
	for query, want := range map[string]string{
		`histogram_quantile(0.9, sum by (le, model) (rate(a_b_bucket{model=~"$m", x="y"}[$__rate_interval])))`: "a_b_bucket",
		`up{job="x"} == 0`:                                  "up",
		`a > 0 and on (model) rate(b[5m]) > 1`:              "a b",
		`sum(rate(a_sum[5m])) / sum (rate(a_count[5m]))`:    "a_sum a_count",
		`histogram_quantile(1, rate(vllm:x:y_seconds[1h]))`: "vllm:x:y_seconds",
	} {
		if got := strings.Join(metricsOf(query), " "); got != want {
			t.Errorf("%s asks for %q, want %q", query, got, want)
		}
	}
}

// deployed reads every file of deploy/ that has a form, and gives the queries in it by where they stand.
func deployed(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(file string, v any)
	walk = func(file string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, inner := range v {
				s, _ := inner.(string)
				switch m := queried.FindStringSubmatch(s); {
				case key == "expr":
					out[file+": "+s] = s
				case key == "query" && m != nil:
					out[file+": "+s] = m[1]
				default:
					walk(file, inner)
				}
			}
		case []any:
			for _, inner := range v {
				walk(file, inner)
			}
		}
	}
	err := filepath.WalkDir("../deploy", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var v any
		switch filepath.Ext(file) {
		case ".json":
			err = json.Unmarshal(raw, &v)
		case ".yaml", ".yml":
			err = yaml.Unmarshal(raw, &v)
		default:
			return nil
		}
		if err != nil || v == nil {
			t.Errorf("%s: %v", file, err)
		}
		walk(file, v)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Every metric that the dashboard and the alerts ask for, that the text about telemetry names, or that has an alias, is there after traffic.
func TestMetricsThatOthersReadExist(t *testing.T) {
	r := start(t, Options{})
	r.post("/v1/chat/completions", `{"model":"demo-moe","max_tokens":4,`+hello+`}`)
	r.post("/v1/embeddings", `{"model":"demo-moe","input":"x"}`)
	r.post("/v1/completions", `{"model":"nobody","prompt":"x"}`)
	_, page := r.call("GET", "/metrics", "")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	if _, err := parser.TextToMetricFamilies(strings.NewReader(page)); err != nil {
		t.Errorf("the page is no text format: %v", err)
	}
	have := map[string]bool{"up": true} // Prometheus's own
	for _, line := range strings.Split(page, "\n") {
		if end := strings.IndexAny(line, "{ "); end > 0 && line[0] != '#' {
			have[line[:end]] = true
		}
	}
	asked := deployed(t)
	if len(asked) < 30 {
		t.Errorf("only %d queries in ../deploy", len(asked))
	}
	for where, query := range asked {
		all := metricsOf(query)
		if len(all) == 0 {
			t.Errorf("%s asks for nothing", where)
		}
		for _, name := range all {
			if !have[name] {
				t.Errorf("%s: nobody exports %s", where, name)
			}
		}
	}
	text, err := os.ReadFile("../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:winnow_|vllm:|gen_ai_)[a-z0-9_]+)").FindAllStringSubmatch(string(text), -1)
	for _, a := range aliases {
		named = append(named, []string{"", a.name})
	}
	if len(named) < 40 {
		t.Errorf("only %d names in docs/telemetry.md", len(named))
	}
	for _, n := range named {
		if name := n[1]; !have[name] && !have[name+"_count"] && name != "winnow_auth_failures_total" {
			t.Errorf("nobody exports %s", name)
		}
	}
}
