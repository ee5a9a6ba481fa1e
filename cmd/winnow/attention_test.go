package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
)

// evaluated is the perplexity of the demo with flags.
func evaluated(t *testing.T, flags ...string) (p perplexity) {
	t.Helper()
	out := must(t, "", append([]string{"eval", "demo", "--perplexity", "text", "--ctx", "512", "--chunks", "1", "--json", "--log", "warn"}, flags...)...)
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return p
}

// What calibrate finds reaches the recall that was asked for, with fewer keys for a lower one, and a model is run by it.
func TestAttentionCalibrate(t *testing.T) {
	alone(t)
	writeFile(t, "text", strings.Repeat(story, 60))
	out := must(t, "", "attention", "calibrate", "demo", "--text", "text", "--context", "512", "--recall", "0.9,0.6", "--selectors", "streaming,quest", "-o", "p.json", "--log", "warn")
	if again := must(t, "", "attention", "info", "p.json"); again != out || !strings.Contains(out, "demo (") || !strings.Contains(out, "6 of 6 layers at 512 tokens") {
		t.Errorf("%s\n%s", out, again)
	}
	p, err := model.ReadSparseProfile("p.json")
	if err != nil || len(p.Settings) != 6 || p.Name != "demo" {
		t.Fatalf("%+v, %v", p, err)
	}
	for i := range p.Settings {
		for l, recall := range p.Settings[i].Recalls {
			if s := p.Settings[i]; recall < s.Recall || s.Ms <= 0 || s.MsDense <= 0 || i%2 == 1 && s.Densities[l] > p.Settings[i-1].Densities[l] {
				t.Errorf("%+v", s)
			}
		}
	}
	const asked = "prefill=streaming,prefill_from=0,recall="
	all := evaluated(t, "--sparse", "")
	few := evaluated(t, "--sparse", asked+"0.6", "--sparse-profile", "p.json")
	more := evaluated(t, "--sparse", asked+"0.8", "--sparse-profile", "p.json")
	plain := evaluated(t, "--sparse", asked+"0.8")
	if few.Nats == all.Nats || more.Nats == few.Nats || plain.Nats == more.Nats || plain.Nats != all.Nats {
		t.Errorf("%v nats with all keys, %v at 0.6, %v at 0.9, %v with a window of all", all.Nats, few.Nats, more.Nats, plain.Nats)
	}
	for i := range p.Settings {
		p.Settings[i].Ms, p.Settings[i].MsDense = 1, 2
	}
	if err := model.WriteSparseProfile("p.json", p); err != nil {
		t.Fatal(err)
	}
	if x := evaluated(t, "--sparse-profile", "p.json"); x.Sparse != "prefill=streaming,decode=streaming,recall=0.9" {
		t.Errorf("by itself it reads by %q", x.Sparse)
	}
	if x := evaluated(t, "--sparse-profile", "p.json", "--sparse", ""); x.Sparse != "" || x.Nats != all.Nats {
		t.Errorf("%+v where it is switched off", x)
	}
	_, _, err = winnow(t, "", "eval", "demo", "--perplexity", "text", "--ctx", "512", "--sparse", asked+"0.99", "--sparse-profile", "p.json")
	if !errors.Is(err, model.ErrSparse) || !strings.Contains(err.Error(), "recall is 0.99, streaming is calibrated for") {
		t.Error(err)
	}
}

