package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// stage is the reference device with a hook: atSync is called at the end of every step, and its error is the step's.
type stage struct {
	tensor.Device
	atSync func() error
}

func (s *stage) Queue() tensor.Queue { return &stageQueue{s.Device.Queue(), s} }

type stageQueue struct {
	tensor.Queue
	stage *stage
}

func (q *stageQueue) Sync() error {
	err := q.Queue.Sync()
	if q.stage.atSync != nil {
		err = errors.Join(err, q.stage.atSync())
	}
	return err
}

// ample are limits in which nobody waits, nothing is chunked and nothing evicted.
var ample = model.Limits{Rows: 512, Sequences: 16, Wanted: 16, Pages: 100, Context: 256}

// open loads the tiny mixture of experts of model/testdata into an engine of its own loop, which proves its books after every step.
func open(t *testing.T, lim model.Limits) (*Engine, *stage) {
	t.Helper()
	s := &stage{Device: tensor.Reference()}
	m := load(t, lim, s)
	return opened(t, m, NoDrafts), s
}

// opened is an engine of its own loop.
func opened(t *testing.T, m *model.Model, draft Drafting) *Engine {
	l := NewLoop()
	t.Cleanup(l.Close) // before the model's, since cleanups run backwards
	return l.Open(m, Options{Check: true, Queue: 16, Draft: draft})
}

func load(t *testing.T, lim model.Limits, d tensor.Device) *model.Model {
	t.Helper()
	c, err := store.Open("../model/testdata/qwen3_moe")
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(c, model.Placement{Device: d}, model.Options{DType: model.Float32, Limits: lim})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// collect takes all tokens of a generation.
func collect(seq iter.Seq2[Token, error]) (tokens []Token, err error) {
	for t, err := range seq {
		if err != nil {
			return tokens, err
		}
		tokens = append(tokens, t)
	}
	return tokens, nil
}

// same compares all that two generations say of their tokens, but for Stats and what was drafted, bit by bit.
func same(a, b []Token) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d tokens, want %d", len(a), len(b))
	}
	for i := range a {
		x, y := a[i], b[i]
		x.Stats, y.Stats = nil, nil
		x.Drafted, y.Drafted, x.Rejected, y.Rejected = false, false, 0, 0
		x.ByModel, y.ByModel, x.ByHead, y.ByHead = false, false, false, false
		if !reflect.DeepEqual(x, y) {
			return fmt.Errorf("token %d is %+v, want %+v", i, x, y)
		}
	}
	return nil
}

// requests are n of them: long and short, greedy and sampled, some with beginnings in common.
func requests(n int) (out []Request) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		prompt := make([]int32, []int{1, 5, 20, 63, 64, 65, 130}[i%7])
		for j := range prompt {
			prompt[j] = int32((j*7 + j*j) % 320)
			if i%3 != 0 {
				prompt[j] = r.Int32N(320)
			}
		}
		q := Request{Prompt: prompt, MaxTokens: 3 + i%9, Alternatives: i%5 - 1}
		if i%2 == 1 {
			q.Sampling = Sampling{Temperature: 0.9, TopK: 40 * (i % 3), TopP: 0.95, MinP: 0.01, Seed: uint64(i) << 40}
		}
		if i%4 == 1 || i%4 == 2 {
			q.Sampling.Repetition, q.Sampling.Presence, q.Sampling.Frequency = 1.2, 0.3, 0.1
			q.Sampling.TypicalP, q.Sampling.Bias = 0.95, []Bias{{int32(i), 2}, {7, -100}}
		}
		out = append(out, q)
	}
	return out
}

// alone is what each request gets in an engine where it is the first and only one.
func alone(t *testing.T, all []Request) (out [][]Token) {
	t.Helper()
	for _, r := range all {
		e, _ := open(t, ample)
		tokens, err := collect(e.Generate(t.Context(), r))
		if err != nil {
			t.Fatal(err)
		}
		if last := tokens[len(tokens)-1]; last.Finish != Length || len(tokens) != r.MaxTokens || last.Position != len(r.Prompt)+r.MaxTokens-1 {
			t.Fatalf("%d tokens of %d, the last is %+v", len(tokens), r.MaxTokens, last)
		}
		out = append(out, tokens)
		e.Close()
	}
	return out
}

