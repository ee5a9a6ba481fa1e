package configs

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// isolate leaves the test in an empty folder with a known home.
func isolate(t *testing.T) (dir string) {
	dir = t.TempDir()
	t.Chdir(dir)
	t.Setenv("HOME", filepath.Join(dir, "home"))
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func parsed(t *testing.T, keys []string, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Flags(fs, keys...)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestEachSourceOverridesTheOneBefore(t *testing.T) {
	dir := isolate(t)
	write(t, FileName, "threads: 2\nrows: 20\nqueue: 7\ncache_bytes: 1GiB\nhosts: [a.example, b.example]\n")
	environ := []string{"WINNOW_ROWS=30", "WINNOW_QUEUE=8", "WINNOW_ORIGINS=http://x, http://y", "WINNOW_ROPE_SCALE=2.5", "WINNOW_LOG=debug", "WINNOW_SHADOW=1", "PATH=/bin"}
	c, err := load(parsed(t, []string{"queue", "rows", "drain_timeout"}, "--queue", "9", "--drain-timeout", "2s"), environ)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Models = filepath.Join(dir, "home", ".winnow", "models")
	want.Identity = filepath.Join(dir, "home", ".winnow", "id_ed25519")
	want.Threads, want.Rows, want.Queue, want.CacheBytes = 2, 30, 9, 1<<30
	want.RopeScale = 2.5
	want.Hosts, want.Origins = []string{"a.example", "b.example"}, []string{"http://x", "http://y"}
	want.Log, want.Shadow, want.DrainTimeout = slog.LevelDebug, true, 2*time.Second
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// The example names every key, once, with its default, so that it documents them all and changes nothing.
func TestTheExampleIsTheDefaults(t *testing.T) {
	example, err := os.ReadFile("winnow.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	isolate(t)
	defaults, err := load(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, FileName, string(example))
	c, err := load(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Gates)+len(c.DuoHeads)+len(c.SparseProfiles)+len(c.DraftModel) == 0 {
		c.Gates, c.DuoHeads, c.SparseProfiles, c.DraftModel = nil, nil, nil, nil
	}
	if len(c.Hosts) == 0 && len(c.Origins) == 0 && len(c.Pinned) == 0 && len(c.ExpertOverlays)+len(c.ExpertProfiles) == 0 {
		c.Hosts, c.Origins, c.Pinned, c.ExpertOverlays, c.ExpertProfiles = nil, nil, nil, nil, nil
	}
	if !reflect.DeepEqual(c, defaults) {
		t.Errorf("the example gives\n%+v\nthe defaults are\n%+v", c, defaults)
	}
	for _, key := range Keys() {
		if n := strings.Count("\n"+string(example), "\n"+key+":"); n != 1 {
			t.Errorf("the example names %s %d times", key, n)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ name, file, environ, want string }{
		{"unknown key in the file", "thread: 2", "", `unknown key "thread"; the nearest known one is "threads"`},
		{"nested key", "log:\n  level: debug", "", `unknown key "log.level"; the nearest known one is "log"`},
		{"unknown variable", "", "WINNOW_CACHE_BYTE=1", `unknown key "cache_byte"; the nearest known one is "cache_bytes"`},
		{"no YAML", "addr: [", "", "winnow.yaml"},
		{"no number", "threads: many", "", "threads"},
		{"negative", "queue: -1", "", "queue is -1, want 0 or more"},
		{"negative time", "write_timeout: -1s", "", "write_timeout"},
		{"no size", "", "WINNOW_CACHE_BYTES=huge", `"huge" is no size`},
		{"no address", "addr: localhost", "", "want host:port"},
		{"unknown kernels", "", "WINNOW_CPU=sse", "want one of auto, amx, avx512, avx2, dotprod, neon, go"},
		{"too long drafts", "draft_max: 8", "", "draft_max is 8, want 1 to 7"},
		{"no likelihood", "draft_min_p: 1.5", "", "draft_min_p is 1.5, want 0 to 1"},
		{"unknown level", "", "WINNOW_LOG=loud", "loud"},
		{"missing file", "", "WINNOW_CONFIG=nowhere.yaml", "nowhere.yaml"},
		{"unknown exporter", "", "OTEL_TRACES_EXPORTER=zipkin", "want one of otlp, console, none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			isolate(t)
			if c.file != "" {
				write(t, FileName, c.file)
			}
			_, err := load(nil, []string{c.environ})
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %q", err)
			}
		})
	}
}

// A service called winnow makes Kubernetes set these in every pod beside it.
func TestVariablesOfKubernetesAreNotKeys(t *testing.T) {
	isolate(t)
	environ := []string{"WINNOW_PORT=tcp://10.0.0.1:80", "WINNOW_SERVICE_HOST=10.0.0.1", "WINNOW_PORT_80_TCP_PORT=80"}
	if _, err := load(nil, environ); err != nil {
		t.Error(err)
	}
}

func TestTelemetryIsExportedWhenAsked(t *testing.T) {
	isolate(t)
	for environ, want := range map[string]Telemetry{
		"":                           {},
		"OTEL_TRACES_EXPORTER=otlp":  {Traces: true},
		"OTEL_LOGS_EXPORTER=console": {Logs: true},
		"OTEL_METRICS_EXPORTER=otlp": {Metrics: true},
		"OTEL_TRACES_EXPORTER=none OTEL_EXPORTER_OTLP_ENDPOINT=http://x":             {Metrics: true, Logs: true},
		"OTEL_METRICS_EXPORTER=prometheus OTEL_EXPORTER_OTLP_ENDPOINT=http://x":      {Traces: true, Logs: true},
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://x":                                       {Traces: true, Metrics: true, Logs: true},
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://x":                                {Traces: true},
		"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=http://x":                                  {Logs: true},
		"OTEL_EXPORTER_OTLP_ENDPOINT=":                                               {},
		"OTEL_SDK_DISABLED=true OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://x:4318/v1": {},
	} {
		c, err := load(nil, strings.Fields(environ))
		if err != nil || c.Telemetry != want {
			t.Errorf("%q: %+v %v, want %+v", environ, c.Telemetry, err, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "17": 17, "8MiB": 8 << 20, "1.5 kb": 1500, "2GiB": 2 << 30, "12B": 12, "1TB": 1e12} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q: %d %v, want %d", text, b, err, want)
		}
		var again Bytes
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%q reads back as %d %v", b, again, err)
		}
	}
}

func TestEveryKeyCanBeAFlag(t *testing.T) {
	isolate(t)
	fs := parsed(t, Keys())
	c, err := load(fs, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields() {
		if f.Tag.Get("help") == "" {
			t.Errorf("%s has no help", f.Name)
		}
	}
	if d, err := load(nil, nil); err != nil || !reflect.DeepEqual(c, d) {
		t.Errorf("flags that nobody set changed the defaults: %+v (%v)", c, err)
	}
}
