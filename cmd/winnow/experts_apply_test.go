package main

import (
	"os"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
)

func TestExpertsApply(t *testing.T) {
	alone(t)
	writeFile(t, "two.json", `{"format":1,"method":"by hand","layers":{"0":{"drop":[1,5]},"1":{"drop":[0,2]},"2":{"drop":[6,7]},"3":{"drop":[3,4]},"4":{"drop":[0,1]},"5":{"drop":[2,5]}}}`)
	writeFile(t, "one.json", `{"format":1,"layers":{"0":{"drop":[1],"merge":[[2,3]]}}}`)
	writeFile(t, "other.json", `{"format":1,"model":"`+strings.Repeat("0", 64)+`","layers":{"0":{"drop":[1]}}}`)
	writeFile(t, "none.json", `{"format":1}`)
	writeFile(t, "bad.json", `{"format":1,"layers":{"0":{"drop":[9]}}}`)
	writeFile(t, "what.json", `{"format":1,"drop":[9]}`)
	out, notes, err := winnow(t, "", "experts", "apply", "demo", "--overlay", "two.json", "-o", "two.gguf", "--interop")
	if err != nil || !strings.HasPrefix(out, "wrote two.gguf: ") || !strings.Contains(notes, "writing two.gguf: 100% of ") {
		t.Fatal(err, out, notes)
	}
	if shown := must(t, "", "inspect", "./two.gguf"); !strings.Contains(shown, "6 experts") && !strings.Contains(shown, "of 6") {
		t.Error(shown)
	}
	must(t, "", "experts", "apply", "demo", "none.json", "-o", "none.gguf")
	if b, err := os.ReadFile("none.gguf"); err != nil || string(b) != string(demo.GGUF) {
		t.Errorf("nothing was dropped, and the file differs: %v", err)
	}
	must(t, "", "experts", "apply", "demo", "--overlay", "one.json", "-o", "one.gguf", "--merge", "average")
	must(t, "", "experts", "apply", "demo", "--overlay", "other.json", "-o", "other.gguf", "--force")
	for _, c := range []struct{ args, says string }{
		{"demo -o x.gguf", "PLAN names what to drop"},
		{"demo two.json --overlay two.json -o x.gguf", "named twice"},
		{"demo --overlay two.json", "--output the model to write"},
		{"demo --overlay two.json -o two.gguf", "name is taken"},
		{"demo --overlay one.json -o x.gguf --interop", "other programs cannot run it: layer 0 has 7 experts"},
		{"demo --overlay other.json -o x.gguf", "made for tensors that are known by 000000000000"},
		{"demo --overlay bad.json -o x.gguf", "layer 0: drop: expert 9 of 8"},
		{"demo --overlay what.json -o x.gguf", `what.json: moe: overlay: json: unknown field "drop"`},
		{"demo --overlay missing.json -o x.gguf", "no such file"},
		{"demo --overlay one.json -o x.gguf --merge mean", `merging "mean", want share or average`},
		{"demo --overlay one.json -o none/x.gguf", "no such file"},
		{"nothing --overlay one.json -o x.gguf", "no such model"},
	} {
		_, _, err := winnow(t, "", append([]string{"experts", "apply"}, strings.Fields(c.args)...)...)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "experts apply: ") {
			t.Errorf("%s: %v", c.args, err)
		}
		if _, err := os.Stat("x.gguf"); err == nil {
			t.Fatalf("%s: something is left", c.args)
		}
	}
}
