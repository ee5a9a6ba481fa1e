// Package text is everything between strings and token ids: tokenizers built from a model file's own tables,
// the incremental decoder, stop strings and chat templates. It imports nothing else of this module.
package text

import (
	"errors"
	"fmt"
	"math"
)

// ErrVocab is wrapped by every error that says a model's tokenizer tables cannot be used; the wrapping
// names the field and, where there is one, the index.
var ErrVocab = errors.New("text: bad vocabulary")

// Limits on what a file may ask for. The largest published vocabularies have some 260,000 tokens.
const (
	maxTokens    = 1 << 20
	maxMerges    = 1 << 21
	maxTokenLen  = 64 << 10 // bytes of one token
	maxWholeLen  = 256      // bytes of a token that is matched whole
	maxPieceLen  = 1 << 10  // bytes of a SentencePiece token
	maxSplitters = 16
)

// Token types, with GGUF's numbers.
const (
	TypeNormal      = 1
	TypeUnknown     = 2
	TypeControl     = 3 // shapes the conversation; never made from what a user wrote
	TypeUserDefined = 4 // added to the vocabulary, matched whole, ordinary text otherwise
	TypeUnused      = 5
	TypeByte        = 6
)

// Span is a run of text with its origin.
type Span struct {
	Text  string
	Input bool // written by a user, not by the template: control tokens in it are ordinary text
}

// Vocab is what a model file says about its tokenizer, as plain data. Tokens have the form GGUF gives them:
// byte-level tokens in GPT-2's visible alphabet, SentencePiece tokens with "▁" for a space, and control and
// user-defined tokens as they look in text.
type Vocab struct {
	Model      string   // "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE)
	Pre        string   // pre-tokenizer, as GGUF's tokenizer.ggml.pre; "" is "default", which is nobody's but llama.cpp's
	SplitRegex []string // used in order in place of Pre where that is ""
	Tokens     []string
	Scores     []float32 // of SentencePiece tokens; empty where Merges ranks them
	Types      []int32   // Type constants; empty means all normal
	Merges     []string  // "left right", best first

	BOS, EOS, UNK, PAD int32   // -1 = none
	EOG                []int32 // further ids that end a generation
	Closing            []int32 // what AddEOS wants behind a whole text; empty = EOS

	AddBOS, AddEOS bool // wishes for whoever builds a prompt; Encode adds neither
	AddSpacePrefix bool // SentencePiece: text begins with a space that is not there; GGUF means true where it is silent
	IgnoreMerges   bool // a piece that is a token is that token, whatever the merges say

	PrefixFirst  bool    // the added space goes before the whole text only, not after each special token
	PrefixIfNone bool    // the added space is left out where the text begins with one
	NFC          bool    // text between special tokens is brought to Unicode's form C first
	LStrip       []int32 // special tokens that swallow the white space before them
	RStrip       []int32 // special tokens that swallow the white space after them
}

// Tokenizer turns text into ids and back. It is safe for any number of goroutines.
type Tokenizer interface {
	// Encode appends the ids of the joined spans to dst. It never adds BOS or EOS. Control tokens are
	// recognised only where no byte of the match is Input; borders between spans are otherwise invisible.
	Encode(dst []int32, spans ...Span) []int32
	// Piece is the bytes that id stands for, to be read only; nil outside the vocabulary. A control token's
	// piece is its literal text, which Decoder leaves out.
	Piece(id int32) []byte
	// Vocab is the table the tokenizer was made from, to be read only.
	Vocab() *Vocab
}

// NewTokenizer checks v as a file that nobody vouches for and builds the tokenizer it describes. The caller
// does not change v afterwards. Errors wrap ErrVocab.
func NewTokenizer(v *Vocab) (Tokenizer, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	switch v.Model {
	case "gpt2":
		return newBPE(v)
	case "llama":
		return newSPM(v)
	}
	return nil, bad("model %q is neither gpt2 nor llama", v.Model)
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrVocab, fmt.Sprintf(format, args...))
}

