package engine_test

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
)

// twisted is what requests expect of their answers, which are here and there otherwise.
func twisted(r engine.Request, answer []engine.Token) []int32 {
	x := slices.Clone(r.Prompt[len(r.Prompt)-4:])
	for i, tok := range answer {
		if x = append(x, tok.ID); i%9 == 6 {
			x[len(x)-1] = (tok.ID + 1) % 100
		}
	}
	return x
}

// What drafts leave in pages is, to the bit, what steps of one token leave there: keys, values and what selectors keep beside them. Tokens that
// did not hold are in none that is shared or kept outside, and who finds such a page reads the same of it.
func TestDraftsLeaveNothingInPages(t *testing.T) {
	quest := model.Selection{Name: "quest", Knobs: []float32{64}, Params: map[string]float64{"dense_layers": 0}}
	for name, opt := range map[string]model.Options{
		"plain":    {},
		"packed":   {KVType: "q8_0", Sparse: []model.Selection{quest}},
		"sidecars": {Sparse: many},
		"f32":      {KVType: "f32", Sparse: []model.Selection{quest}},
		"pruned":   {KVType: "mustafar-50"},
		"gates": {
			Sparse: []model.Selection{{Name: "seer_decode", Knobs: []float32{64}}}, Gates: []*model.Gates{randomGates(t, model.SeerDecode)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var all []engine.Request
			for i := range 3 {
				all = append(all, engine.Request{
					Prompt: long(100 + 30*i), MaxTokens: 230, Alternatives: 2,
					Sampling: engine.Sampling{Temperature: float32(i) / 2, Seed: 7, Repetition: 1.1, RepeatLast: 20},
				})
			}
			opt.Limits = model.Limits{Rows: 128, Sequences: 3, Wanted: 3, Pages: 40, Context: 512}
			plain := newShelf()
			e, end := keeping(t, opt, plain)
			want := make([][]engine.Token, len(all))
			for i, r := range all {
				want[i], _ = told(t, e, r)
			}
			later := engine.Request{Prompt: slices.Clone(all[0].Prompt), MaxTokens: 20, Alternatives: 3}
			for _, tok := range want[0] {
				later.Prompt = append(later.Prompt, tok.ID)
			}
			if len(opt.Sparse) > 0 {
				later.Reads = &model.Reading{Decode: opt.Sparse[len(opt.Sparse)-1].Name}
			}
			after, _ := told(t, e, later)
			end() // and all pages are kept

			drafting := newShelf()
			opt.Limits.Wanted = 24
			e, end = opened(t, opt, engine.Options{Prefixes: drafting, Draft: engine.Always})
			var wait sync.WaitGroup
			for i, r := range all {
				r.Expected = twisted(r, want[i])
				wait.Go(func() {
					got, err := answer(e, r)
					for j := range got {
						got[j].Drafted, got[j].Rejected = false, 0
					}
					if err != nil || !reflect.DeepEqual(got, want[i]) {
						t.Errorf("request %d: %v, or other tokens", i, err)
					}
				})
			}
			wait.Wait()
			if u := e.Usage(); u.Accepted < 200 || u.Drafted-u.Accepted < 100 {
				t.Errorf("%+v", u)
			}
			later.Draft = -1
			got, cached := told(t, e, later)
			if !reflect.DeepEqual(got, after) || cached < 256 {
				t.Errorf("after %d cached tokens: other tokens", cached)
			}
			end()
			if len(plain.pages) < 12 || len(drafting.pages) != len(plain.pages) {
				t.Fatalf("%d pages, and %d with drafts", len(plain.pages), len(drafting.pages))
			}
			for id, page := range plain.pages {
				if !bytes.Equal(drafting.pages[id], page) {
					t.Error(fmt.Sprintf("page %x", id[:4]), "differs")
				}
			}
		})
	}
}

// Who reads by selectors, or asks what experts did, drafts nothing, and has what he would have beside others who do.
func TestWhoDraftsNothing(t *testing.T) {
	opt := model.Options{Limits: model.Limits{Rows: 128, Sequences: 3, Wanted: 24, Pages: 40, Context: 512}, Sparse: sparse}
	loop := func(i int) (ids []int32) {
		for j := range 90 {
			ids = append(ids, int32(i+j%5))
		}
		return ids
	}
	all := []engine.Request{
		{Prompt: loop(3), MaxTokens: 60, Alternatives: -1, Reads: &model.Reading{Decode: "streaming"}},
		{Prompt: loop(9), MaxTokens: 60, Alternatives: -1, Draft: -1},
		{Prompt: loop(30), MaxTokens: 60, Alternatives: -1},
	}
	e, _ := opened(t, opt, engine.Options{Draft: engine.Always})
	var wait sync.WaitGroup
	for i, r := range all {
		wait.Go(func() {
			got, err := answer(e, r)
			drafted := 0
			for j := range got {
				if got[j].Drafted || got[j].Rejected > 0 {
					drafted++
				}
				got[j].Drafted, got[j].Rejected = false, 0
			}
			plain, _ := answer(startAs(t, opt), r)
			if err != nil || !reflect.DeepEqual(got, plain) || (drafted > 0) != (i == 2) {
				t.Errorf("request %d: %v, %d drafted", i, err, drafted)
			}
		})
	}
	wait.Wait()
}
