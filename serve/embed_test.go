package serve

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

// embedOne is the embedding of one input.
func embedOne(t *testing.T, m *Model, in Input, r EmbedRequest) []float32 {
	t.Helper()
	r.Inputs = []Input{in}
	out, err := m.Embed(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return out.Vectors[0]
}

// dot is the cosine of two vectors of length 1.
func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

// Many inputs come back in order, each as it is alone, and of length 1; more of them than the queue holds.
func TestEmbed(t *testing.T) {
	opt := small()
	opt.Queue = 1
	m := open(t, stories, opt)
	words := []string{"Once upon a time", "A dog ran", "The cat sat on the mat.", strings.Repeat("Lily was sad. ", 10), "x"}
	for _, p := range []Pooling{MeanPooling, LastPooling} {
		var inputs []Input
		tokens := 0
		for i := range 40 {
			inputs = append(inputs, Input{Text: words[i%len(words)]})
			tokens += len(m.Encode(words[i%len(words)]))
		}
		out, err := m.Embed(t.Context(), EmbedRequest{Inputs: inputs, Pooling: p})
		if err != nil {
			t.Fatal(err)
		}
		if out.Prompt != tokens || len(out.Vectors) != 40 {
			t.Errorf("%s: %d vectors, %d tokens, want %d", p, len(out.Vectors), out.Prompt, tokens)
		}
		for i, v := range out.Vectors {
			if want := embedOne(t, m, inputs[i%len(words)], EmbedRequest{Pooling: p}); !slices.Equal(v, want) {
				t.Errorf("%s: input %d has other bits than alone", p, i)
			}
			if length := dot(v, v); math.Abs(length-1) > 1e-6 || len(v) != m.spec.Dim {
				t.Errorf("%s: input %d has %d values, squares add up to %v", p, i, len(v), length)
			}
		}
		if same := dot(out.Vectors[0], out.Vectors[1]); same > 0.9999 {
			t.Errorf("%s: different texts have the same direction: %v", p, same)
		}
	}
	if u := m.Usage(); u.Running+u.Waiting+u.PagesUsed != 0 {
		t.Errorf("left behind: %+v", u)
	}
}

// The first values alone are of length 1 again; ids stand for the text that they are made of.
func TestEmbedDimensions(t *testing.T) {
	m := open(t, stories, small())
	in := Input{Text: "Once upon a time"}
	whole := embedOne(t, m, in, EmbedRequest{})
	for _, n := range []int{1, 8, m.spec.Dim} {
		short := embedOne(t, m, in, EmbedRequest{Dimensions: n})
		if length := dot(short, short); len(short) != n || math.Abs(length-1) > 1e-6 || math.Abs(dot(short, whole[:n])-math.Sqrt(dot(whole[:n], whole[:n]))) > 1e-6 {
			t.Errorf("%d dimensions: %v", n, short)
		}
	}
	if got := embedOne(t, m, Input{IDs: m.Encode(in.Text)}, EmbedRequest{}); !slices.Equal(got, whole) {
		t.Error("ids have another embedding than their text")
	}
}

// Without a word in the request the model's own files say how to pool, and the last token where they say nothing.
func TestEmbedPooling(t *testing.T) {
	m := open(t, stories, small())
	in := Input{Text: "Once upon a time"}
	mean, last := embedOne(t, m, in, EmbedRequest{Pooling: MeanPooling}), embedOne(t, m, in, EmbedRequest{Pooling: LastPooling})
	if slices.Equal(mean, last) {
		t.Error("mean and last are the same")
	}
	for declared, want := range map[Pooling][]float32{"": last, MeanPooling: mean, LastPooling: last} {
		m.pooling = declared
		if got := embedOne(t, m, in, EmbedRequest{}); !slices.Equal(got, want) {
			t.Errorf("declared %q: another vector", declared)
		}
	}
	m.pooling = "cls"
	if _, err := m.Embed(t.Context(), EmbedRequest{Inputs: []Input{in}}); param(err) != "pooling" || !strings.Contains(err.Error(), "cls") {
		t.Errorf("declared cls: %v", err)
	}
	if got := embedOne(t, m, in, EmbedRequest{Pooling: MeanPooling}); !slices.Equal(got, mean) {
		t.Error("what is asked for does not count")
	}
}

func param(err error) string {
	if e, ok := errors.AsType[*RequestError](err); ok {
		return e.Param
	}
	return ""
}

// A text ends with what the files want there, once.
func TestEmbedEnds(t *testing.T) {
	m := open(t, stories, small())
	plain := m.Encode("Once")
	for name, c := range map[string]struct {
		vocab text.Vocab
		ids   []int32
		want  []int32
	}{
		"nothing":        {text.Vocab{EOS: 2}, plain, plain},
		"end":            {text.Vocab{EOS: 2, AddEOS: true}, plain, append(slices.Clone(plain), 2)},
		"end, is there":  {text.Vocab{EOS: 2, AddEOS: true}, append(slices.Clone(plain), 2), append(slices.Clone(plain), 2)},
		"another":        {text.Vocab{EOS: 2, AddEOS: true, Closing: []int32{7}}, plain, append(slices.Clone(plain), 7)},
		"without an end": {text.Vocab{EOS: -1, AddEOS: true}, plain, plain},
		"of nothing":     {text.Vocab{EOS: 2, AddEOS: true}, nil, []int32{2}},
	} {
		with := &Model{vocab: &c.vocab}
		if got := with.end(slices.Clone(c.ids)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestEmbedRefusals(t *testing.T) {
	m := open(t, stories, small())
	ok, long := Input{IDs: []int32{1}}, Input{IDs: make([]int32, 385)}
	for name, c := range map[string]struct {
		r           EmbedRequest
		param, want string
	}{
		"no tokens":    {EmbedRequest{Inputs: []Input{ok, {IDs: []int32{}}}}, "input[1]", "no tokens"},
		"unknown id":   {EmbedRequest{Inputs: []Input{{IDs: []int32{512}}, ok}}, "input[0]", "512"},
		"negative id":  {EmbedRequest{Inputs: []Input{{IDs: []int32{-1}}}}, "input", "-1"},
		"too long":     {EmbedRequest{Inputs: []Input{ok, ok, long}}, "input[2]", "it has 385 tokens; this model's context is 384 tokens"},
		"dimensions":   {EmbedRequest{Inputs: []Input{ok}, Dimensions: 65}, "dimensions", "this model has 64"},
		"pooling":      {EmbedRequest{Inputs: []Input{ok}, Pooling: "max"}, "pooling", "max"},
		"a long text":  {EmbedRequest{Inputs: []Input{{Text: strings.Repeat("Lily ", 500)}}}, "input", "384 tokens"},
		"past the end": {EmbedRequest{Inputs: []Input{ok, {IDs: []int32{1, 1 << 30}}}}, "input[1]", "place 1"},
	} {
		if _, err := m.Embed(t.Context(), c.r); param(err) != c.param || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if u := m.Usage(); u.Steps != 0 {
		t.Errorf("something was computed: %+v", u)
	}
	if v := embedOne(t, m, Input{IDs: make([]int32, 384)}, EmbedRequest{}); len(v) != 64 {
		t.Errorf("a full context has %d values", len(v))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Embed(ctx, EmbedRequest{Inputs: []Input{ok}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if v, err := unit([]float32{3, 4, float32(math.Inf(1))}, 2); err != nil || v[0] != 0.6 || v[1] != 0.8 {
		t.Errorf("%v, %v", v, err)
	}
	if _, err := unit([]float32{1, float32(math.NaN())}, 2); !errors.Is(err, errNotFinite) {
		t.Errorf("not finite: %v", err)
	}
	if v, err := unit([]float32{0, 0}, 2); err != nil || v[0] != 0 {
		t.Errorf("zeros: %v, %v", v, err)
	}
}

func TestDeclaredPooling(t *testing.T) {
	folder := func(s string) *store.Checkpoint {
		return &store.Checkpoint{Kind: store.HF, Files: map[string][]byte{poolingFile: []byte(s)}}
	}
	modules := func(pooling, modules string) *store.Checkpoint {
		c := folder(pooling)
		c.Files[modulesFile] = []byte(modules)
		return c
	}
	const last = `{"pooling_mode_lasttoken":true}`
	gguf := func(v any) *store.Checkpoint {
		return &store.Checkpoint{Kind: store.GGUF, Meta: store.Meta{"qwen3.pooling_type": v}}
	}
	for name, c := range map[string]struct {
		c     *store.Checkpoint
		want  Pooling
		fails bool
	}{
		"gguf, silent":   {c: &store.Checkpoint{Kind: store.GGUF}},
		"gguf, none":     {c: gguf(uint32(0))},
		"gguf, mean":     {c: gguf(uint32(1)), want: MeanPooling},
		"gguf, last":     {c: gguf(uint32(3)), want: LastPooling},
		"gguf, rank":     {c: gguf(uint32(4)), want: "rank"},
		"gguf, unknown":  {c: gguf(int32(-7)), want: "number -7"},
		"gguf, text":     {c: gguf("mean"), fails: true},
		"folder, silent": {c: &store.Checkpoint{Kind: store.HF}},
		"folder, none":   {c: folder(`{}`)},
		"folder, last":   {c: folder(`{"pooling_mode_mean_tokens":false,"pooling_mode_lasttoken":true,"include_prompt":true}`), want: LastPooling},
		"folder, cls":    {c: folder(`{"pooling_mode_cls_token":true}`), want: "cls"},
		"folder, two":    {c: folder(`{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":true}`), want: "mean with cls"},
		"folder, broken": {c: folder(`[]`), fails: true},
		"plain modules": {c: modules(last, `[{"type":"sentence_transformers.models.Transformer"},{"type":"sentence_transformers.models.Pooling"},
			{"type":"sentence_transformers.models.Normalize"}]`), want: LastPooling},
		"dense module":    {c: modules(last, `[{"type":"sentence_transformers.models.Dense"}]`), want: `last with module "Dense"`},
		"nameless module": {c: modules(last, `[{}]`), want: `last with module ""`},
		"broken modules":  {c: modules(last, `{}`), fails: true},
	} {
		got, err := declaredPooling(c.c, "qwen3")
		if (err != nil) != c.fails || err != nil && !errors.Is(err, store.ErrFormat) || err == nil && got != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
