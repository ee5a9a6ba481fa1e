package text

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// jsonTokenizer is what we read of a tokenizer.json.
type jsonTokenizer struct {
	AddedTokens   []jsonAdded `json:"added_tokens"`
	Normalizer    *jsonPart   `json:"normalizer"`
	PreTokenizer  *jsonPart   `json:"pre_tokenizer"`
	PostProcessor *jsonPart   `json:"post_processor"`
	Model         struct {
		Type         string          `json:"type"`
		Vocab        json.RawMessage `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
		UnkToken     *string         `json:"unk_token"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
		Prefix       *string         `json:"continuing_subword_prefix"`
		Suffix       *string         `json:"end_of_word_suffix"`
	} `json:"model"`
}

// jsonAdded is an added token, in tokenizer.json and in tokenizer_config.json.
type jsonAdded struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Special    bool   `json:"special"`
}

// jsonPart is a normalizer, pre-tokenizer or post-processor of any kind: all fields that any of them has.
type jsonPart struct {
	Type string `json:"type"`

	Normalizers   []jsonPart `json:"normalizers"`
	Pretokenizers []jsonPart `json:"pretokenizers"`
	Processors    []jsonPart `json:"processors"`

	Pattern *struct {
		Regex  *string `json:"Regex"`
		String *string `json:"String"`
	} `json:"pattern"`
	Content string `json:"content"`
	Prepend string `json:"prepend"`

	Behavior         string `json:"behavior"`
	Invert           bool   `json:"invert"`
	AddPrefixSpace   *bool  `json:"add_prefix_space"`
	UseRegex         *bool  `json:"use_regex"`
	IndividualDigits bool   `json:"individual_digits"`
	PrependScheme    string `json:"prepend_scheme"`
	Replacement      string `json:"replacement"`
	Split            *bool  `json:"split"`

	Single        []jsonTemplateItem           `json:"single"`
	SpecialTokens map[string]jsonTemplateToken `json:"special_tokens"`
}

type jsonTemplateItem struct {
	SpecialToken *struct {
		ID string `json:"id"`
	} `json:"SpecialToken"`
}

type jsonTemplateToken struct {
	IDs []int64 `json:"ids"`
}

// flat is the part itself or, for a Sequence, what it is made of.
func (p *jsonPart) flat() []jsonPart {
	if p == nil {
		return nil
	}
	if p.Type != "Sequence" {
		return []jsonPart{*p}
	}
	var out []jsonPart
	for _, list := range [][]jsonPart{p.Normalizers, p.Pretokenizers, p.Processors} {
		for i := range list {
			out = append(out, list[i].flat()...)
		}
	}
	return out
}

// ParseTokenizerJSON reads the tokenizer.json of a model folder: byte-level BPE, and SentencePiece's BPE as
// it is written there. What it cannot follow exactly it refuses. EOS is not in that file: see
// ParseTokenizerConfig.
func ParseTokenizerJSON(b []byte) (*Vocab, error) {
	var j jsonTokenizer
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("%w: tokenizer.json: %v", ErrVocab, err)
	}
	if j.Model.Type != "BPE" && j.Model.Type != "" {
		return nil, bad("model.type is %.40q and not BPE", j.Model.Type)
	}
	if j.Model.Prefix != nil && *j.Model.Prefix != "" || j.Model.Suffix != nil && *j.Model.Suffix != "" {
		return nil, bad("model has a subword prefix or suffix")
	}
	v := &Vocab{BOS: -1, EOS: -1, UNK: -1, PAD: -1, IgnoreMerges: j.Model.IgnoreMerges}
	if err := j.tokens(v); err != nil {
		return nil, err
	}
	if err := j.merges(v); err != nil {
		return nil, err
	}
	var err error
	if j.Model.ByteFallback {
		err = j.sentencePiece(v)
	} else {
		err = j.byteLevel(v)
	}
	if err != nil {
		return nil, err
	}
	if err := j.template(v); err != nil {
		return nil, err
	}
	return v, nil
}

