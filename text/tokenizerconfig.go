package text

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// TokenizerConfig is what a tokenizer_config.json adds to a vocabulary.
type TokenizerConfig struct {
	BOS, EOS, UNK, PAD string            // "" = not said
	AddBOS, AddEOS     *bool             // nil = not said
	ChatTemplate       string            // the one without a name, or the one named "default"
	Templates          map[string]string // all that have names
	added              map[int32]jsonAdded
}

// ParseTokenizerConfig reads a tokenizer_config.json.
func ParseTokenizerConfig(b []byte) (TokenizerConfig, error) {
	var j struct {
		BOS       jsonName             `json:"bos_token"`
		EOS       jsonName             `json:"eos_token"`
		UNK       jsonName             `json:"unk_token"`
		PAD       jsonName             `json:"pad_token"`
		AddBOS    *bool                `json:"add_bos_token"`
		AddEOS    *bool                `json:"add_eos_token"`
		Templates json.RawMessage      `json:"chat_template"`
		Added     map[string]jsonAdded `json:"added_tokens_decoder"`
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return TokenizerConfig{}, fmt.Errorf("%w: tokenizer_config.json: %v", ErrVocab, err)
	}
	c := TokenizerConfig{BOS: string(j.BOS), EOS: string(j.EOS), UNK: string(j.UNK), PAD: string(j.PAD), AddBOS: j.AddBOS, AddEOS: j.AddEOS,
		added: map[int32]jsonAdded{}}
	for key, a := range j.Added {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil || id < 0 || id >= maxTokens {
			return TokenizerConfig{}, bad("added_tokens_decoder has id %.40q", key)
		}
		a.ID = id
		c.added[int32(id)] = a
	}
	if err := c.templates(j.Templates); err != nil {
		return TokenizerConfig{}, err
	}
	return c, nil
}

// templates reads chat_template: a string, or a list of named ones.
func (c *TokenizerConfig) templates(raw json.RawMessage) error {
	if len(raw) == 0 || string(raw) == "null" || json.Unmarshal(raw, &c.ChatTemplate) == nil {
		return nil
	}
	var list []struct{ Name, Template string }
	if err := json.Unmarshal(raw, &list); err != nil {
		return bad("chat_template is neither a string nor a list of named ones")
	}
	c.Templates = map[string]string{}
	for _, t := range list {
		c.Templates[t.Name] = t.Template
	}
	c.ChatTemplate = c.Templates["default"]
	return nil
}

// jsonName is a token's text, written as a string, as an object with content, or as null.
type jsonName string

func (n *jsonName) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err == nil {
		if s != nil {
			*n = jsonName(*s)
		}
		return nil
	}
	var o struct{ Content string }
	if err := json.Unmarshal(b, &o); err != nil {
		return err
	}
	*n = jsonName(o.Content)
	return nil
}

// Apply adds to v what c says: tokens that only c knows, which tokens begin and end a text, and whether a
// prompt gets them. A named token that v lacks is an error.
func (v *Vocab) Apply(c TokenizerConfig) error {
	for _, id := range slices.Sorted(maps.Keys(c.added)) {
		if err := v.applyAdded(c.added[id]); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name, text string
		id         *int32
	}{{"bos_token", c.BOS, &v.BOS}, {"eos_token", c.EOS, &v.EOS}, {"unk_token", c.UNK, &v.UNK}, {"pad_token", c.PAD, &v.PAD}} {
		if f.text == "" {
			continue
		}
		id := v.find(f.text)
		if id < 0 {
			return bad("%s %.80q is no token", f.name, f.text)
		}
		*f.id = id
	}
	if c.AddBOS != nil {
		v.AddBOS = *c.AddBOS
	}
	if c.AddEOS != nil {
		v.AddEOS = *c.AddEOS
	}
	return nil
}

// applyAdded enters one added token: the id's own text again, or a token behind the last, as folders with a
// tokenizer.model have them.
func (v *Vocab) applyAdded(a jsonAdded) error {
	if len(v.Types) == 0 {
		v.Types = slices.Repeat([]int32{TypeNormal}, len(v.Tokens))
	}
	n := int64(len(v.Tokens))
	if a.ID < n && v.Tokens[a.ID] == a.Content && v.Types[a.ID] != TypeNormal {
		v.addStrips(a)
		return nil
	}
	if a.ID > n+maxGap {
		return bad("added token %d %.80q lies far behind the %d tokens", a.ID, a.Content, n)
	}
	for int64(len(v.Tokens)) <= a.ID {
		v.Tokens, v.Types = append(v.Tokens, ""), append(v.Types, TypeUnused)
		if len(v.Scores) > 0 {
			v.Scores = append(v.Scores, 0)
		}
	}
	if err := v.add(a); err != nil {
		return bad("added_tokens_decoder: %v", err)
	}
	return nil
}

// maxGap is how many ids without a token may lie before an added one.
const maxGap = 4096

// addStrips notes the white space an existing added token swallows, once.
func (v *Vocab) addStrips(a jsonAdded) {
	id := int32(a.ID)
	if a.LStrip && !slices.Contains(v.LStrip, id) {
		v.LStrip = append(v.LStrip, id)
	}
	if a.RStrip && !slices.Contains(v.RStrip, id) {
		v.RStrip = append(v.RStrip, id)
	}
}
