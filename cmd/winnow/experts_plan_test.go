package main

import (
	"os"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
)

// demoProfile writes a profile of the demo: expert e of layer l was chosen by tokens/(e+1) tokens, except as change says.
func demoProfile(t *testing.T, path string, tokens int64, change func(*compress.Profile)) {
	t.Helper()
	c, err := openPath("demo")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := compress.Profile{Model: c.Fingerprint(), Arch: "qwen3moe", Calibration: moe.Calibration{Tokens: tokens, SHA256: strings.Repeat("ab", 32)}}
	for range 6 {
		l := compress.LayerProfile{Tokens: tokens, K: 2, Usage: make([]int64, 8), Weight: make([]float64, 8), Weight2: make([]float64, 8),
			Saliency: make([]float64, 8), Largest: make([]float64, 8)}
		for e := range 8 {
			l.Usage[e] = tokens / int64(2*e+2)
			l.Saliency[e] = float64(l.Usage[e]) * float64(1+e) // the least used weigh most
		}
		p.Layers = append(p.Layers, l)
	}
	change(&p)
	if err := compress.WriteProfile(path, p); err != nil {
		t.Fatal(err)
	}
}

// checkedOverlay reads an overlay and has the demo check it.
func checkedOverlay(t *testing.T, path string) *moe.Overlay {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o, err := moe.ParseOverlay(raw)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openPath("demo")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	spec, err := model.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	for l := range o.Layers {
		if err := o.Check(l, *spec.Layers[l].Router, spec.Layers[l].Map); err != nil {
			t.Error(err)
		}
	}
	if o.Model != c.Fingerprint() {
		t.Errorf("made out to %s", o.Model)
	}
	return o
}