// tokens fills in Tokens and Types from the vocabulary and the added tokens; ids that nobody has are unused.
func (j *jsonTokenizer) tokens(v *Vocab) error {
	var vocab map[string]int64
	if err := json.Unmarshal(j.Model.Vocab, &vocab); err != nil {
		return fmt.Errorf("%w: model.vocab: %v", ErrVocab, err)
	}
	top := int64(-1)
	for s, id := range vocab {
		if id < 0 || id >= maxTokens {
			return bad("model.vocab[%.80q] is %d", s, id)
		}
		top = max(top, id)
	}
	for i, a := range j.AddedTokens {
		if a.ID < 0 || a.ID >= maxTokens {
			return bad("added_tokens[%d].id is %d", i, a.ID)
		}
		top = max(top, a.ID)
	}
	if have := int64(len(vocab) + len(j.AddedTokens)); top >= 4*have+1024 {
		return bad("ids up to %d for %d tokens", top, have)
	}
	v.Tokens, v.Types = make([]string, top+1), make([]int32, top+1)
	for i := range v.Types {
		v.Types[i] = TypeUnused
	}
	for s, id := range vocab {
		if v.Types[id] != TypeUnused {
			return bad("model.vocab gives id %d to two tokens", id)
		}
		v.Tokens[id], v.Types[id] = s, TypeNormal
		if j.Model.ByteFallback {
			if _, ok := byteToken(s); ok {
				v.Types[id] = TypeByte
			}
		}
	}
	for i, a := range j.AddedTokens {
		if err := v.add(a); err != nil {
			return bad("added_tokens[%d]: %v", i, err)
		}
	}
	if u := j.Model.UnkToken; u != nil {
		v.UNK = v.find(*u)
		if v.UNK >= 0 {
			v.Types[v.UNK] = TypeUnknown
		}
	}
	return nil
}

// add makes an existing id an added token.
func (v *Vocab) add(a jsonAdded) error {
	if a.SingleWord {
		return fmt.Errorf("single_word of %.80q is not supported", a.Content)
	}
	v.Tokens[a.ID], v.Types[a.ID] = a.Content, TypeUserDefined
	if a.Special {
		v.Types[a.ID] = TypeControl
	}
	v.addStrips(a)
	return nil
}

// find is the id of a token by its text, control tokens first; -1 if there is none.
func (v *Vocab) find(s string) int32 {
	at := int32(-1)
	for i, t := range v.Tokens {
		if t != s || s == "" {
			continue
		}
		if v.kind(int32(i)) == TypeControl {
			return int32(i)
		}
		if at < 0 {
			at = int32(i)
		}
	}
	return at
}

// merges reads both spellings of a list of merges, ["a b", ...] and [["a","b"], ...].
func (j *jsonTokenizer) merges(v *Vocab) error {
	if len(j.Model.Merges) == 0 || json.Unmarshal(j.Model.Merges, &v.Merges) == nil {
		return nil
	}
	var pairs [][]string
	if err := json.Unmarshal(j.Model.Merges, &pairs); err != nil {
		return fmt.Errorf("%w: model.merges: %v", ErrVocab, err)
	}
	v.Merges = make([]string, len(pairs))
	for i, p := range pairs {
		// In the joined form the parts are told apart by the first space behind the first byte.
		if len(p) != 2 || p[0] == "" || p[1] == "" || strings.Contains(p[0][1:], " ") {
			return bad("merges[%d] is no pair of parts without spaces", i)
		}
		v.Merges[i] = p[0] + " " + p[1]
	}
	return nil
}

// byteLevel follows the pre-tokenizer of a byte-level vocabulary.
func (j *jsonTokenizer) byteLevel(v *Vocab) error {
	v.Model = "gpt2"
	for _, n := range j.Normalizer.flat() {
		if n.Type != "NFC" {
			return bad("normalizer %.40q is not supported", n.Type)
		}
		v.NFC = true
	}
	mapped := false
	var split []string
	for i, p := range j.PreTokenizer.flat() {
		switch {
		case mapped && (p.Type == "Split" || p.Type == "Punctuation"):
			if p.Pattern == nil || p.Pattern.Regex == nil || *p.Pattern.Regex != reTriple {
				return bad("pre_tokenizer[%d] looks at text after its bytes were spelled out", i)
			}
			split = append(split, reTriple)
		case p.Type == "Split":
			expr, err := p.splitRegex()
			if err != nil {
				return bad("pre_tokenizer[%d]: %v", i, err)
			}
			split = append(split, expr)
		case p.Type == "Digits" && p.IndividualDigits:
			split = append(split, reDigit)
		case p.Type == "Digits":
			split = append(split, reDigits)
		case p.Type == "Punctuation" && p.Behavior == "Contiguous":
			split = append(split, rePunctTick)
		case p.Type == "ByteLevel":
			if p.AddPrefixSpace == nil || *p.AddPrefixSpace {
				return bad("pre_tokenizer[%d].add_prefix_space is not supported", i)
			}
			if p.UseRegex == nil || *p.UseRegex {
				split = append(split, reGPT2)
			}
			mapped = true
		default:
			return bad("pre_tokenizer[%d] of type %.40q is not supported", i, p.Type)
		}
	}
	if !mapped {
		return bad("pre_tokenizer has no ByteLevel and the model no byte_fallback")
	}
	if len(split) > 1 && split[0] == rePunctTick && split[len(split)-1] == reTriple {
		split = []string{rePunctTick, reGPT2, reTriple} // Falcon also cuts at digits, which its last step repeats
	}
	if v.Pre = namePre(split); v.Pre == "" {
		if len(split) == 0 {
			split = []string{reWhole}
		}
		v.SplitRegex = split
	}
	return nil
}

