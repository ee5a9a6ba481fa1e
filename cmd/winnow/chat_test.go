package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/winnow-llm/winnow/model/demo"
)

// startSession opens the demo for a chat whose output is gathered.
func startSession(t *testing.T) (*session, *bytes.Buffer) {
	t.Helper()
	alone(t)
	cfg, log, err := settings(root())
	if err != nil {
		t.Fatal(err)
	}
	m, err := openMachine(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s := &session{machine: m, asked: demo.Name, history: &history{}}
	s.page, s.notes = &page{out: &out}, &out
	if err := s.open(demo.Name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.model.Close(); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	s.generation.MaxTokens = 4
	return s, &out
}

// A second turn knows the first; after /clear it does not. What was stopped is kept as far as it came.
func TestConversationKeepsTurns(t *testing.T) {
	s, _ := startSession(t)
	for turn := range 2 {
		if err := s.answer(t.Context(), "Tell me a story."); err != nil {
			t.Fatal(err)
		}
		if want := 2 * (turn + 1); len(s.turns) != want {
			t.Errorf("%d messages after turn %d, want %d", len(s.turns), turn, want)
		}
	}
	prompt := s.last.usage.Prompt
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.answer(ctx, "And then?"); err == nil || len(s.turns) != 4 {
		t.Errorf("an answer that never began: %v, %d messages", err, len(s.turns))
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	s.page.out = writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	s.generation.MaxTokens = 2000
	if err := s.answer(ctx, "And then?"); err == nil || len(s.turns) != 6 || !s.turns[5].Stopped || s.turns[5].Content == "" {
		t.Errorf("an answer that was stopped: %v, %+v", err, s.turns[4:])
	}
	s.clear()
	s.generation.MaxTokens = 4
	if err := s.answer(t.Context(), "Tell me a story."); err != nil || s.last.usage.Prompt >= prompt {
		t.Errorf("%v: %d tokens of prompt after /clear, %d before", err, s.last.usage.Prompt, prompt)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// What the model's Modelfile says is shown, until the user says something else.
func TestShowOfAModelfile(t *testing.T) {
	s, out := startSession(t)
	writeFile(t, "tales.gguf", string(demo.GGUF))
	writeFile(t, "Modelfile", "FROM tales.gguf\nSYSTEM Be brief.\nPARAMETER stop .\nPARAMETER stop \"a b\"\nPARAMETER num_predict 3\nPARAMETER temperature 0.5\n")
	must(t, "", "create", "tales")
	for _, c := range []struct{ line, want string }{
		{"/load tales", ""},
		{"/show system", "Be brief."},
		{"/show parameters", "temperature  0.5          set by the model"},
		{"/show parameters", `stop         "." "a b"    set by the model`},
		{"/show modelfile", "SYSTEM Be brief.\nPARAMETER num_predict 4\nPARAMETER stop .\nPARAMETER stop a b\nPARAMETER temperature 0.5\n"},
		{"/set system Be long.", ""},
		{"/show system", "Be long."},
	} {
		out.Reset()
		if err := s.command(t.Context(), c.line); err != nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %s, %v; want %q", c.line, out, err, c.want)
		}
	}
}

// Each line is a command and what its output, or its error, has.
func TestCommands(t *testing.T) {
	s, out := startSession(t)
	if err := os.WriteFile("other.gguf", demo.GGUF, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ line, want string }{
		{"/nothing here", "there is no command /nothing"},
		{"/usr/bin/go", "there is no command /usr/bin/go"},
		{"/clear now", "/clear takes nothing"},
		{"/receipt", "no answer yet"},
		{"/retry", "nothing was said"},
		{"/undo", "nothing was said"},
		{"/show", "takes one of info, license"},
		{"/show info", "8, 2 used for a token, in 6 layers"},
		{"/show license", "apache-2.0"},
		{"/show system", "no system message"},
		{"/show template", "add_generation_prompt"},
		{"/set", "takes one of parameter"},
		{"/set verbose now", "takes nothing more"},
		{"/set format json", "cannot be held to a format"},
		{"/set think", "cannot be switched"},
		{"/set system", "takes a text"},
		{"/set system \"\"\"Tell\nstories.\"\"\"", "set system"},
		{"/show system", "Tell\nstories."},
		{`/set system ""`, "set system"},
		{"/show system", "no system message"},
		{"/set system Be brief.", "set system Be brief."},
		{"/show system", "Be brief."},
		{"/set parameter", "takes a name and a value"},
		{"/set parameter heat 1", "there are temperature, top_p"},
		{"/set parameter num_ctx 4096", "winnow run --context"},
		{"/set parameter temperature", "takes 1 value, not 0"},
		{"/set parameter temperature 0 0", "takes 1 value, not 2"},
		{"/set parameter temperature NaN", "NaN is not a number from 0 to 2"},
		{"/set parameter top_k 1e9", "1e9 is not a whole number"},
		{`/set parameter stop ""`, "would end every answer"},
		{`/set parameter stop "a`, "a quote is not closed"},
		{"/set parameter temperature 0", "set parameter temperature 0"},
		{"/set parameter seed 7", "seed 7"},
		{"/set parameter num_predict 5", "num_predict 5"},
		{`/set parameter stop "\n\n" END`, "END"},
		{"/show parameters", "set by you"},
		{"/show modelfile", "SYSTEM Be brief.\nPARAMETER num_predict 5\nPARAMETER seed 7\nPARAMETER stop \"\"\"\n\n\"\"\"\nPARAMETER stop END\nPARAMETER temperature 0\n"},
		{"/save", "takes the name of a file"},
		{"/save chat", "ends in .json"},
		{"/save ./nowhere/chat.json", "no such file"},
		{"/save chat.json", "saved 0 messages"},
		{"/load missing.json", "missing.json: file does not exist"},
		{"/load nowhere", "nowhere"},
		{"/load other.gguf", ""},
		{"/load demo", "tells simple stories"},
		{"/?", "/load MODEL|FILE"},
		{"/? shortcuts", "Ctrl-W"},
		{"/? set", "parameter min_p"},
		{"/? show", "/show template"},
		{"/? verbs", "takes shortcuts"},
	} {
		out.Reset()
		if !isCommand(c.line) {
			t.Errorf("%q is no command", c.line)
		}
		err := s.command(t.Context(), c.line)
		got := out.String()
		if err != nil {
			got += err.Error()
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: an error of several lines: %v", c.line, err)
			}
		}
		if c.line == "/load other.gguf" && s.model.Name() != "other" {
			t.Errorf("after %s the model is %s", c.line, s.model.Name())
		}
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%q: %q, want %q", c.line, got, c.want)
		}
	}
}

// The demo under another architecture opens and cannot be loaded; without its template's key it loads and cannot chat.
func TestLoadOfOddModels(t *testing.T) {
	s, out := startSession(t)
	for name, key := range map[string]string{"odd.gguf": "qwen3moe", "base.gguf": "tokenizer.chat_template"} {
		odd := bytes.ReplaceAll(demo.GGUF, []byte(key), []byte(strings.ToUpper(key)))
		if err := os.WriteFile(name, odd, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.command(t.Context(), "/load odd.gguf"); err == nil || s.model == nil || s.model.Name() != demo.Name {
		t.Fatalf("%v; the model is %v", err, s.model)
	}
	if err := s.answer(t.Context(), "Tell me a story."); err != nil {
		t.Error(err)
	}
	out.Reset()
	if err := s.command(t.Context(), "/load base.gguf"); err != nil || !strings.Contains(out.String(), "no chat template") {
		t.Errorf("%v: %s", err, out)
	}
	if err := s.answer(t.Context(), "Once upon a time"); err != nil || len(s.turns) != 2 || s.last.usage.Completion != 4 {
		t.Errorf("%v: %+v", err, s.turns)
	}
	out.Reset()
	if err := s.command(t.Context(), "/show template"); err != nil || out.String() != "the model has no chat template\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// What is quick shows nothing, and what shows is wiped away.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &session{waits: true}
		s.notes = &out
		stop := s.wait("loading, ")
		time.Sleep(patience / 2)
		stop()
		if out.Len() > 0 {
			t.Errorf("%q", out.String())
		}
		stop = s.wait("loading, ")
		time.Sleep(2*time.Second + patience)
		stop()
		stop()
		if got := out.String(); !strings.Contains(got, "loading, 2 s") || !strings.HasSuffix(got, "\r\x1b[K") {
			t.Errorf("%q", got)
		}
	})
}

// A saved chat comes back whole: its next answer is the one that it would have had.
func TestSaveAndLoad(t *testing.T) {
	s, out := startSession(t)
	s.system, s.generation.Temperature, s.generation.Stop = "Tell stories.", new(float32(0)), []string{"\n\n\n", "\"q\""}
	if err := s.answer(t.Context(), "Tell me a story."); err != nil {
		t.Fatal(err)
	}
	if err := s.command(t.Context(), "/save chat.json"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat("chat.json"); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	next := func() string {
		out.Reset()
		if err := s.answer(t.Context(), "And then?"); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	want := next()
	s.clear()
	s.system, s.generation.Stop = "", nil
	if err := s.command(t.Context(), "/load chat.json"); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != want || s.system != "Tell stories." || !slices.Equal(s.generation.Stop, []string{"\n\n\n", "\"q\""}) {
		t.Errorf("%q, want %q; system %q, stop %q", got, want, s.system, s.generation.Stop)
	}
	if err := os.WriteFile("mine.json", []byte(`{"my":"settings"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"/save mine.json", "/load mine.json"} {
		if err := s.command(t.Context(), line); err == nil || !strings.Contains(err.Error(), "no saved chat") {
			t.Errorf("%s: %v", line, err)
		}
	}
	if left, err := filepath.Glob(".winnow-chat-*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestRetryAndUndo(t *testing.T) {
	s, out := startSession(t)
	s.console = &console{}
	for _, said := range []string{"Tell me a story.", "And then?"} {
		if err := s.answer(t.Context(), said); err != nil {
			t.Fatal(err)
		}
	}
	s.generation.MaxTokens = 6
	if err := s.command(t.Context(), "/retry"); err != nil || len(s.turns) != 4 || s.turns[2].Content != "And then?" || s.last.usage.Completion != 6 {
		t.Errorf("%v: %+v", err, s.turns)
	}
	out.Reset()
	if err := s.command(t.Context(), "/undo"); err != nil || len(s.turns) != 2 || !strings.Contains(out.String(), `"And then?"`) {
		t.Errorf("%v: %q, %+v", err, out, s.turns)
	}
}

func TestReceipt(t *testing.T) {
	s, out := startSession(t)
	s.generation.Seed, s.generation.Temperature = new(int64(7)), new(float32(0.5))
	for range 2 {
		if err := s.answer(t.Context(), "Tell me a story about a cat, a dog and a ball in the park. "+strings.Repeat("And then? ", 20)); err != nil {
			t.Fatal(err)
		}
		s.clear()
		out.Reset()
		if err := s.command(t.Context(), "/receipt"); err == nil {
			t.Error("/clear leaves the receipt")
		}
		s.receipts = true
	}
	out.Reset()
	if err := s.answer(t.Context(), "Tell me a story about a cat, a dog and a ball in the park. "+strings.Repeat("And then? ", 20)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"64 found in the cache", "4 tokens, ended by max_tokens, which is 4", "of 2048 tokens", "temperature 0.5, top_p", "seed 7",
		"2 of 8 a token, in 6 layers; 0 pruned",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

func TestParseChat(t *testing.T) {
	for raw, want := range map[string]string{
		``:                         "unexpected end",
		`[]`:                       "cannot unmarshal",
		`{}`:                       `kind is ""`,
		`{"kind":"winnow/chat/2"}`: `want "winnow/chat/1"`,
		`{"kind":"winnow/chat/1","turns":[{"role":"system"}]}`:                        `turn 0 is of "system"`,
		`{"kind":"winnow/chat/1","turns":[{"role":"user"}]}`:                          "has no answer",
		`{"kind":"winnow/chat/1","turns":[{"role":"user"},{"role":"user"}]}`:          `turn 1 is of "user"`,
		`{"kind":"winnow/chat/1","parameters":{"heat":"1"}}`:                          "no parameter",
		`{"kind":"winnow/chat/1","parameters":{"temperature":"hot"}}`:                 "hot is not a number",
		`{"kind":"winnow/chat/1","parameters":{"stop":"\"a"}}`:                        "not closed",
		`{"kind":"winnow/chat/1","parameters":{"seed":"1"},"turns":[],"later":"key"}`: "",
	} {
		_, err := parseChat([]byte(raw))
		if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", raw, err, want)
		}
	}
}

// Whatever is accepted can be asked and saved: its parameters are in range and its turns make a list for templates.
func FuzzParseChat(f *testing.F) {
	f.Add([]byte(`{"kind":"winnow/chat/1","system":"s","parameters":{"stop":"\"a\" b","seed":"1"},"turns":[{"role":"user","content":"u"},{"role":"assistant","content":"a","stopped":true}]}`))
	f.Add([]byte(`{"kind":"winnow/chat/1","parameters":{"top_p":"0.5","temperature":"default"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseChat(raw)
		if err != nil {
			return
		}
		var c conversation
		if err := c.restore(s); err != nil {
			t.Fatalf("accepted, and then: %v", err)
		}
		if g := c.generation; g.Temperature != nil && !(*g.Temperature >= 0 && *g.Temperature <= 2) || len(g.Stop) > mostStops {
			t.Errorf("%+v", g)
		}
		if said, err := c.undo(); (err == nil) != (len(s.Turns) > 0) || err == nil && said != s.Turns[len(s.Turns)-2].Content {
			t.Errorf("the last message is %q: %v", said, err)
		}
	})
}
