package main

import (
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/text"
)

// asking runs eval --answers on the demo.
func asking(t *testing.T, args ...string) (a answers) {
	t.Helper()
	out := must(t, "", append([]string{"eval", "demo", "--json", "--log", "warn"}, args...)...)
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func casesFile(t *testing.T, path string, cases ...goldCase) {
	t.Helper()
	var b strings.Builder
	for _, c := range cases {
		line, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	writeFile(t, path, b.String())
}

// What the model says anyway is right, and likelier than what it does not.
func TestEvalAnswers(t *testing.T) {
	alone(t)
	const prompt = "Once upon a time, there was a little"
	casesFile(t, "cases.jsonl", goldCase{Prompt: prompt, Answer: " hypotenuse"})
	said := asking(t, "--answers", "cases.jsonl").Each[0].Said
	said = said[:strings.LastIndex(said, " ")]
	casesFile(t, "cases.jsonl", goldCase{Prompt: prompt, Answer: said}, goldCase{Prompt: prompt, Answer: " hypotenuse"}, goldCase{Prompt: "Hello", Answer: "!", Chat: true})
	a := asking(t, "--answers", "cases.jsonl", "--limit", "2")
	if a.Cases != 2 || a.Accuracy != 0.5 || a.Starts != 0.5 || len(a.Each) != 2 || !a.Each[0].Starts || a.PromptDensity != 0 || a.Probes != 0 {
		t.Errorf("%+v", a)
	}
	if math.Abs(a.Nats-(a.Each[0].Nats+a.Each[1].Nats)/2) > 1e-9 || !(a.Each[0].Nats < a.Each[1].Nats/2) {
		t.Errorf("%+v", a)
	}
	all := asking(t, "--answers", "cases.jsonl")
	if chat := all.Each[len(all.Each)-1]; all.Cases != 3 || chat.Prompt < 5 {
		t.Errorf("a turn of a conversation is not in the template: %+v", all)
	}
	for _, args := range [][]string{{}, {"--answers", "cases.jsonl", "--logits", "x"}, {"--answers", "none.jsonl"}, {"--answers", "cases.jsonl", "--limit", "-1"}} {
		if _, _, err := winnow(t, "", append([]string{"eval", "demo"}, args...)...); err == nil {
			t.Errorf("eval %v measured", args)
		}
	}
}

// The likelihood of an answer is what the logits of the same ids say of it.
func TestTheRightAnswerIsScored(t *testing.T) {
	alone(t)
	g := goldCase{Prompt: "Once upon a time, there was a little", Answer: " boy who was named after Tim"}
	casesFile(t, "cases.jsonl", g)
	tok := demoTokenizer(t)
	ids := tok.Encode(nil, text.Span{Text: g.Prompt})
	prompt, gold := len(ids), tok.Encode(nil, text.Span{Text: g.Answer})
	raw, err := json.Marshal(asked{Sequences: map[string][]int32{"s": append(ids, gold...)}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "in.json", string(raw))
	must(t, "", "eval", "demo", "--logits", "in.json", "-o", "out.safetensors", "--dtype", "f32", "--cpu", "go")
	_, values := readSafetensors(t, "out.safetensors")
	want, vocab := 0.0, len(values["s.logits"])/(prompt+len(gold))
	for i, id := range gold {
		row := prompt - 1 + i
		want += surprise(values["s.logits"][row*vocab:(row+1)*vocab], id) / float64(len(gold))
	}
	a := asking(t, "--answers", "cases.jsonl", "--dtype", "f32", "--cpu", "go")
	if got := a.Each[0]; got.Prompt != prompt || got.Gold != len(gold) || math.Abs(got.Nats-want) > 1e-5 {
		t.Errorf("%+v, want %v nats, %d tokens and %d", got, want, prompt, len(gold))
	}
}

// With selectors fewer keys are read, and the right answer reads as a generated one does.
func TestEvalAnswersSparse(t *testing.T) {
	alone(t)
	prompt := strings.Repeat("Tell me of the sea and of the ships. ", 60) + "Once upon"
	casesFile(t, "cases.jsonl", goldCase{Prompt: prompt, Answer: " a time there was a"})
	dense := asking(t, "--answers", "cases.jsonl")
	all := asking(t, "--answers", "cases.jsonl", "--sparse", "prefill=streaming,decode=streaming,prefill_from=0,decode_from=0")
	if all.PromptDensity != 1 || all.AnswerDensity != 1 || math.Abs(all.Nats-dense.Nats) > 1e-6 {
		t.Errorf("with all keys the answer has %v nats, without a selector %v", all.Nats, dense.Nats)
	}
	seen := map[float64]string{dense.Nats: "dense"}
	for sparse, want := range map[string][2]bool{ // whether selectors serve prompts and answers
		"prefill=streaming,prefill_from=0,threshold=0,streaming.sink=0":                                        {true, false},
		"decode=quest,budget=64,decode_from=0":                                                                 {false, true},
		"prefill=minference,prefill_from=0,minference.columns=30,minference.diagonals=50,minference.group=128": {true, false},
	} {
		a := asking(t, "--answers", "cases.jsonl", "--sparse", sparse)
		if [2]bool{a.PromptDensity > 0, a.AnswerDensity > 0} != want || a.PromptDensity >= 1 || a.AnswerDensity >= 1 || a.Probes > 0 && !(a.Recall > 0 && a.Recall <= 1 && a.Least <= a.Recall) {
			t.Errorf("%s: %+v", sparse, a)
		}
		if other, ok := seen[a.Nats]; ok {
			t.Errorf("%s gives the %v nats of %s", sparse, a.Nats, other)
		}
		seen[a.Nats] = sparse
	}
}

func TestCasesAreRead(t *testing.T) {
	alone(t)
	f, err := os.Create("cases.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	if _, err := z.Write([]byte(`{"prompt": "a", "answer": " b"}` + "\n\n" + `{"prompt": "c", "answer": "d", "chat": true}`)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	cases, err := readCases("cases.jsonl.gz", 0)
	if err != nil || len(cases) != 2 || cases[0] != (goldCase{"a", " b", false}) || cases[1] != (goldCase{"c", "d", true}) {
		t.Errorf("%+v, %v", cases, err)
	}
	for text, why := range map[string]string{
		"": "no cases", `{"prompt": "a"}`: "case 1: it has no prompt, or no answer", `{"prompt": "a", "answer": "b"}` + "\n{": "case 2: ",
	} {
		writeFile(t, "bad.jsonl", text)
		if _, err := readCases("bad.jsonl", 0); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", text, err, why)
		}
	}
}