// splitRegex is the expression of a Split whose matches become pieces of their own.
func (p *jsonPart) splitRegex() (string, error) {
	if p.Pattern == nil || p.Pattern.Regex == nil {
		return "", fmt.Errorf("a Split without an expression is not supported")
	}
	// Some files hold line ends where others spell them; both mean the same.
	expr := strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(*p.Pattern.Regex)
	_, known := handSteps[expr]
	switch {
	case p.Behavior == "Isolated":
		return expr, nil
	case p.Behavior == "Removed" && p.Invert && known: // the known ones match all of any text
		return expr, nil
	}
	return "", fmt.Errorf("a Split with behavior %.40q is not supported", p.Behavior)
}

// sentencePiece follows the normalizer and pre-tokenizer of a SentencePiece vocabulary.
func (j *jsonTokenizer) sentencePiece(v *Vocab) error {
	v.Model = "llama"
	if v.IgnoreMerges {
		return bad("ignore_merges beside byte_fallback is not supported")
	}
	spelled := false
	for i, n := range j.Normalizer.flat() {
		switch {
		case n.Type == "NFC" && !spelled:
			v.NFC = true
		case n.Type == "Prepend" && n.Prepend == metaspace && !spelled:
			v.AddSpacePrefix = true
		case n.Type == "Replace" && n.Pattern != nil && n.Pattern.String != nil && *n.Pattern.String == " " && n.Content == metaspace:
			spelled = true
		default:
			return bad("normalizer[%d] of type %.40q is not supported", i, n.Type)
		}
	}
	for i, p := range j.PreTokenizer.flat() {
		switch {
		case spelled && p.Type == "Split" && p.Pattern != nil && p.Pattern.String != nil && *p.Pattern.String == " ":
			// No space is left for it to cut at.
		case !spelled && p.Type == "Metaspace" && p.Replacement == metaspace && p.Split != nil && !*p.Split:
			spelled = true
			switch p.PrependScheme {
			case "never":
			case "first", "always":
				v.AddSpacePrefix, v.PrefixIfNone = true, true
				v.PrefixFirst = p.PrependScheme == "first"
			default:
				return bad("pre_tokenizer[%d].prepend_scheme is %.40q", i, p.PrependScheme)
			}
		default:
			return bad("pre_tokenizer[%d] of type %.40q is not supported", i, p.Type)
		}
	}
	if !spelled {
		return bad("nothing spells spaces as %q", metaspace)
	}
	return nil
}

// template reads from the post-processor whether a text begins with BOS and ends with EOS.
func (j *jsonTokenizer) template(v *Vocab) error {
	for _, p := range j.PostProcessor.flat() {
		if p.Type != "TemplateProcessing" || len(p.Single) == 0 {
			continue
		}
		id := func(item jsonTemplateItem) (int32, error) {
			if item.SpecialToken == nil {
				return -1, nil
			}
			ids := p.SpecialTokens[item.SpecialToken.ID].IDs
			if len(ids) != 1 || ids[0] < 0 || ids[0] >= int64(len(v.Tokens)) || ids[0] > math.MaxInt32 {
				return -1, bad("post_processor names token %.80q and gives it no id", item.SpecialToken.ID)
			}
			return int32(ids[0]), nil
		}
		first, err := id(p.Single[0])
		if err != nil {
			return err
		}
		if first >= 0 {
			v.BOS, v.AddBOS = first, true
		}
		last, err := id(p.Single[len(p.Single)-1])
		if err != nil {
			return err
		}
		if last >= 0 && len(p.Single) > 1 {
			v.EOS, v.AddEOS, v.Closing = last, true, []int32{last} // a configuration may name another EOS
		}
	}
	return nil
}
