package winnow_test

import (
	"go/ast"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	packages := "util utils common helper helpers types base manager managers misc shared lib core"
	suffix := regexp.MustCompile(`.(Manager|Handler|Helper|Util|Impl|Info|Data)s?$|^Base`)
	getter := regexp.MustCompile(`^Get[A-Z]`)
	for _, s := range sources(t) {
		if contains(packages, strings.TrimSuffix(s.ast.Name.Name, "_test")) {
			t.Errorf("%s: a package called %s says nothing", s.path, s.ast.Name.Name)
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if getter.MatchString(d.Name.Name) {
					t.Errorf("%s: %s: the house leaves Get away", s.at(d), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					typ, ok := spec.(*ast.TypeSpec)
					if !ok {
						continue
					}
					if suffix.MatchString(typ.Name.Name) {
						t.Errorf("%s: type %s: name what it is", s.at(typ), typ.Name.Name)
					}
					if name := typ.Name.Name; s.room == "engine" && (strings.HasSuffix(name, "Status") || strings.HasSuffix(name, "Phase")) {
						t.Errorf("%s: type %s: a request is three counters, its phase is derived", s.at(typ), name)
					}
				}
			}
		}
	}
}

// parameters counts the values that a function takes, and those that are booleans.
func parameters(f *ast.FuncType) (all, booleans int) {
	for _, p := range f.Params.List {
		n := max(1, len(p.Names))
		all += n
		if id, ok := p.Type.(*ast.Ident); ok && id.Name == "bool" {
			booleans += n
		}
	}
	return all, booleans
}

func TestParameters(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			all, booleans := parameters(f.Type)
			if all > 5 {
				t.Errorf("%s: %s takes %d parameters: make them a struct", s.at(f), f.Name.Name, all)
			}
			conversion := all == 1 && f.Recv == nil // Bool(v bool) Value
			if booleans > 0 && f.Name.IsExported() && !conversion {
				t.Errorf("%s: %s takes a boolean: two functions, or a named type, say more", s.at(f), f.Name.Name)
			}
		}
	}
}

func TestPanicsNameTheBug(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			if id, ok := call.Fun.(*ast.Ident); !ok || id.Name != "panic" {
				return true
			}
			if said := firstString(call.Args[0]); said != "" && !strings.HasPrefix(said, "winnow: bug: ") {
				t.Errorf("%s: panic(%q...): only broken invariants panic, and say so: winnow: bug: ...", s.at(n), said)
			}
			return true
		})
	}
}

// firstString is the string literal that an expression begins with, "" if none.
func firstString(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(e.Value); err == nil {
			return s
		}
	case *ast.BinaryExpr:
		return firstString(e.X)
	case *ast.CallExpr:
		if len(e.Args) > 0 {
			return firstString(e.Args[0])
		}
	}
	return ""
}

// op is a type with the three methods of tensor.Op.
type op struct {
	name   string // as in "moe.Route"
	file   *source
	fields *ast.StructType
}

func ops(all []*source) map[string]*op {
	methods, found := map[string]int{}, map[string]*op{}
	for _, s := range all {
		if s.test() || !contains("tensor attention moe", s.room) || path.Dir(s.path) != s.room {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv != nil && contains("Reference Operands Cost", n.Name.Name) {
					methods[s.room+"."+receiver(n)]++
				}
			case *ast.TypeSpec:
				if st, ok := n.Type.(*ast.StructType); ok {
					name := s.room + "." + n.Name.Name
					found[name] = &op{name: name, file: s, fields: st}
				}
			}
			return true
		})
	}
	maps.DeleteFunc(found, func(name string, _ *op) bool { return methods[name] != 3 })
	return found
}