// together is what they get at once.
func together(t *testing.T, e *Engine, all []Request) [][]Token {
	t.Helper()
	out := make([][]Token, len(all))
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() {
			var err error
			if out[i], err = collect(e.Generate(t.Context(), r)); err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	return out
}

// TestGoldens compares greedy generations with those of transformers.
func TestGoldens(t *testing.T) {
	b, err := os.ReadFile("../model/testdata/qwen3_moe/goldens.json")
	if err != nil {
		t.Fatal(err)
	}
	var goldens struct {
		Sequences []struct {
			Name string
			IDs  []int32
		}
		Greedy []struct {
			Prompt string
			Tokens []int32
		}
	}
	if err := json.Unmarshal(b, &goldens); err != nil {
		t.Fatal(err)
	}
	prompts := map[string][]int32{}
	for _, s := range goldens.Sequences {
		prompts[s.Name] = s.IDs
	}
	var all []Request
	for _, g := range goldens.Greedy {
		all = append(all, Request{Prompt: prompts[g.Prompt], MaxTokens: len(g.Tokens), Alternatives: -1})
	}
	e, _ := open(t, model.Limits{Rows: 100, Sequences: 4, Wanted: 4, Pages: 10, Context: 512})
	for i, tokens := range together(t, e, all) {
		var got []int32
		for _, tok := range tokens {
			got = append(got, tok.ID)
		}
		if !slices.Equal(got, goldens.Greedy[i].Tokens) {
			t.Errorf("after %s: %v, want %v", goldens.Greedy[i].Prompt, got, goldens.Greedy[i].Tokens)
		}
	}
}

// TestRowsAreIndependent: a request gets the same bits alone, among others, in chunks of any size, after hits in the prefix
// cache, and after it lost its pages.
func TestRowsAreIndependent(t *testing.T) {
	all := requests(16)
	want := alone(t, all)
	for name, lim := range map[string]model.Limits{
		"ample":      ample,
		"odd chunks": {Rows: 37, Sequences: 12, Wanted: 12, Pages: 20, Context: 256},
		"row by row": {Rows: 1, Sequences: 1, Wanted: 1, Pages: 100, Context: 256},
		"few pages":  {Rows: 64, Sequences: 12, Wanted: 12, Pages: 3, Context: 256},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := open(t, lim)
			for i, got := range together(t, e, all) {
				if err := same(got, want[i]); err != nil {
					t.Errorf("request %d of %d tokens: %v", i, len(all[i].Prompt), err)
				}
			}
			if u := e.Usage(); u.Running+u.Waiting+u.PagesUsed != 0 || u.Prompt == 0 || u.Generated == 0 {
				t.Errorf("usage %+v", u)
			}
		})
	}
}

