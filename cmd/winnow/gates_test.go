package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
)

// Gates of both kinds learn from a text, are written each to a file of its own, and are the model's.
func TestGatesTrain(t *testing.T) {
	alone(t)
	writeFile(t, "text.txt", strings.Repeat(story, 150))
	out := must(t, "", "gates", "train", "demo", "--calib", "text.txt", "--context", "512", "--steps", "6", "--rows", "64", "--lr", "0.01", "-o", "g.gguf", "--log", "warn")
	for _, want := range []string{"g.seer.gguf: seer gates, loss ", "g.seer_decode.gguf: seer_decode gates, loss ", "BLOCKS  LAYER  GATE    AT BEST  BY PEAKS  MEAN KEY  QUEST   NEAREST  ANCHOR  XATTENTION\n12.5 %  all    0.", "\n25.0 %  5      0."} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	for _, kind := range []string{"seer", "seer_decode"} {
		out := must(t, "", "gates", "info", "g."+kind+".gguf", "--model", "demo", "--log", "warn")
		for _, want := range []string{"kind     " + kind + "\n", "6 of 4 heads, 2 key-value heads of 64", "steps    6\n", "recall   0.", "they are gates of demo"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
	}
	g, err := model.ReadGates("g.seer_decode.gguf")
	if err != nil || len(g.Layer[5].Query) != 2*2*64*64 || len(g.Layer[5].Key) != 2*3*64*64 || g.Layer[0].KeyNorm[0] == 1 {
		t.Errorf("%+v, %v", g.Heads, err)
	}
	if _, _, err := winnow(t, "", "gates", "train", "demo", "--calib", "text.txt", "-o", "g.gguf"); err == nil || !strings.Contains(err.Error(), "g.seer.gguf: name is taken") {
		t.Error(err)
	}
}

func TestGatesThatAreRefused(t *testing.T) {
	alone(t)
	writeFile(t, "taken", "")
	writeFile(t, "bad.pth", "PK")
	long := strings.Repeat(story, 60)
	for _, c := range []struct{ args, piped, want string }{
		{"train demo", "", `"output" not set`},
		{"train demo -o taken --kind seer", long, "name is taken"},
		{"train demo -o nowhere/x.gguf --kind seer", long, "nowhere"},
		{"train demo -o x.gguf --kind quest", long, `--kind "quest"`},
		{"train demo -o x.gguf --target sum", long, `--target "sum"`},
		{"train demo -o x.gguf --steps 0", long, "--steps 0"},
		{"train demo -o x.gguf --batch 0", long, "--batch 0"},
		{"train demo -o x.gguf --trial 0", long, "--trial 0"},
		{"train demo -o x.gguf --rows -1", long, "--rows is -1"},
		{"train demo -o x.gguf --lr 0", long, "--lr is 0"},
		{"train demo -o x.gguf --lr NaN", long, "--lr is NaN"},
		{"train demo -o x.gguf --context 128", long, "--context is 128, want at least 256"},
		{"train demo -o x.gguf --context 4096", long, "256 to 2048 are needed"},
		{"train demo -o x.gguf --context 256", story, "no sequence of 256 tokens"},
		{"train demo -o x.gguf --context 512 --steps 1 --rows 8", story + strings.Repeat(story, 10), "none of the held-out sequences"},
		{"train nobody -o x.gguf", long, "nobody"},
		{"import bad.pth demo -o x.gguf", "", "no zip"},
		{"import . demo -o x.gguf", "", "attn_gate_weights.pth"},
		{"import bad.pth demo -o taken", "", "name is taken"},
		{"info taken", "", "empty"},
	} {
		_, _, err := winnow(t, c.piped, append([]string{"gates"}, append(strings.Fields(c.args), "--log", "warn")...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
		for _, path := range []string{"x.gguf", "x.seer.gguf"} {
			if _, err := os.Stat(path); err == nil {
				t.Fatalf("%s: something is written", c.args)
			}
		}
	}
}

// testdata/gates is written by Python's own pickler, as torch.save has it do, for the smallest llama of the model tests. Value i of tensor n in
// layer l is ((7i + 31l + 13n) mod 251 - 125)/128, which bfloat16 holds exactly.
func TestGatesImport(t *testing.T) {
	from, err := filepath.Abs("testdata/gates")
	if err != nil {
		t.Fatal(err)
	}
	base, err := filepath.Abs("../../model/testdata/llama_tied")
	if err != nil {
		t.Fatal(err)
	}
	alone(t)
	out := must(t, "", "gates", "import", from, base, "-o", "g.gguf", "--log", "warn")
	for _, want := range []string{"kind    seer_decode\n", "model   tiny/llama-tied (", "3 of 4 heads, 1 key-value heads of 16", "5472 parameters"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	g, err := model.ReadGates("g.gguf")
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range g.Layer[1].Key { // the sixth tensor
		if want := float32((i*7+31+13*5)%251-125) / 128; v != want {
			t.Fatalf("value %d is %v, want %v", i, v, want)
		}
	}
	if _, _, err := winnow(t, "", "gates", "import", from, "demo", "-o", "x.gguf"); !errors.Is(err, model.ErrGates) || !strings.Contains(err.Error(), "layers is 3, the model's is 6") {
		t.Error(err)
	}
	if _, _, err := winnow(t, "", "gates", "info", "g.gguf", "--model", "demo"); !errors.Is(err, model.ErrGates) {
		t.Error(err)
	}
}

// The gates that come with the demo are its own, and half of the blocks of a prompt, by them, are nearly as good as all.
func TestGatesOfTheDemo(t *testing.T) {
	folder, err := filepath.Abs("../../model/demo")
	if err != nil {
		t.Fatal(err)
	}
	alone(t)
	writeFile(t, "text", strings.Repeat(story, 150))
	for _, kind := range []model.GateKind{model.SeerPrefill, model.SeerDecode} {
		out := must(t, "", "gates", "info", filepath.Join(folder, "demo."+string(kind)+".gguf"), "--model", "demo")
		if !strings.Contains(out, "they are gates of demo") || !strings.Contains(out, " "+string(kind)+"\n") {
			t.Error(out)
		}
	}
	asked := []string{"--gates", filepath.Join(folder, "demo.seer.gguf"), "--sparse", "prefill=seer,prefill_from=0,seer.nz_percent=50"}
	all, half := evaluated(t), evaluated(t, asked...)
	t.Logf("%v nats with all keys, %v with half of the blocks", all.Nats, half.Nats)
	if half.Nats == all.Nats || half.Nats > all.Nats+0.1 {
		t.Errorf("%v nats with all keys, %v with half of the blocks", all.Nats, half.Nats)
	}
}
