package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

// readSafetensors gives shapes and values by name; integers as floats.
func readSafetensors(t *testing.T, path string) (shapes map[string][]int, values map[string][]float32) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(raw)
	var header map[string]struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(raw[8:8+n], &header); err != nil || n%8 != 0 {
		t.Fatalf("header of %d bytes: %v", n, err)
	}
	shapes, values = map[string][]int{}, map[string][]float32{}
	for name, h := range header {
		data := raw[8+int(n):][h.Offsets[0]:h.Offsets[1]]
		v := make([]float32, len(data)/4)
		for i := range v {
			word := binary.LittleEndian.Uint32(data[4*i:])
			if v[i] = math.Float32frombits(word); h.DType == "I32" {
				v[i] = float32(int32(word))
			}
		}
		shapes[name], values[name] = h.Shape, v
	}
	return shapes, values
}

func largest(v []float32) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}

func TestEvalLogits(t *testing.T) {
	alone(t)
	in := asked{Sequences: map[string][]int32{"s1": {7}, "s70": nil}, Greedy: 3}
	for i := range 70 {
		in.Sequences["s70"] = append(in.Sequences["s70"], int32(100+i*37%1000))
	}
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("in.json", raw, 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "", "eval", "demo", "--logits", "in.json", "-o", "out.safetensors", "--dtype", "f32", "--cpu", "go")
	shapes, values := readSafetensors(t, "out.safetensors")
	if len(shapes) != 4+2*6 {
		t.Errorf("%d arrays: %v", len(shapes), shapes)
	}
	for _, c := range []struct {
		name       string
		rows, cols int
	}{{"s1.logits", 1, 4096}, {"s70.logits", 70, 4096}, {"router.0.experts", 70, 2}, {"router.5.weights", 70, 2}} {
		if s := shapes[c.name]; len(s) != 2 || s[0] != c.rows || s[1] != c.cols {
			t.Errorf("%s is %v", c.name, s)
		}
	}
	for _, name := range []string{"s1", "s70"} {
		greedy, logits := values[name+".greedy"], values[name+".logits"]
		if len(greedy) != 3 || int(greedy[0]) != largest(logits[len(logits)-4096:]) {
			t.Errorf("%s is continued by %v, its last logits say %d", name, greedy, largest(logits[len(logits)-4096:]))
		}
	}
	experts, weights := values["router.3.experts"], values["router.3.weights"]
	for i := 0; i < len(experts); i += 2 {
		sum := weights[i] + weights[i+1]
		if experts[i] == experts[i+1] || experts[i] < 0 || experts[i] > 7 || math.Abs(float64(sum-1)) > 1e-5 {
			t.Fatalf("token %d: experts %v, weights %v", i/2, experts[i:i+2], weights[i:i+2])
		}
	}
}

func TestEvalPerplexity(t *testing.T) {
	alone(t)
	const story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. "
	if err := os.WriteFile("text.txt", []byte(strings.Repeat(story, 12)), 0o644); err != nil {
		t.Fatal(err)
	}
	measure := func(args ...string) (p perplexity) {
		out := must(t, "", append([]string{"eval", "demo", "--perplexity", "text.txt", "--json", "--log", "warn"}, args...)...)
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := measure("--ctx", "64", "--chunks", "2")
	if p.Chunks != 2 || p.Tokens != 2*31 || !(p.Perplexity > 1 && p.Perplexity < 50) || math.Abs(math.Exp(p.Nats)-p.Perplexity) > 1e-6 {
		t.Errorf("%+v", p)
	}
	if all := measure("--ctx", "64"); all.Chunks < 4 {
		t.Errorf("%+v", all)
	}
	if _, _, err := winnow(t, "", "eval", "demo", "--perplexity", "text.txt", "--ctx", "1024"); err == nil {
		t.Error("a text of less than two chunks was measured")
	}
}

// Of six positions the second half without the last is scored: positions 3 and 4, which say tokens 4 and 5.
func TestTheSecondHalfIsScored(t *testing.T) {
	said := []int32{0, 1, 2, 3, 1, 2}
	logits := make([]float32, 6*4)
	for row := range 6 {
		logits[row*4+2] = float32(row) // rows differ, so that a shifted one shows
	}
	whole, pieces := nll{vocab: 4}, nll{vocab: 4}
	whole.add(0, logits, said)
	pieces.add(0, logits[:4*4], said)
	pieces.add(4, logits[4*4:], said)
	want := math.Log(math.Exp(3)+3) + math.Log(math.Exp(4)+3) - 4
	if whole.count != 2 || math.Abs(whole.sum-want) > 1e-9 || whole != pieces {
		t.Errorf("%+v and %+v, want %v", whole, pieces, want)
	}
}

func TestTraceShowsEveryOp(t *testing.T) {
	alone(t)
	t.Setenv("WINNOW_TRACE", "trace.json")
	must(t, "Hello", "run", "demo", "--max-tokens", "2", "--temperature", "0")
	raw, err := os.ReadFile("trace.json")
	if err != nil {
		t.Fatal(err)
	}
	var events []traceEvent
	if err := json.Unmarshal(raw, &events); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range events {
		count[e.Name]++
		if e.Start < 0 || e.Took < 0 || e.Phase != "X" {
			t.Errorf("%+v", e)
		}
	}
	if count["moe.FFN"] == 0 || count["moe.FFN"] != count["moe.Route"] || count["moe.FFN"]%6 != 0 || count["tensor.Embed"]*6 != count["moe.FFN"] {
		t.Errorf("%v", count)
	}
}

// The device's own kernels beside the references, over a whole answer.
func TestShadowAgrees(t *testing.T) {
	alone(t)
	plain := must(t, "Hello", "run", "demo", "--max-tokens", "3", "--temperature", "0")
	t.Setenv("WINNOW_SHADOW", "1")
	t.Setenv("WINNOW_CHECK", "1")
	if shadowed := must(t, "Hello", "run", "demo", "--max-tokens", "3", "--temperature", "0"); shadowed != plain {
		t.Errorf("%q with a shadow, %q without", shadowed, plain)
	}
}
