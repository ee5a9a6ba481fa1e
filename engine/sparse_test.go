package engine_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
)

// narrow is a knob that reads a page and the sink.
var narrow = float32(0)

// readings are ways to read with the selectors of these tests.
var readings = []model.Reading{
	{},
	{Prefill: "streaming"},
	{Decode: "streaming"},
	{Decode: "streaming", DecodeFrom: 300},
	{Prefill: "streaming", Decode: "streaming"},
	{Prefill: "streaming", PrefillKnob: &narrow},
	{Prefill: "streaming", PrefillKnob: &narrow, Decode: "streaming", DecodeKnob: &narrow},
	{Prefill: "full", Decode: "full"},
	{Prefill: "xattention", Decode: "quest"},
	{Prefill: "anchor", Decode: "s2"},
	{Prefill: "flexprefill"},
	{Prefill: "minference", Decode: "quest"},
	{Prefill: "s2", Decode: "s2"},
}

// long is a prompt that all these requests begin with.
func long(n int) []int32 {
	prompt := make([]int32, n)
	for i := range prompt {
		prompt[i] = int32(i*i%701 + 3)
	}
	return prompt
}

// Requests that read by different selectors get in one batch, in chunks, after prefix hits and after preemptions the bits that they get
// alone; and what they read matters. All that holds where full pages are pruned too.
func TestReadingsAreIndependent(t *testing.T) {
	for _, kv := range []string{"f16", "mustafar-70"} {
		t.Run(kv, func(t *testing.T) { readingsAreIndependent(t, kv) })
	}
}

func readingsAreIndependent(t *testing.T, kv string) {
	var all []engine.Request
	for i := range readings {
		all = append(all, engine.Request{Prompt: long(330 + i%3), MaxTokens: 120, Alternatives: 3, Reads: &readings[i]})
	}
	want := make([][]engine.Token, len(all))
	differ := map[string]bool{}
	for i, r := range all {
		e := startAs(t, model.Options{Limits: model.Limits{Rows: 512, Sequences: 1, Wanted: 1, Pages: 8, Context: 512}, Sparse: many, KVType: kv})
		var err error
		if want[i], err = answer(e, r); err != nil {
			t.Fatal(err)
		}
		differ[fmt.Sprint(i%3, want[i][1].Logprob)] = true
	}
	if len(differ) < 11 {
		t.Errorf("of %d readings only %d differ in what they get: %v", len(all), len(differ), differ)
	}
	e := startAs(t, model.Options{Limits: model.Limits{Rows: 160, Sequences: 6, Wanted: 6, Pages: 18, Context: 512}, Sparse: many, KVType: kv})
	for round := 0; round < 2 || round < 30 && e.Usage().Preempted == 0; round++ { // who is preempted depends on the machine
		var wait sync.WaitGroup
		for i, r := range all {
			wait.Go(func() {
				got, err := answer(e, r)
				if err != nil || !reflect.DeepEqual(got, want[i]) {
					t.Errorf("round %d, reading %d: %v, %d tokens, other than alone", round, i, err, len(got))
				}
			})
		}
		wait.Wait()
	}
	if u := e.Usage(); u.Preempted == 0 || u.Cached == 0 {
		t.Errorf("nobody was preempted, or found anything: %+v", u)
	}
}

// A prompt that was read in one way is no beginning of one that is read in another; decoding shares what the prompt has left.
func TestReadingsShareWhatIsEqual(t *testing.T) {
	e := start(t, model.Limits{Rows: 128, Sequences: 2, Wanted: 2, Pages: 60, Context: 512})
	cached := func(r model.Reading) int64 {
		before := e.Usage().Cached
		_, err := answer(e, engine.Request{Prompt: long(330), MaxTokens: 70, Alternatives: -1, Reads: &r})
		if err != nil {
			t.Fatal(err)
		}
		return e.Usage().Cached - before
	}
	for i, c := range []struct {
		reading model.Reading
		cached  int64
	}{
		{model.Reading{}, 0}, {model.Reading{Decode: "streaming"}, 320}, {model.Reading{Prefill: "streaming"}, 0},
		{model.Reading{Prefill: "streaming", Decode: "streaming"}, 320}, {model.Reading{Prefill: "streaming", PrefillKnob: &narrow}, 0},
	} {
		if got := cached(c.reading); got != c.cached {
			t.Errorf("request %d, %+v: found %d tokens, want %d", i, c.reading, got, c.cached)
		}
	}
}

func TestBadReadings(t *testing.T) {
	e := start(t, model.Limits{Rows: 64, Sequences: 1, Wanted: 1, Pages: 8, Context: 512})
	below := float32(-1)
	for want, r := range map[string]model.Reading{
		`prefill is "none"`: {Prefill: "none"}, `decode is "anchor", this model is served with ["full" "streaming"]`: {Decode: "anchor"},
		"recent is -1": {Prefill: "streaming", PrefillKnob: &below},
	} {
		_, err := answer(e, engine.Request{Prompt: long(9), MaxTokens: 1, Alternatives: -1, Reads: &r})
		if !errors.Is(err, engine.ErrRequest) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%+v: %v, want %q", r, err, want)
		}
	}
}

// What was read is said, with what the rest would have weighed.
func TestReadingsAreReceipted(t *testing.T) {
	e := start(t, model.Limits{Rows: 64, Sequences: 2, Wanted: 2, Pages: 60, Context: 2048})
	read := func(r model.Reading) *engine.SparseStats {
		var last *engine.SparseStats
		for tok, err := range e.Generate(t.Context(), engine.Request{Prompt: long(1100), MaxTokens: 270, Alternatives: -1, Reads: &r}) {
			if err != nil {
				t.Fatal(err)
			}
			if tok.Stats != nil {
				last = tok.Stats.Sparse
			}
		}
		return last
	}
	if s := read(model.Reading{Decode: "full"}); s != nil {
		t.Errorf("everything was read: %+v", s)
	}
	all := float32(2048)
	if s := read(model.Reading{Prefill: "streaming", PrefillKnob: &all}); s.Read != s.Visible || s.Probes != 1 || s.Mass != 1 || s.Least != 1 {
		t.Errorf("a window that has everything: %+v", s)
	}
	few := read(model.Reading{Prefill: "streaming", Decode: "streaming", Whole: true})
	if few.Read >= few.Visible/2 || few.Probes != 3 || few.Recall() >= 1 || few.Recall() < few.Least || few.Least <= 0 || few.Budget != 0 || few.Freed != 0 || few.Held != 22 {
		t.Errorf("64 keys, a page and a sink: %+v", few)
	}
	if u := e.Usage(); u.Probes != 4 || u.KeysVisible < few.Visible || u.Doubled != 0 {
		t.Errorf("%+v", u.Selected)
	}
	least := read(model.Reading{Prefill: "streaming", Decode: "streaming"})
	if least.Probes != 0 || least.Recall() != 1 || least.Read >= least.Visible || least.Held != 3 || least.Freed != 19 {
		t.Errorf("a page and a sink are kept: %+v", least)
	}
}