func receiver(f *ast.FuncDecl) string {
	t := f.Recv.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// shape is what the comment of a matrix must hold: "rows x dim", "1 × experts".
var shape = regexp.MustCompile(`\S [x×] \S`)

func TestShapesStandBesideTheName(t *testing.T) {
	for _, o := range ops(sources(t)) {
		for _, f := range o.fields.Fields.List {
			typ := o.file.text[o.file.fset.Position(f.Type.Pos()).Offset:o.file.fset.Position(f.Type.End()).Offset]
			if typ != "Mat" && typ != "tensor.Mat" {
				continue
			}
			if !shape.MatchString(f.Comment.Text() + f.Doc.Text()) {
				t.Errorf("%s: the shape of this matrix of %s is missing: // rows x cols", o.file.at(f), o.name)
			}
		}
	}
}

// TestEveryOpHasAKernel reads the table in the source of cpu/, so that it holds for builds without cgo too. An op is there with the
// function that fills its descriptor, on(fillAdd), or by its Reference with the reason, byReference[*moe.RouteHash]("...").
func TestEveryOpHasAKernel(t *testing.T) {
	all := sources(t)
	have := kernelTable(t, all)
	found := ops(all)
	if len(found) == 0 {
		t.Fatal("found no op")
	}
	for name := range found {
		if _, ok := have[name]; !ok {
			t.Errorf("%s has no kernel in cpu/, and no reason there for having none", name)
		}
	}
	for name, why := range have {
		if found[name] == nil {
			t.Errorf("the table of cpu/ has %s, which is no op", name)
		}
		if why == "" {
			t.Errorf("the table of cpu/ runs %s by its Reference without a reason", name)
		}
	}
}

// kernelTable is the variable kernels of cpu/: op -> the function of its kernel, or the reason for having none.
func kernelTable(t *testing.T, all []*source) map[string]string {
	fills, entries := map[string]string{}, []ast.Expr(nil)
	for _, s := range all {
		if s.room != "cpu" || s.test() {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if p := n.Type.Params.List; len(p) > 0 {
					fills[n.Name.Name] = pointee(p[len(p)-1].Type)
				}
			case *ast.ValueSpec:
				if n.Names[0].Name == "kernels" && len(n.Values) == 1 {
					if call, ok := n.Values[0].(*ast.CallExpr); ok {
						entries = call.Args
					}
				}
			}
			return true
		})
	}
	out := map[string]string{}
	for _, e := range entries {
		call, ok := e.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 {
			t.Fatalf("an entry of the kernel table is neither on(...) nor byReference[...](...)")
		}
		if generic, ok := call.Fun.(*ast.IndexExpr); ok {
			out[pointee(generic.Index)] = firstString(call.Args[0])
		} else if fill, ok := call.Args[0].(*ast.Ident); ok {
			out[fills[fill.Name]] = fill.Name
		}
	}
	return out
}

// pointee is what a pointer type points at, written with its package: "tensor.Add" of *tensor.Add; "" for other types.
func pointee(e ast.Expr) string {
	if star, ok := e.(*ast.StarExpr); ok {
		if sel, ok := star.X.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok {
				return x.Name + "." + sel.Sel.Name
			}
		}
	}
	return ""
}

func TestFormatsSayTheirLayout(t *testing.T) {
	for _, s := range sources(t) {
		if s.room == "quant" && !s.test() && strings.Contains(s.text, "= register(") && !strings.Contains(s.text, "// Layout: ") {
			t.Errorf("%s: a format without its Layout paragraph", s.path)
		}
	}
}

func TestForwardReadsDownOnePage(t *testing.T) {
	for _, s := range sources(t) {
		if s.path != "model/forward.go" {
			continue
		}
		if n := strings.Count(s.text, "\n"); n > 200 {
			t.Errorf("%s has %d lines, at most 200", s.path, n)
		}
		if strings.Contains(s.text, "if err") || strings.Contains(s.text, "sync.") {
			t.Errorf("%s plumbs errors or locks", s.path)
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s: a goroutine in the forward pass", s.at(n))
			}
			return true
		})
		return
	}
	t.Error("there is no model/forward.go")
}

// TestSizes prints what is long; each is a question to answer, not a failure. make lint shows it.
func TestSizes(t *testing.T) {
	lines := map[string]int{}
	for _, s := range sources(t) {
		n := strings.Count(s.text, "\n")
		if s.test() {
			continue
		}
		if lines[path.Dir(s.path)] += n; n > 400 {
			t.Logf("%5d lines  %s", n, s.path)
		}
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				if n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1; n > 70 {
					t.Logf("%5d lines  %s %s", n, s.at(f), f.Name.Name)
				}
			}
		}
	}
	total := 0
	for _, dir := range slices.Sorted(maps.Keys(lines)) {
		t.Logf("%6d  %s/", lines[dir], dir)
		total += lines[dir]
	}
	t.Logf("%6d  lines of Go without tests", total)
}

// TestDocsNameFilesThatExist keeps the path of a request true.
func TestDocsNameFilesThatExist(t *testing.T) {
	named := regexp.MustCompile(`\b[a-z]+/[a-z0-9_/]+\.(go|yaml|py|md)\b`)
	for _, doc := range []string{"README.md", "CONTRIBUTING.md", "docs/README.md"} {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range named.FindAllString(string(text), -1) {
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s names %s, which is not there", doc, file)
			}
		}
	}
}
