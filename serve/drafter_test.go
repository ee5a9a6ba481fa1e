package serve

import (
	"errors"
	"reflect"
	"testing"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// draftOf is a checkpoint as a draft model.
func draftOf(t *testing.T, name string) *DraftModel {
	return &DraftModel{Name: name, Most: 5, Open: func() (*store.Checkpoint, error) { return checkpoint(t, name), nil }}
}

// An answer and its usage are what they are without a draft model, whether it is the model itself or has fewer experts, and what it takes is weighed
// and counted.
func TestDraftModel(t *testing.T) {
	plain := open(t, demo.Name, small())
	story := []Turn{{Role: "user", Content: "Tell me a story about a cat."}}
	thin := draftOf(t, demo.Name)
	thin.Within, thin.Overlay = true, &model.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{0: {Drop: []int{1, 2}}}}
	for name, d := range map[string]*DraftModel{"itself": draftOf(t, demo.Name), "with fewer experts": thin} {
		t.Run(name, func(t *testing.T) {
			opt := small()
			opt.Draft, opt.DraftModel, opt.Apart = engine.Always, d, d.Within
			drafting := open(t, demo.Name, opt)
			var said Foretold
			for seed := range int64(3) {
				g := Generation{MaxTokens: 40, Seed: &seed, Temperature: new(float32(0.4 * float32(seed))), Repetition: new(float32(1.1)), Logprobs: new(2)}
				want := joined(t, plain.Chat(t.Context(), ChatRequest{Messages: story, Generation: g}))
				got := joined(t, drafting.Chat(t.Context(), ChatRequest{Messages: story, Generation: g}))
				if got.Usage.Completion != want.Usage.Completion {
					t.Errorf("usage %+v, want %+v", got.Usage, want.Usage)
				}
				said.Accepted, said.Rejected = said.Accepted+got.Usage.ByModel.Accepted, said.Rejected+got.Usage.ByModel.Rejected
				if got.Usage, want.Usage = nil, nil; !reflect.DeepEqual(got, want) {
					t.Errorf("seed %d: %+v, want %+v", seed, got, want)
				}
			}
			u := drafting.Usage().ByModel
			if int64(said.Accepted) != u.Accepted || int64(said.Accepted+said.Rejected) != u.Drafted {
				t.Errorf("answers say %+v, the engine %+v", said, u)
			}
			if u.Accepted < 40 || u.Seconds <= 0 || name == "itself" && u.Accepted != u.Drafted {
				t.Errorf("%+v", u)
			}
			if before, with := plain.Memory(), drafting.Memory(); with <= before {
				t.Errorf("%d bytes, and %d with a draft model", before, with)
			}
			opt.Device, opt.DType = tensor.Reference(), model.Float32
			c := checkpoint(t, demo.Name)
			need, err := Weigh(c, opt)
			if err != nil || need < drafting.Memory()*9/10 || need > drafting.Memory()*11/10 {
				t.Errorf("weighs %d bytes and takes %d, %v", need, drafting.Memory(), err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A draft model of another vocabulary is refused, and one that is not there.
func TestDraftModelRefused(t *testing.T) {
	opt := small()
	opt.Device, opt.Loop, opt.Draft = tensor.Reference(), engine.NewLoop(), engine.ByModel
	t.Cleanup(opt.Loop.Close)
	opt.DraftModel = draftOf(t, stories)
	var other *VocabError
	if _, err := Open(demo.Name, checkpoint(t, demo.Name), opt); !errors.As(err, &other) || other.Draft == "" || other.Model == other.Size {
		t.Errorf("%v", err)
	}
	opt.DraftModel.Open = func() (*store.Checkpoint, error) { return nil, store.ErrNoModel }
	if _, err := Open(demo.Name, checkpoint(t, demo.Name), opt); !errors.Is(err, store.ErrNoModel) {
		t.Errorf("%v", err)
	}
	opt.DraftModel = draftOf(t, demo.Name)
	opt.CacheBytes = 400 << 10
	opt.Context = 64
	if _, err := Open(demo.Name, checkpoint(t, demo.Name), opt); err == nil {
		t.Error("a draft model without a cache is taken")
	}
}

// A draft model's own pages stay whole beside a model whose pages are pruned.
func TestDraftModelBesidePrunedPages(t *testing.T) {
	opt := small()
	opt.KVType = "mustafar-50"
	want := joined(t, open(t, demo.Name, opt).Chat(t.Context(), ChatRequest{Messages: []Turn{{Role: "user", Content: "Tell me a story about a cat."}}, Generation: Generation{MaxTokens: 80, Temperature: new(float32)}}))
	opt.Draft, opt.DraftModel = engine.Always, draftOf(t, demo.Name)
	drafting := open(t, demo.Name, opt)
	got := joined(t, drafting.Chat(t.Context(), ChatRequest{Messages: []Turn{{Role: "user", Content: "Tell me a story about a cat."}}, Generation: Generation{MaxTokens: 80, Temperature: new(float32)}}))
	if got.Usage, want.Usage = nil, nil; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if u := drafting.Usage().ByModel; u.Accepted == 0 {
		t.Errorf("%+v", u)
	}
}
