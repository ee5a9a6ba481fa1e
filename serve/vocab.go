package serve

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

// vocabulary reads a checkpoint's tokenizer tables.
func vocabulary(c *store.Checkpoint) (*text.Vocab, error) {
	if c.Kind == store.GGUF {
		return ggufVocab(c.Meta)
	}
	return folderVocab(c.Files)
}

// beginsWithBOS are the pre-tokenizers whose byte-level vocabularies want BOS before a prompt unless their file says otherwise.
var beginsWithBOS = []string{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken", "chameleon"}

// ggufVocab reads the keys under tokenizer.ggml.
func ggufVocab(m store.Meta) (*text.Vocab, error) {
	r := metaReader{m: m}
	v := &text.Vocab{
		Model: r.text("model"), Pre: r.text("pre"),
		Tokens: r.texts("tokens"), Merges: r.texts("merges"), Scores: r.floats("scores"), Types: r.ids("token_type"),
		BOS: r.id("bos_token_id"), EOS: r.id("eos_token_id"), UNK: r.id("unknown_token_id"), PAD: r.id("padding_token_id"),
	}
	for _, key := range []string{"eot_token_id", "eom_token_id"} {
		if id := r.id(key); id >= 0 {
			v.EOG = append(v.EOG, id)
		}
	}
	spm := v.Model == "llama"
	v.AddBOS = r.flag("add_bos_token") || !r.has("add_bos_token") && (spm || slices.Contains(beginsWithBOS, v.Pre))
	v.AddEOS = r.flag("add_eos_token")
	v.AddSpacePrefix = spm && (r.flag("add_space_prefix") || !r.has("add_space_prefix"))
	if spm && len(v.Scores) > 0 {
		v.Merges = nil // scores rank its pairs, as in the reference
	}
	return v, r.err
}

// metaReader reads tokenizer keys; the first failure sticks.
type metaReader struct {
	m   store.Meta
	err error
}

const ggml = "tokenizer.ggml."

func kept[T any](r *metaReader, v T, err error) T {
	if r.err == nil {
		r.err = err
	}
	return v
}

func (r *metaReader) has(key string) bool { return r.m.Has(ggml + key) }

func (r *metaReader) text(key string) string {
	v, err := r.m.String(ggml+key, "")
	return kept(r, v, err)
}

func (r *metaReader) texts(key string) []string {
	v, err := r.m.Strings(ggml + key)
	return kept(r, v, err)
}

func (r *metaReader) floats(key string) []float32 {
	v, err := r.m.Floats(ggml + key)
	return kept(r, v, err)
}

func (r *metaReader) flag(key string) bool {
	v, err := r.m.Bool(ggml + key)
	return kept(r, v, err)
}

// ids reads integers that must fit 32 bits.
func (r *metaReader) ids(key string) []int32 {
	wide, err := r.m.Ints(ggml + key)
	out := make([]int32, len(wide))
	for i, v := range wide {
		if out[i] = int32(v); int64(out[i]) != v {
			err = fmt.Errorf("key %q: %d at place %d: %w", ggml+key, v, i, store.ErrFormat)
		}
	}
	return kept(r, out, err)
}

// id reads a token's id; -1 when the file names none. Files write "none" as the largest number too.
func (r *metaReader) id(key string) int32 {
	v, err := r.m.Int(ggml+key, -1)
	if v == math.MaxUint32 {
		v = -1
	}
	if err == nil && int64(int32(v)) != v {
		err = fmt.Errorf("key %q: %d is no token: %w", ggml+key, v, store.ErrFormat)
	}
	return kept(r, int32(v), err)
}

// folderVocab reads the tokenizer of a Hugging Face folder and what its other files say about ends.
func folderVocab(files map[string][]byte) (*text.Vocab, error) {
	var v *text.Vocab
	var err error
	switch {
	case files["tokenizer.json"] != nil:
		v, err = text.ParseTokenizerJSON(files["tokenizer.json"])
	case files["tokenizer.model"] != nil:
		v, err = text.ParseSentencePiece(files["tokenizer.model"])
	default:
		err = fmt.Errorf("neither tokenizer.json nor tokenizer.model: %w", store.ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	if raw := files["tokenizer_config.json"]; raw != nil {
		config, err := text.ParseTokenizerConfig(raw)
		if err == nil {
			err = v.Apply(config)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"generation_config.json", "config.json"} {
		ends, err := endIDs(files[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, id := range ends {
			if !slices.Contains(v.EOG, id) {
				v.EOG = append(v.EOG, id)
			}
		}
	}
	return v, nil
}

// endIDs reads eos_token_id: a number, a list of them, or nothing.
func endIDs(file []byte) ([]int32, error) {
	if file == nil {
		return nil, nil
	}
	var j struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	if err := json.Unmarshal(file, &j); err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrFormat, err)
	}
	if len(j.EOS) == 0 || string(j.EOS) == "null" {
		return nil, nil
	}
	var one int32
	if json.Unmarshal(j.EOS, &one) == nil {
		return []int32{one}, nil
	}
	var several []int32
	if err := json.Unmarshal(j.EOS, &several); err != nil {
		return nil, fmt.Errorf("eos_token_id: %w: %w", store.ErrFormat, err)
	}
	return several, nil
}