func TestPrefixHit(t *testing.T) {
	e, _ := open(t, ample)
	r := requests(7)[6]
	r.MaxTokens, r.Alternatives = 64, 3
	cold, err := collect(e.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	hot, err := collect(e.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	if err := same(hot, cold); err != nil {
		t.Error(err)
	}
	first, last := cold[0].Stats, hot[len(hot)-1].Stats
	if first.Cached != 0 || last.Cached != 128 || last.Prompt != 130 || last.Generated != 64 || last.Prefill <= 0 || last.Decode <= 0 || last.Queued < 0 {
		t.Errorf("stats %+v, then %+v", first, last)
	}
	// The next turn of a conversation finds what was generated in the last one: 130 + 64 tokens, but the last one, are three pages.
	next := r
	next.MaxTokens = 1
	for _, tok := range cold {
		next.Prompt = append(next.Prompt, tok.ID)
	}
	more, err := collect(e.Generate(t.Context(), next))
	if err != nil || more[0].Stats.Cached != 192 {
		t.Errorf("%+v, %v", more, err)
	}
}

// TestEqualPromptsShare: choices of one prompt that come at once compute it once, but for what lies behind the last full page.
func TestEqualPromptsShare(t *testing.T) {
	r := requests(7)[6] // 130 tokens: two pages and two tokens
	r.MaxTokens = 4
	all := make([]Request, 5)
	for i := range all {
		all[i] = r
		all[i].Sampling = Sampling{Temperature: 1, Seed: uint64(i)}
	}
	want := alone(t, all)
	synctest.Test(t, func(t *testing.T) {
		e, d := open(t, ample)
		goOn := make(chan bool)
		d.atSync = func() error {
			<-goOn
			return nil
		}
		go collect(e.Generate(t.Context(), Request{Prompt: []int32{1}, MaxTokens: 1, Alternatives: -1}))
		synctest.Wait() // its step is in hand, and all others come before the next one
		answers := make(chan [][]Token)
		go func() { answers <- together(t, e, all) }()
		synctest.Wait()
		close(goOn)
		for i, got := range <-answers {
			if err := same(got, want[i]); err != nil {
				t.Errorf("choice %d: %v", i, err)
			}
		}
		if u := e.Usage(); u.Rows != int64(1+130+4*2+5*3) || u.Cached != 4*128 {
			t.Errorf("%+v", u)
		}
	})
}

// TestPreemption lets two sequences grow into pages for one and a half.
func TestPreemption(t *testing.T) {
	all := requests(14)[4:6]
	for i := range all {
		all[i].Prompt, all[i].MaxTokens = all[i].Prompt[:60], 20
	}
	want := alone(t, all)
	e, _ := open(t, model.Limits{Rows: 64, Sequences: 2, Wanted: 2, Pages: 3, Context: 256})
	for i, got := range together(t, e, all) {
		if err := same(got, want[i]); err != nil {
			t.Error(err)
		}
	}
	if u := e.Usage(); u.Preempted == 0 {
		t.Errorf("nobody was preempted: %+v", u)
	}
}

func TestStop(t *testing.T) {
	e, _ := open(t, ample)
	r := requests(1)[0]
	r.MaxTokens = 8
	long, err := collect(e.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	r.Stop = []int32{319, long[4].ID}
	at := slices.IndexFunc(long, func(tok Token) bool { return tok.ID == long[4].ID })
	short, err := collect(e.Generate(t.Context(), r))
	if err != nil || len(short) != at+1 || short[at].ID != long[4].ID || short[at].Finish != Stop || short[at].Stats.Generated != at+1 {
		t.Errorf("%+v, %v", short, err)
	}
	r.MaxTokens = -1
	if none, err := collect(e.Generate(t.Context(), r)); err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	r.MaxTokens, r.Stop = 0, nil
	e, _ = open(t, model.Limits{Rows: 8, Sequences: 1, Wanted: 1, Pages: 1, Context: 256})
	if all, err := collect(e.Generate(t.Context(), r)); err != nil || len(all) != e.Context()-1 || all[len(all)-1].Finish != Length {
		t.Errorf("%d tokens in a context of %d, %v", len(all), e.Context(), err)
	}
}

// TestScore compares the logits of a score with what a generation says of the same tokens, in chunks of several sizes.
func TestScore(t *testing.T) {
	e, _ := open(t, ample)
	r := requests(7)[5]
	r.MaxTokens, r.Alternatives = 9, 1
	tokens, err := collect(e.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	ids := slices.Clone(r.Prompt)
	for _, tok := range tokens {
		ids = append(ids, tok.ID)
	}
	vocab := e.model.Spec().Vocab
	var want []float32
	for _, wanted := range []int{512, 1, 7} {
		lim := ample
		lim.Wanted, lim.Sequences = wanted, min(wanted, 16)
		e, _ := open(t, lim)
		var all []float32
		if err := e.Score(t.Context(), Scoring{IDs: ids}, func(first int, logits []float32) {
			if first*vocab != len(all) || len(logits) > wanted*vocab {
				t.Errorf("rows from %d after %d", first, len(all)/vocab)
			}
			all = append(all, logits...)
		}); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = all
		}
		if !slices.Equal(all, want) || len(all) != len(ids)*vocab {
			t.Errorf("%d wanted rows a step: other logits than in one step", wanted)
		}
	}
	for i, tok := range tokens {
		row := want[(tok.Position-1)*vocab:][:vocab]
		var total float64
		for _, v := range row {
			total += math.Exp(float64(v))
		}
		best := slices.Max(row)
		if logprob := float64(row[tok.ID]) - math.Log(total); math.Abs(logprob-float64(tok.Logprob)) > 1e-4 || row[tok.Best[0].ID] != best {
			t.Errorf("token %d: log-probability %v, scored %v; best %+v", i, tok.Logprob, logprob, tok.Best)
		}
	}
}

// TestSlowConsumer: the batch goes on while a consumer does not read, and his tokens wait for him.
func TestSlowConsumer(t *testing.T) {
	all := requests(2)
	all[0].MaxTokens = 30
	want := alone(t, all)
	e, _ := open(t, ample)
	var got []Token
	for tok, err := range e.Generate(t.Context(), all[0]) {
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			for range 10 { // requests of 4 tokens each, so that all 30 are there at the end
				other, err := collect(e.Generate(t.Context(), all[1]))
				if err = errors.Join(err, same(other, want[1])); err != nil {
					t.Fatal(err)
				}
			}
			if u := e.Usage(); u.Running != 0 {
				t.Errorf("still %d run", u.Running)
			}
		}
		got = append(got, tok)
	}
	if err := same(got, want[0]); err != nil {
		t.Error(err)
	}
	// A consumer of a score who does not return holds nobody up either.
	if err := e.Score(t.Context(), Scoring{IDs: all[0].Prompt}, func(int, []float32) {
		if _, err := collect(e.Generate(t.Context(), all[1])); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	e, _ := open(t, model.Limits{Rows: 8, Sequences: 2, Wanted: 2, Pages: 2, Context: 256})
	nan := float32(math.NaN())
	for i, r := range []Request{
		{}, {Prompt: []int32{-1}}, {Prompt: []int32{320}}, {Prompt: []int32{1}, Alternatives: 21}, {Prompt: []int32{1}, Alternatives: -2},
		{Prompt: []int32{1}, Sampling: Sampling{Temperature: -1}}, {Prompt: []int32{1}, Sampling: Sampling{Temperature: nan}},
		{Prompt: []int32{1}, Sampling: Sampling{TopP: 1.1}}, {Prompt: []int32{1}, Sampling: Sampling{MinP: nan}},
		{Prompt: []int32{1}, Sampling: Sampling{TopK: -1}}, {Prompt: []int32{1}, Sampling: Sampling{Temperature: float32(math.Inf(1))}},
		{Prompt: []int32{1}, Sampling: Sampling{TypicalP: 2}}, {Prompt: []int32{1}, Sampling: Sampling{Repetition: -1}},
		{Prompt: []int32{1}, Sampling: Sampling{Presence: nan}}, {Prompt: []int32{1}, Sampling: Sampling{Frequency: -1e9}},
		{Prompt: []int32{1}, Sampling: Sampling{Bias: []Bias{{320, 1}}}}, {Prompt: []int32{1}, Sampling: Sampling{Bias: []Bias{{1, nan}}}},
		{Prompt: []int32{1}, Sampling: Sampling{Bias: make([]Bias, MostBiases+1)}}, {Prompt: []int32{1}, MinTokens: -1},
		{Prompt: []int32{1}, Stop: []int32{320}},
	} {
		if _, err := collect(e.Generate(t.Context(), r)); !errors.Is(err, ErrRequest) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	_, err := collect(e.Generate(t.Context(), Request{Prompt: make([]int32, 128)}))
	var long *ContextError
	if !errors.Is(err, ErrContext) || !errors.As(err, &long) || long.Prompt != 128 || long.Context != 128 {
		t.Errorf("two pages, prompt of 128 tokens: %v", err)
	}
	if err := e.Score(t.Context(), Scoring{IDs: make([]int32, 129)}, nil); !errors.Is(err, ErrContext) {
		t.Errorf("two pages, score of 129 tokens: %v", err)
	}
	if err := e.Score(t.Context(), Scoring{IDs: nil}, nil); !errors.Is(err, ErrRequest) {
		t.Errorf("empty score: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("gone home")
	cancel(cause)
	if _, err := collect(e.Generate(ctx, Request{Prompt: []int32{1}})); !errors.Is(err, cause) {
		t.Errorf("cancelled before: %v", err)
	}
	if u := e.Usage(); u.Steps != 0 {
		t.Errorf("refused requests were computed: %+v", u)
	}
}
