package serve

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/modeltest"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// mimo writes a folder of a checkpoint with a head, with the tokenizer of stories, and opens it.
func mimo(t *testing.T, o modeltest.MiMo) *store.Checkpoint {
	t.Helper()
	dir := t.TempDir()
	if err := o.Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tokenizer.model", "tokenizer_config.json"} {
		b, err := os.ReadFile(filepath.Join("..", "model", "testdata", stories, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// talks opens a checkpoint.
func talks(t *testing.T, c *store.Checkpoint, opt Options) *Model {
	t.Helper()
	opt.Device, opt.Loop, opt.DType, opt.Check = tensor.Reference(), engine.NewLoop(), model.Float32, true
	t.Cleanup(opt.Loop.Close)
	m, err := Open("mimo", c, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// whole is an answer, of which tokens need not be whole runes.
func whole(t *testing.T, m *Model, r CompletionRequest) (all Delta) {
	t.Helper()
	for d, err := range m.Complete(t.Context(), r) {
		if err != nil {
			t.Fatal(err)
		}
		all.add(d)
	}
	return all
}

// A model that has a head drafts by it where no draft model is named: answers are what they are without, usage says that they came from it, and what it
// takes is weighed and counted. Without drafts nothing of it is loaded.
func TestHead(t *testing.T) {
	o := modeltest.MiMo{Vocab: 512, Dim: 64, Layers: 2, Seed: 2, Chain: true}
	plain := talks(t, mimo(t, o), small())
	opt := small()
	opt.Draft, opt.DraftMost = engine.Always, 5
	drafting := talks(t, mimo(t, o), opt)
	var said Foretold
	for seed := range int64(3) {
		r := CompletionRequest{Prompt: "Once upon a time", Generation: Generation{MaxTokens: 40, Seed: &seed, Temperature: new(float32(0.5 * float32(seed))), Logprobs: new(2)}}
		want, got := whole(t, plain, r), whole(t, drafting, r)
		if got.Usage.Completion != want.Usage.Completion || got.Usage.ByModel != (Foretold{}) {
			t.Errorf("usage %+v, want %+v", got.Usage, want.Usage)
		}
		said.Accepted, said.Rejected = said.Accepted+got.Usage.ByHead.Accepted, said.Rejected+got.Usage.ByHead.Rejected
		if got.Usage, want.Usage = nil, nil; !reflect.DeepEqual(got, want) {
			t.Errorf("seed %d: %+v, want %+v", seed, got, want)
		}
	}
	u := drafting.Usage().ByHead
	if int64(said.Accepted) != u.Accepted || int64(said.Accepted+said.Rejected) != u.Drafted || u.Accepted < 40 || u.Accepted < u.Drafted*9/10 {
		t.Errorf("answers say %+v, the engine %+v", said, u)
	}
	for m, opt := range map[*Model]Options{plain: small(), drafting: opt} {
		opt.Device, opt.DType = tensor.Reference(), model.Float32
		c := mimo(t, o)
		need, err := Weigh(c, opt)
		if err != nil || need < m.Memory()*95/100 || need > m.Memory()*105/100 {
			t.Errorf("weighs %d bytes and takes %d, %v", need, m.Memory(), err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if before, with := plain.Memory(), drafting.Memory(); with < before+4*64*(64*2+64*96/64*3) {
		t.Errorf("%d bytes, and %d with a head", before, with)
	}
}

// A draft model that is named goes before a head, and a cache without room for the head's is refused by its name.
func TestHeadOptions(t *testing.T) {
	o := modeltest.MiMo{Vocab: 512, Dim: 64, Layers: 2, Seed: 2}
	opt := small()
	opt.Draft, opt.DraftModel = engine.ByModel, &DraftModel{Name: "itself", Open: func() (*store.Checkpoint, error) { return mimo(t, o), nil }}
	if m := talks(t, mimo(t, o), opt); m.second == nil || m.second.head {
		t.Errorf("%+v", m.second)
	}
	opt.DraftModel, opt.Draft = nil, engine.NGram
	if m := talks(t, mimo(t, o), opt); m.second != nil {
		t.Errorf("%+v", m.second)
	}
	opt.Draft, opt.CacheBytes = engine.ByModel, 20<<10
	opt.Device, opt.Loop = tensor.Reference(), engine.NewLoop()
	t.Cleanup(opt.Loop.Close)
	if _, err := Open("mimo", mimo(t, o), opt); err == nil || !strings.Contains(err.Error(), headName) {
		t.Errorf("%v", err)
	}
}

// Where nobody says how many rows a step has, a head has as many as a draft model would.
func TestRowsOfHead(t *testing.T) {
	m := talks(t, mimo(t, modeltest.MiMo{Vocab: 512, Dim: 64, Layers: 2, Seed: 2}), Options{Draft: engine.Always})
	if m.second == nil || !m.second.head || m.second.opt.Limits.Rows != 16*m.second.opt.Limits.Sequences {
		t.Errorf("%+v", m.second)
	}
}
