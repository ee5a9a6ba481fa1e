package serve

import (
	"strings"
	"unicode"

	"github.com/winnow-llm/winnow/text"
)

// tags are what stands around a model's thoughts; the zero value is a model without.
type tags struct {
	open, close string
	inside      bool // the prompt ends behind open: the answer begins with thoughts
}

// knownTags are those that models of published templates think between.
var knownTags = []tags{
	{open: "<think>", close: "</think>"}, {open: "[THINK]", close: "[/THINK]"}, {open: "<seed:think>", close: "</seed:think>"},
	{open: "<|START_THINKING|>", close: "<|END_THINKING|>"},
}

// mentioned are the tags that a template's source has.
func mentioned(source string) tags {
	for _, t := range knownTags {
		if strings.Contains(source, t.close) {
			return t
		}
	}
	for _, t := range knownTags {
		if strings.Contains(source, t.open) {
			return t
		}
	}
	return tags{}
}

// opened is the tags with whether a prompt of the template's ends inside of them. What a user wrote opens nothing.
func (t tags) opened(spans []text.Span) tags {
	if n := len(spans); n > 0 && t.open != "" && !spans[n-1].Input {
		t.inside = strings.HasSuffix(strings.TrimRightFunc(spans[n-1].Text, unicode.IsSpace), t.open)
	}
	return t
}

// spoken are the tags that the vocabulary has as tokens, by id: they count even where decoding leaves such tokens out.
func (t tags) spoken(tok text.Tokenizer) map[int32]string {
	out := map[int32]string{}
	for _, tag := range []string{t.open, t.close} {
		if ids := tok.Encode(nil, text.Span{Text: tag}); tag != "" && len(ids) == 1 {
			out[ids[0]] = tag
		}
	}
	return out
}

// The places that a splitter can be in, in order.
const (
	beforeThoughts = iota // nothing but space came yet
	openingSpace          // behind the opening tag
	inThoughts
	closingSpace // behind the closing tag
	inAnswer
)

// splitter takes an answer's thoughts apart from it: they begin with it, or there are none. Space around the tags is dropped. One goroutine.
type splitter struct {
	tags
	at     int
	opened bool   // there are thoughts
	held   string // what may become a tag, or is space that may be dropped
}

func newSplitter(t tags) *splitter {
	switch {
	case t.open == "" || t.close == "":
		return &splitter{at: inAnswer}
	case t.inside:
		return &splitter{tags: t, at: openingSpace, opened: true}
	}
	return &splitter{tags: t}
}

// push takes more of an answer and returns what is sure to be thought and answer.
func (s *splitter) push(more string) (thought, answer string) {
	s.held += more
	trimmed := func() string { return strings.TrimLeftFunc(s.held, unicode.IsSpace) }
	for {
		switch s.at {
		case beforeThoughts:
			rest := trimmed()
			behind, opens := strings.CutPrefix(rest, s.open)
			switch {
			case opens:
				s.at, s.opened, s.held = openingSpace, true, behind
			case strings.HasPrefix(s.open, rest):
				return thought, answer
			default:
				s.at = inAnswer
			}
		case openingSpace, closingSpace:
			if s.held = trimmed(); s.held == "" {
				return thought, answer
			}
			s.at++
		case inThoughts:
			inner, behind, closes := strings.Cut(s.held, s.close)
			if closes {
				thought, s.at, s.held = thought+inner, closingSpace, behind
				continue
			}
			n := len(s.held) - overlap(s.held, s.close)
			thought, s.held = thought+s.held[:n], s.held[n:]
			return thought, answer
		default:
			answer, s.held = answer+s.held, ""
			return thought, answer
		}
	}
}

// flush ends the answer and returns what was held back.
func (s *splitter) flush() (thought, answer string) {
	rest := s.held
	s.held = ""
	switch s.at {
	case inThoughts:
		return rest, ""
	case beforeThoughts:
		return "", rest
	}
	return "", ""
}

// split takes a delta's text apart; with the last delta nothing is held back. It reports whether the thoughts reach into the delta.
func (s *splitter) split(d *Delta) bool {
	over := s.at >= closingSpace
	d.Reasoning, d.Text = s.push(d.Text)
	if d.Finish != "" {
		thought, answer := s.flush()
		d.Reasoning, d.Text = d.Reasoning+thought, d.Text+answer
	}
	return s.opened && !over
}

// overlap is the length of the longest beginning of tag that s ends with.
func overlap(s, tag string) int {
	n := min(len(s), len(tag)-1)
	for !strings.HasSuffix(s, tag[:n]) {
		n--
	}
	return n
}