func TestPlanWithoutAProfile(t *testing.T) {
	alone(t)
	out := must(t, "", "experts", "plan", "demo", "--keep", "0.5", "-o", "a.json")
	if !strings.HasPrefix(out, "LAYER  EXPERTS  STAY  GO\n0      8        ") || !strings.Contains(out, "\n24 of 48 experts stay; 2.5 MB of 7.4 MB saved\n") {
		t.Error(out)
	}
	gone := 0
	for _, l := range checkedOverlay(t, "a.json").Layers {
		gone += len(l.Drop)
	}
	if gone != 24 {
		t.Errorf("%d experts go", gone)
	}
	must(t, "", "experts", "plan", "demo", "--method", "stun", "--keep", "0.5", "-o", "b.json", "--lambda", "2,0")
	for _, seed := range []string{"1", "1", "2"} {
		must(t, "", "experts", "plan", "demo", "--method", "random", "--seed", seed, "-o", "r"+seed+".json")
	}
	read := func(path string) string {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	if read("a.json") != read("b.json") {
		t.Error("scaling distances changes the plan")
	}
	if read("r1.json") == read("r2.json") || strings.Contains(read("r1.json"), "[\n") {
		t.Error(read("r1.json"))
	}
}

func TestPlanMergesWhatIsToBeAveraged(t *testing.T) {
	alone(t)
	out := must(t, "", "experts", "plan", "demo", "--method", "stun", "--keep", "0.3", "--merge", "-o", "a.json")
	if !strings.Contains(out, "fewer than 3 clusters are left in ") || !strings.HasSuffix(out, "; they are merged\n") {
		t.Error(out)
	}
	merged := 0
	for _, l := range checkedOverlay(t, "a.json").Layers {
		merged += len(l.Merge)
	}
	if merged == 0 {
		t.Error("nothing is merged")
	}
}

func TestPlanFromAProfile(t *testing.T) {
	alone(t)
	demoProfile(t, "p.json", 1<<16, func(p *compress.Profile) { p.Layers[3].Usage[2], p.Layers[3].Saliency[2] = 0, 0 })
	for method, want := range map[string]string{"reap": "0 1", "frequency": "6 7", "hybrid": ""} {
		out := must(t, "", "experts", "plan", "demo", "--method", method, "--profile", "p.json", "-o", "o.json", "--lambda", "1,0")
		if !strings.Contains(out, "profile of 65536 tokens: 1 of 48 experts saw fewer than 256 tokens\nlayer 3: experts 2\n") {
			t.Error(out)
		}
		o := checkedOverlay(t, "o.json")
		if o.Method != method || o.Keep != 0.75 || o.Calibration == nil || o.Calibration.Tokens != 1<<16 {
			t.Errorf("%+v", o)
		}
		if want != "" && strings.Count(out, "6     "+want+"\n") != 5 {
			t.Errorf("%s: %s", method, out)
		}
	}
	must(t, "", "experts", "plan", "demo", "--method", "reap", "--profile", "p.json", "-o", "o.json")
	if o := checkedOverlay(t, "o.json"); len(o.Layers[3].Drop) != 2 || o.Layers[3].Drop[1] != 2 {
		t.Errorf("the expert that was never chosen stays: %v", o.Layers[3])
	}
}

// A text in place of a profile makes the same plan as the profile that is made of it.
func TestPlanFromAText(t *testing.T) {
	alone(t)
	writeFile(t, "text.txt", strings.Repeat(story+" ", 12))
	must(t, "", "experts", "profile", "demo", "--text", "text.txt", "-o", "p.json", "--log", "warn")
	must(t, "", "experts", "plan", "demo", "--method", "reap", "--force", "--profile", "p.json", "-o", "a.json")
	must(t, "", "experts", "plan", "demo", "--method", "reap", "--force", "--calib", "text.txt", "-o", "b.json", "--log", "warn")
	a, err := os.ReadFile("a.json")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile("b.json"); err != nil || string(b) != string(a) {
		t.Errorf("%v: %s, want %s", err, b, a)
	}
	if _, _, err := winnow(t, "", "experts", "plan", "demo", "--calib", "text.txt", "--profile", "p.json", "-o", "c.json"); err == nil {
		t.Error("a text and a profile are both taken")
	}
}

func TestPlanOfEverySubset(t *testing.T) {
	alone(t)
	writeFile(t, "text.txt", story)
	out := must(t, "", "experts", "plan", "demo", "--method", "naee", "--text", "text.txt", "--tokens", "20", "--length", "8", "-o", "o.json", "--log", "warn")
	if !strings.Contains(out, "\n36 of 48 experts stay; ") {
		t.Error(out)
	}
	o := checkedOverlay(t, "o.json")
	for l := range 6 {
		if len(o.Layers[l].Drop) != 2 {
			t.Errorf("layer %d: %v", l, o.Layers[l])
		}
	}
	if o.Method != "naee" || o.Calibration == nil || o.Calibration.Tokens != 20 {
		t.Errorf("%+v", o)
	}
}

func TestPlansThatAreRefused(t *testing.T) {
	alone(t)
	demoProfile(t, "short.json", 400, func(*compress.Profile) {})
	demoProfile(t, "other.json", 1<<16, func(p *compress.Profile) { p.Model = strings.Repeat("0", 64) })
	demoProfile(t, "layers.json", 1<<16, func(p *compress.Profile) { p.Layers = p.Layers[:5] })
	writeFile(t, "broken.json", `{"format":1,"layers":[{"tokens":`)
	for _, c := range []struct{ args, want string }{
		{"demo", `"output" not set`},
		{"demo -o o.json --method reap", "method reap needs a profile"},
		{"demo -o o.json --method best", `method "best", want one of frequency, hybrid, naee, random, reap, stun`},
		{"demo -o o.json --method stun --keep 0", "keep 0"},
		{"demo -o o.json --method stun --keep 0.1", "more than floors, groups and protected experts allow"},
		{"demo -o o.json --method stun --lambda 1", "--lambda has 1 numbers, want 2"},
		{"demo -o o.json --method stun --lambda 0,1", "no profile holds it"},
		{"demo -o missing/o.json --method stun", "missing"},
		{"demo -o o.json --method reap --profile short.json", "layer 0: 400 tokens are 100 an expert, want 256: expert 0 (200 tokens)"},
		{"demo -o o.json --profile other.json", "the profile is of model 000000000000"},
		{"demo -o o.json --profile layers.json", "a profile of 5 layers for a model of 6"},
		{"demo -o o.json --profile broken.json", "broken.json"},
		{"demo -o o.json --profile missing.json", "missing.json"},
		{"nowhere -o o.json", "nowhere"},
		{"demo -o o.json --method naee --tokens 0", "--tokens 0, want at least 1"},
		{"demo -o o.json --method naee", "the text is empty"},
		{"demo -o o.json --method naee --text broken.json --ragged", "keeps as many experts in each"},
		{"demo -o o.json --method naee --text broken.json --keep 0.1", "layer 0: 1 of 8 experts are to stay, at least 2 must"},
	} {
		_, _, err := winnow(t, "", append([]string{"experts", "plan"}, strings.Fields(c.args)...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("winnow experts plan %s: %v, want %q", c.args, err, c.want)
		}
	}
	if _, err := os.Stat("o.json"); err == nil {
		t.Error("a refusal leaves an overlay")
	}
	for _, profile := range []string{"short.json", "other.json"} {
		must(t, "", "experts", "plan", "demo", "--method", "reap", "-o", "o.json", "--force", "--profile", profile)
	}
}
