// Package winnow_test holds the architecture of this module as a test: which room may import which, what may stand where, and what
// every operation, format and function owes its reader. docs/README.md explains the rules.
package winnow_test

import (
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/winnow-llm/winnow"

// arrows says which rooms a room imports. A folder that is not here is no room: a new one needs a record in docs/decisions.
var arrows = map[string]string{
	"quant":     "",
	"tensor":    "quant",
	"attention": "quant tensor",
	"moe":       "quant tensor",
	"cpu":       "quant tensor attention moe",
	"cuda":      "quant tensor attention moe",
	"store":     "quant",
	"text":      "",
	"model":     "quant tensor attention moe store",
	"engine":    "quant tensor attention moe model",
	"serve":     "quant tensor engine model store text",
	"httpapi":   "serve",
	"compress":  "quant tensor attention moe store model",
	"configs":   "",
	"cmd":       "quant tensor attention moe cpu cuda store text model engine serve httpapi compress configs",
	"test":      "", // conformance clients, run from outside
}

// imports says which rooms may import packages whose path begins so.
var imports = map[string]string{
	"C":                                    "cpu cuda",
	"github.com/gin-gonic/":                "httpapi",
	"github.com/gin-contrib/":              "httpapi",
	"go.opentelemetry.io/":                 "serve httpapi cmd",
	"github.com/prometheus/":               "httpapi cmd",
	"net/http":                             "store httpapi cmd",
	"go.yaml.in/":                          "configs",
	"gopkg.in/yaml":                        "configs",
	"github.com/goccy/go-yaml":             "configs",
	"github.com/knadh/koanf":               "configs",
	"github.com/spf13/cobra":               "cmd",
	"golang.org/x/term":                    "cmd",
	"gorgonia.org/cu":                      "cuda",
	"github.com/stretchr/testify":          "",
	"github.com/google/go-cmp":             "",
	"github.com/ollama/ollama/server":      "",
	"github.com/ollama/ollama/cmd":         "",
	"github.com/ollama/ollama/llm":         "",
	"github.com/ollama/ollama/runner":      "",
	"github.com/ollama/ollama/middleware":  "",
	"github.com/ollama/ollama/envconfig":   "",
	"github.com/ollama/ollama/tokenizer":   "",
	"github.com/ollama/ollama/convert":     "",
	"github.com/ollama/ollama/fs/gguf":     "",
	"github.com/ollama/ollama/x/":          "",
	"github.com/ollama/ollama/ml":          "",
	"github.com/ollama/ollama/kvcache":     "",
	"github.com/ollama/ollama/model/input": "",
}

// selectors says which rooms may use a name of another package, tests excepted.
var selectors = map[string]string{
	"os.Getenv": "configs", "os.LookupEnv": "configs", "os.Environ": "configs", "os.ExpandEnv": "configs",
	"http.Get": "store cmd", "http.Head": "store cmd", "http.Post": "store cmd", "http.PostForm": "store cmd",
	"http.Client": "store cmd", "http.DefaultClient": "store cmd", "http.NewRequest": "store cmd",
	"http.NewRequestWithContext": "store cmd", "http.Transport": "store cmd", "http.DefaultTransport": "store cmd",
}

// source is one Go file of the module.
type source struct {
	path string // from the root, with slashes: "cpu/run.go"
	room string // "cpu"; "" for the root
	text string
	ast  *ast.File
	fset *token.FileSet
}

func (s *source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s *source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

// sources are the Go files of the module, parsed once.
func sources(t *testing.T) []*source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found %d Go files: not run in the root of the module", len(all))
	}
	return all
}

// parsed takes every Go file whatever its build tags, so that what one build leaves out is held to the same rules.
var parsed = sync.OnceValues(func() (out []*source, err error) {
	fset := token.NewFileSet()
	err = filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		file = filepath.ToSlash(file)
		if d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") && file != "."
			if hidden || contains("testdata models build bin", d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(file) != ".go" {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, file, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		room, _, inside := strings.Cut(file, "/")
		if !inside {
			room = ""
		}
		out = append(out, &source{path: file, room: room, text: string(text), ast: f, fset: fset})
		return nil
	})
	return out, err
})

func contains(words, word string) bool { return slices.Contains(strings.Fields(words), word) }

// mayImport applies the arrows. A test may also import what its room imports through others; one in an external test package any
// room but cmd.
func mayImport(s *source, room string) bool {
	switch {
	case s.room == "" && s.test(), s.room == room, contains(arrows[s.room], room):
		return true
	case !s.test():
		return false
	case strings.HasSuffix(s.ast.Name.Name, "_test"):
		return room != "cmd"
	}
	for _, between := range strings.Fields(arrows[s.room]) {
		if contains(arrows[between], room) {
			return true
		}
	}
	return false
}

func TestArrows(t *testing.T) {
	for _, s := range sources(t) {
		if _, known := arrows[s.room]; !known && s.room != "" {
			t.Errorf("%s: %s/ is no room of the house: give it a line in arrows and a decision record", s.path, s.room)
		}
		for _, i := range s.ast.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if inner, ours := strings.CutPrefix(name, module+"/"); ours {
				room, _, _ := strings.Cut(inner, "/")
				if !mayImport(s, room) {
					t.Errorf("%s: %s/ may not import %s", s.at(i), s.room, inner)
				}
				continue
			}
			for prefix, rooms := range imports {
				whole := name == prefix || strings.HasPrefix(name, prefix) && prefix != "C"
				if whole && !contains(rooms, s.room) && !(s.test() && name != "C" && rooms != "" && s.room != "engine") {
					t.Errorf("%s: %s may be imported in %q only", s.at(i), name, rooms)
				}
			}
		}
	}
}

func TestNamesOfOtherPackages(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok {
				name := x.Name + "." + sel.Sel.Name
				if rooms, ruled := selectors[name]; ruled && !contains(rooms, s.room) {
					t.Errorf("%s: %s may stand in %q only", s.at(n), name, rooms)
				}
			}
			return true
		})
	}
}

// system matches file names that the go command builds on some machines only.
var system = regexp.MustCompile(`_(linux|darwin|windows|freebsd|netbsd|openbsd|android|ios|js|wasip1|plan9|amd64|arm64|386|arm|riscv64|wasm)(_test)?\.go$`)

func TestBuildTags(t *testing.T) {
	var store, cmd []string
	for _, s := range sources(t) {
		tagged := system.MatchString(s.path)
		for _, line := range strings.Split(s.text[:strings.Index(s.text, "package ")], "\n") {
			tagged = tagged || constraint.IsGoBuild(line)
		}
		switch {
		case !tagged || s.room == "cpu" || s.room == "cuda":
		case s.room == "store" && strings.HasPrefix(path.Base(s.path), "mmap_"):
			store = append(store, s.path)
		case s.room == "cmd":
			cmd = append(cmd, s.path)
		default:
			t.Errorf("%s: build tags stand in cpu/, cuda/, the mmap pair of store/ and one file of cmd/", s.path)
		}
	}
	if len(store) > 2 || len(cmd) > 1 {
		t.Errorf("build tags in %v (a pair) and %v (one file)", store, cmd)
	}
}

// The newest version that the module proxy names for ollama is older than the one that Winnow is written against, so an update by
// hand or by tool goes backwards.
func TestOllamaStaysPinned(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if pin := "\tgithub.com/ollama/ollama v0.34.0\n"; !strings.Contains(string(mod), pin) {
		t.Errorf("go.mod does not hold %q: change both together", strings.TrimSpace(pin))
	}
}
