package serve

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/store"
)

func TestGGUFVocab(t *testing.T) {
	for name, c := range map[string]struct {
		meta   store.Meta
		addBOS bool
		space  bool
		eog    []int32
		fails  string
	}{
		"sentencepiece":       {meta: store.Meta{ggml + "model": "llama"}, addBOS: true, space: true},
		"sentencepiece, told": {meta: store.Meta{ggml + "model": "llama", ggml + "add_bos_token": false, ggml + "add_space_prefix": false}},
		"byte-level":          {meta: store.Meta{ggml + "model": "gpt2", ggml + "add_space_prefix": true}},
		"llama 3":             {meta: store.Meta{ggml + "model": "gpt2", ggml + "pre": "llama-bpe"}, addBOS: true},
		"byte-level, told":    {meta: store.Meta{ggml + "model": "gpt2", ggml + "add_bos_token": true}, addBOS: true},
		"ends":                {meta: store.Meta{ggml + "eot_token_id": uint32(5), ggml + "eom_token_id": uint32(1<<32 - 1)}, eog: []int32{5}},
		"wrong type":          {meta: store.Meta{ggml + "model": uint32(1)}, fails: "model"},
		"huge id":             {meta: store.Meta{ggml + "bos_token_id": uint64(1 << 40)}, fails: "bos_token_id"},
		"huge type":           {meta: store.Meta{ggml + "token_type": []int64{1 << 40}}, fails: "token_type"},
	} {
		v, err := ggufVocab(c.meta)
		if c.fails != "" {
			if !errors.Is(err, store.ErrFormat) || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || v.AddBOS != c.addBOS || v.AddSpacePrefix != c.space || !slices.Equal(v.EOG, c.eog) || v.BOS != -1 {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

func TestEndIDs(t *testing.T) {
	for file, want := range map[string][]int32{
		`{}`: nil, `{"eos_token_id":null}`: nil, `{"eos_token_id":7}`: {7}, `{"eos_token_id":[7,8]}`: {7, 8},
	} {
		if got, err := endIDs([]byte(file)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", file, got, err)
		}
	}
	for _, file := range []string{`[]`, `{"eos_token_id":"x"}`, `{"eos_token_id":[1.5]}`, `{"eos_token_id":4294967296}`, ``} {
		if _, err := endIDs([]byte(file)); !errors.Is(err, store.ErrFormat) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestRecommended(t *testing.T) {
	folder := func(s string) *store.Checkpoint {
		return &store.Checkpoint{Kind: store.HF, Files: map[string][]byte{"generation_config.json": []byte(s)}}
	}
	gguf := func(m store.Meta) *store.Checkpoint { return &store.Checkpoint{Kind: store.GGUF, Meta: m} }
	for name, c := range map[string]struct {
		c     *store.Checkpoint
		temp  float32
		topK  int
		fails bool

		repetition float32 // 0 = 1
	}{
		"nothing":   {c: gguf(nil), temp: 1},
		"folder":    {c: folder(`{"do_sample":true,"temperature":0.7,"top_k":40}`), temp: 0.7, topK: 40},
		"leftovers": {c: folder(`{"do_sample":false,"temperature":0.7}`), temp: 1},
		"gguf":      {c: gguf(store.Meta{"general.sampling.temp": float32(0.5), "general.sampling.top_k": int32(3)}), temp: 0.5, topK: 3},
		"penalty":   {c: gguf(store.Meta{"general.sampling.penalty_repeat": float32(1.1)}), temp: 1, repetition: 1.1},
		"penalties": {c: folder(`{"repetition_penalty":1.05,"typical_p":1}`), temp: 1, repetition: 1.05},
		"negative":  {c: folder(`{"temperature":-1}`), fails: true},
		"no number": {c: folder(`{"top_p":"x"}`), fails: true},
		"too large": {c: gguf(store.Meta{"general.sampling.top_p": float32(2)}), fails: true},
	} {
		r, err := recommended(c.c)
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		if c.fails {
			continue
		}
		m := Model{recommended: r}
		c.repetition = cmp.Or(c.repetition, 1)
		if s := m.sampling(&Generation{}); s.Temperature != c.temp || s.TopK != c.topK || s.TopP != 1 || s.Repetition != c.repetition {
			t.Errorf("%s: %+v", name, s)
		}
		if s := m.sampling(&Generation{Temperature: new(float32(0)), TopK: new(0)}); s.Temperature != 0 || s.TopK != 0 {
			t.Errorf("%s, overridden: %+v", name, s)
		}
	}
}
