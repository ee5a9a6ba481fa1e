package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
)

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

const talesFile = `FROM ../demo.gguf
PARAMETER temperature 0.5
PARAMETER stop "The End"
TEMPLATE """{{ range .Messages }}{{ .Content }}
{{ end }}"""
SYSTEM Be brief.
LICENSE You may.
`

func TestModelsOfTheStoreComeAndGo(t *testing.T) {
	dir := alone(t)
	writeFile(t, "demo.gguf", string(demo.GGUF))
	writeFile(t, "made/Modelfile", talesFile)
	_, said, err := winnow(t, "", "create", "tales", "-f", "made/Modelfile")
	if err != nil || !strings.HasSuffix(said, "writing manifest\nsuccess\n") || strings.Count(said, "copying demo.gguf\n") != 1 {
		t.Fatal(err, said)
	}
	must(t, "", "create", "plain", "--from", "demo.gguf")
	must(t, "", "create", "child:x", "--from", "tales")
	if out := must(t, "", "cp", "Tales", "other/tales"); out != "copied 'Tales' to 'other/tales'\n" {
		t.Error(out)
	}
	var names []string
	for _, line := range strings.Split(strings.TrimSpace(must(t, "", "list")), "\n")[2:] {
		fields := strings.Fields(line)
		names = append(names, fields[0])
		if len(fields) < 6 || len(fields[1]) != 12 || fields[2] != "7.6" {
			t.Error(line)
		}
	}
	if got := strings.Join(names, " "); got != "child:x other/tales:latest plain:latest tales:latest" {
		t.Error(got)
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "store", "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	large := 0
	for _, b := range blobs {
		if st, err := b.Info(); err == nil && st.Size() == int64(len(demo.GGUF)) {
			large++
		}
	}
	if large != 1 {
		t.Errorf("the weights are there %d times", large)
	}
	out, notes, err := winnow(t, "", "rm", "child:x", "nobody", "tales")
	if out != "deleted 'child:x'\ndeleted 'tales'\n" || notes != "" || err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Error(out, notes, err)
	}
	must(t, "", "rm", "other/tales", "plain")
	if blobs, err = os.ReadDir(filepath.Join(dir, "store", "blobs")); err != nil || len(blobs) != 0 {
		t.Errorf("%v, %v", blobs, err)
	}
}

func TestShow(t *testing.T) {
	dir := alone(t)
	writeFile(t, "demo.gguf", string(demo.GGUF))
	writeFile(t, "made/Modelfile", talesFile)
	must(t, "", "create", "tales", "-f", "made/Modelfile")
	out := must(t, "", "show", "tales")
	for _, want := range []string{
		"  Model\n    architecture        qwen3moe\n    parameters          6.96M\n    context length      2048\n",
		"    embedding length    256\n    quantization        Q8_0\n\n", "  Capabilities\n    completion\n\n",
		"  Parameters\n    stop           \"The End\"\n    temperature    0.5\n", "  System\n    Be brief.\n\n", "  License\n    You may.\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	for flag, want := range map[string]string{
		"--template": "{{ range .Messages }}{{ .Content }}\n{{ end }}\n", "--system": "Be brief.\n", "--license": "You may.\n",
		"--parameters": "stop                           \"The End\"\ntemperature                    0.5\n",
	} {
		if out := must(t, "", "show", "tales", flag); out != want {
			t.Errorf("%s: %q", flag, out)
		}
	}
	// What --modelfile prints makes the same model again, of the same file.
	file := must(t, "", "show", "tales", "--modelfile")
	if !strings.Contains(file, "# FROM tales:latest\n\nFROM "+filepath.Join(dir, "store", "blobs")) {
		t.Error(file)
	}
	writeFile(t, "again", file)
	must(t, "", "create", "again", "-f", "again")
	if a, b := must(t, "", "show", "tales"), must(t, "", "show", "again"); a != b {
		t.Errorf("%s\n%s", a, b)
	}
	out = must(t, "", "show", "tales", "-v")
	for _, want := range []string{"tokenizer.ggml.tokens", "...+4093 more]", "token_embd.weight", "Q8_0", "[4096 256]"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	for _, name := range []string{"demo", "./demo.gguf"} {
		if out := must(t, "", "show", name); !strings.Contains(out, "qwen3moe") || strings.Contains(out, "System") {
			t.Errorf("%s: %s", name, out)
		}
		if out := must(t, "", "show", name, "--template"); !strings.Contains(out, "messages") {
			t.Errorf("%s: %s", name, out)
		}
	}
}

func TestChangesThatAreRefused(t *testing.T) {
	dir := alone(t)
	writeFile(t, "cut.gguf", string(demo.GGUF[:5000]))
	writeFile(t, "store/mine.gguf", string(demo.GGUF))
	writeFile(t, "hf/config.json", "{}")
	writeFile(t, "wrong", "FROM mine\nPARAMETER warmth 1\n")
	for _, c := range []struct{ args, want string }{
		{"create x", "Modelfile: no such file"},
		{"create x -f missing", "missing"},
		{"create x -f wrong", `wrong: Modelfile: parameter "warmth"`},
		{"create x --from nobody", "no such model: nobody"},
		{"create x --from ./missing.gguf", "missing.gguf"},
		{"create x --from cut.gguf", "cut.gguf"},
		{"create x --from hf", "served where they are"},
		{"create x -f wrong --from mine", "were all set"},
		{"create demo --from mine", "inside this binary"},
		{"create a/../b --from mine", "not a valid model name"},
		{"create mine --from mine", "name is taken"},
		{"cp nobody x", "no such model"},
		{"cp demo x", "inside this binary"},
		{"cp mine x", "placed in the store"},
		{"rm demo", "inside this binary"},
		{"rm mine", "placed in the store"},
		{"rm nobody", "no such model"},
		{"rm", "requires at least 1 arg"},
		{"show nobody", "no such model"},
		{"show ./cut.gguf", "cut.gguf"},
		{"show mine --system --license", "none of the others can be"},
	} {
		if _, _, err := winnow(t, "", strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("winnow %s: %v, want %q", c.args, err, c.want)
		}
	}
	// A model of the store may be made of a file that lies there.
	must(t, "", "create", "x", "--from", "mine")
	if left, err := filepath.Glob(filepath.Join(dir, "store", "*", "winnow-temp-*")); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}