// check looks at sizes, types, scores and ids: all that can be judged without knowing the model.
func (v *Vocab) check() error {
	n := len(v.Tokens)
	switch {
	case n == 0:
		return bad("no tokens")
	case n > maxTokens:
		return bad("%d tokens, more than %d", n, maxTokens)
	case len(v.Merges) > maxMerges:
		return bad("%d merges, more than %d", len(v.Merges), maxMerges)
	case len(v.Types) != 0 && len(v.Types) != n:
		return bad("%d types for %d tokens", len(v.Types), n)
	case len(v.Scores) != 0 && len(v.Scores) != n:
		return bad("%d scores for %d tokens", len(v.Scores), n)
	case len(v.SplitRegex) > maxSplitters:
		return bad("%d split expressions, more than %d", len(v.SplitRegex), maxSplitters)
	}
	for i, s := range v.Tokens {
		if len(s) > maxTokenLen {
			return bad("tokens[%d] has %d bytes, more than %d", i, len(s), maxTokenLen)
		}
	}
	for i, t := range v.Types {
		if t < 0 || t > TypeByte {
			return bad("types[%d] is %d", i, t)
		}
	}
	for i, s := range v.Scores {
		if math.IsNaN(float64(s)) {
			return bad("scores[%d] is not a number", i)
		}
	}
	for _, f := range []struct {
		name string
		id   int32
	}{{"bos", v.BOS}, {"eos", v.EOS}, {"unk", v.UNK}, {"pad", v.PAD}} {
		if f.id < -1 || int(f.id) >= n {
			return bad("%s is %d, outside the %d tokens", f.name, f.id, n)
		}
	}
	for _, f := range []struct {
		name string
		ids  []int32
	}{{"eog", v.EOG}, {"closing", v.Closing}, {"lstrip", v.LStrip}, {"rstrip", v.RStrip}} {
		for i, id := range f.ids {
			if id < 0 || int(id) >= n {
				return bad("%s[%d] is %d, outside the %d tokens", f.name, i, id, n)
			}
		}
	}
	return nil
}

// kind is the type of a token that exists. Without a table of types the named tokens are control tokens, and
// so are well-known ends of turns that a careless converter called user-defined: a user must not end a turn.
func (v *Vocab) kind(id int32) int32 {
	if len(v.Types) == 0 {
		if id == v.BOS || id == v.EOS || id == v.UNK || id == v.PAD {
			return TypeControl
		}
		return TypeNormal
	}
	if t := v.Types[id]; t != TypeUserDefined || !endTokens[v.Tokens[id]] {
		return t
	}
	return TypeControl
}

// endTokens are the texts of control tokens with which published models end a turn.
var endTokens = map[string]bool{
	"<|im_end|>": true, "<|endoftext|>": true, "<|eot_id|>": true, "<|eom_id|>": true, "<|end_of_text|>": true,
	"<end_of_turn>": true, "<|end|>": true, "<|eot|>": true, "<|end_of_turn|>": true, "<|endofturn|>": true,
	"<EOT>": true, "_<EOT>": true, "<end_of_utterance>": true, "<|return|>": true,
	"<|call|>": true, "<｜end▁of▁sentence｜>": true, "<|END_OF_TURN_TOKEN|>": true, "[EOT]": true, "[EOS]": true,
}

// EndIDs is every id that ends a generation: EOS, EOG and the control tokens that are known to. Where a
// vocabulary has "<|return|>" and "<|call|>", its "<|end|>" only ends one message of several.
func (v *Vocab) EndIDs() []int32 {
	var ids []int32
	seen := map[int32]bool{-1: true}
	add := func(id int32) {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	add(v.EOS)
	for _, id := range v.EOG {
		add(id)
	}
	found := map[string]int32{}
	for id := range v.Tokens {
		if s := v.Tokens[id]; endTokens[s] && v.kind(int32(id)) == TypeControl {
			found[s] = int32(id)
		}
	}
	_, ret := found["<|return|>"]
	_, call := found["<|call|>"]
	if ret && call {
		delete(found, "<|end|>")
	}
	for id := range v.Tokens {
		if at, ok := found[v.Tokens[id]]; ok && at == int32(id) {
			add(at)
		}
	}
	return ids
}