func TestAttentionCalibrateThatIsRefused(t *testing.T) {
	alone(t)
	writeFile(t, "text", strings.Repeat(story, 20))
	writeFile(t, "taken", "{}")
	for args, want := range map[string]string{
		"calibrate demo --text text":                                          `"output" not set`,
		"calibrate demo --text text -o taken":                                 "name is taken",
		"calibrate demo --text text -o x.json --recall 1.5":                   "--recall is",
		"calibrate demo --text text -o x.json --selectors none":               `no selector "none"`,
		"calibrate demo --text text -o x.json --context 64":                   "256 to 2048",
		"calibrate demo --text text -o x.json --context 2048":                 "none has 2048 tokens",
		"calibrate demo --text text -o x.json --context 256 --selectors seer": "without a model",
		"info taken": "format is 0, want 2: calibrate again",
	} {
		_, _, err := winnow(t, "", append([]string{"attention"}, append(strings.Fields(args), "--log", "warn")...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
		if _, err := os.Stat("x.json"); err == nil {
			t.Fatalf("%s: something is written", args)
		}
	}
}

// Verbs score with a model's own gates. What they need and do not have, and gates of another model, they refuse by name.
func TestGatesOfVerbs(t *testing.T) {
	second, err := filepath.Abs("../../model/testdata/llama_tied")
	if err != nil {
		t.Fatal(err)
	}
	alone(t)
	writeFile(t, "text", strings.Repeat(story, 150))
	must(t, "", "gates", "train", "demo", "--calib", "text", "--context", "512", "--steps", "2", "--rows", "32", "--trial", "1", "-o", "g.gguf", "--log", "warn")
	const asked = "prefill=seer,prefill_from=0,seer.sink=0,seer.last_block_dense=0,threshold="
	all, few := evaluated(t), evaluated(t, "--gates", "g.seer.gguf", "--gates", "g.seer_decode.gguf", "--sparse", asked+"0.3")
	if every := evaluated(t, "--gates", "g.seer.gguf", "--sparse", asked+"0"); few.Nats == all.Nats || every.Nats != all.Nats {
		t.Errorf("%v nats with all keys, %v above a probability of 0.3, %v above none", all.Nats, few.Nats, every.Nats)
	}
	raw, err := os.ReadFile("g.seer.gguf")
	if err != nil {
		t.Fatal(err)
	}
	g, err := model.ReadGates("g.seer.gguf")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "other.gguf", strings.Replace(string(raw), g.Base, strings.Repeat("0", 64), 1))
	for _, c := range []struct{ flags, want string }{
		{"--sparse prefill=seer", "seer scores with trained gates, and gates names no file of seer gates of this model"},
		{"--sparse prefill=seer,decode=seer_decode --gates g.seer.gguf", "no file of seer_decode gates"},
		{"--sparse prefill=seer --gates other.gguf", "other.gguf: base model is 000000000000"},
		{"--gates text", "text"},
	} {
		for _, verb := range []string{"eval demo --perplexity text", "bench demo -p 64 -n 0 -r 1", "run demo hello", "serve demo"} {
			_, _, err := winnow(t, "", strings.Fields(verb+" "+c.flags+" --log warn")...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: %v, want %q", verb, c.flags, err, c.want)
			}
		}
	}
	_, _, err = winnow(t, "", "serve", second, "demo", "--gates", "g.seer.gguf", "--gates", "other.gguf", "--log", "warn")
	if !errors.Is(err, model.ErrGates) || !strings.HasPrefix(err.Error(), "other.gguf: of none of the 2 models that are served") {
		t.Error(err)
	}
}

// Verbs have heads stream as a pattern says. What they need and do not have, and patterns that are none of the model, they refuse by name.
func TestHeadsOfVerbs(t *testing.T) {
	alone(t)
	writeFile(t, "text", strings.Repeat(story, 150))
	writeFile(t, "heads.tsv", "0.9\t0.1\n0\t0\n0.2\t1\n0.7\t0.8\n0.3\t0\n0.1\t0.2\n")
	writeFile(t, "few.tsv", "0.9\t0.1\n")
	writeFile(t, "bad.tsv", "0.9\t0.1\n0\thalf\n")
	const asked = "prefill=duo,prefill_from=0,threshold=0,duo.sink=0,duo.sparsity="
	all := evaluated(t)
	none, some := evaluated(t, "--duo-heads", "heads.tsv", "--sparse", asked+"0"), evaluated(t, "--duo-heads", "heads.tsv", "--sparse", asked+"0.5")
	if none.Nats != all.Nats || some.Nats == all.Nats {
		t.Errorf("%v nats with all keys, %v where no head streams, %v where half of them do", all.Nats, none.Nats, some.Nats)
	}
	for _, c := range []struct{ flags, want string }{
		{"--sparse prefill=duo", "duo needs a pattern of heads: duo_heads names no file of a pattern of this model"},
		{"--sparse prefill=duo,duo.sparsity=2 --duo-heads heads.tsv", "sparsity is 2"},
		{"--sparse prefill=duo --duo-heads few.tsv", "few.tsv: attention: duo needs a pattern of heads: one for 1 layers is given, the model has 6"},
		{"--duo-heads bad.tsv", "bad.tsv: attention: no pattern of heads: line 2, column 2"},
		{"--sparse prefill=duo --duo-heads heads.tsv --duo-heads heads.tsv", "two patterns of heads are for"},
	} {
		for _, verb := range []string{"eval demo --perplexity text", "bench demo -p 64 -n 0 -r 1", "run demo hello", "serve demo"} {
			_, _, err := winnow(t, "", strings.Fields(verb+" "+c.flags+" --log warn")...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: %v, want %q", verb, c.flags, err, c.want)
			}
		}
	}
}
