package engine_test

import (
	"reflect"
	"sync"
	"testing"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
)

// Requests to a model whose cache is packed get in one batch, in chunks, after prefix hits and after preemptions the bits that they get
// alone; and what the cache rounds matters.
func TestPackedCachesAreIndependent(t *testing.T) {
	for _, kv := range []string{"q8_0", "q4_0", "mustafar-50", "mustafar-70"} {
		t.Run(kv, func(t *testing.T) { packedCachesAreIndependent(t, kv) })
	}
}

func packedCachesAreIndependent(t *testing.T, kv string) {
	packed := func(lim model.Limits) *engine.Engine {
		return startAs(t, model.Options{Limits: lim, KVType: kv, Sparse: sparse})
	}
	single := model.Limits{Rows: 512, Sequences: 1, Wanted: 1, Pages: 8, Context: 512}
	var all []engine.Request
	for i := range 6 {
		reads := readings[i%2*4]
		reads.Whole = true // so that pages are short
		all = append(all, engine.Request{Prompt: long(330 + i%3), MaxTokens: 120, Alternatives: 3, Reads: &reads})
	}
	want := make([][]engine.Token, len(all))
	for i, r := range all {
		var err error
		if want[i], err = answer(packed(single), r); err != nil {
			t.Fatal(err)
		}
	}
	if halves, err := answer(start(t, single), all[0]); err != nil || halves[1].Logprob == want[0][1].Logprob {
		t.Errorf("F16 gives %v, %v as well", halves[1].Logprob, err)
	}
	e := packed(model.Limits{Rows: 96, Sequences: 6, Wanted: 6, Pages: 18, Context: 512})
	for round := range 2 {
		var wait sync.WaitGroup
		for i, r := range all {
			wait.Go(func() {
				got, err := answer(e, r)
				if err != nil || !reflect.DeepEqual(got, want[i]) {
					t.Errorf("round %d, request %d: %v, %d tokens, other than alone", round, i, err, len(got))
				}
			})
		}
		wait.Wait()
	}
	if u := e.Usage(); u.Preempted == 0 || u.Cached == 0 {
		t.Errorf("nobody was preempted, or found anything: %+v", u)
	}
}
