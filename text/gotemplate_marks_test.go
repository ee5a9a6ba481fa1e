package text

import (
	"slices"
	"testing"
)

// Where marks do not fit together, what might be a user's is.
func TestUnbalancedMarks(t *testing.T) {
	for s, want := range map[string][]Span{
		"":                                    nil,
		"<a>" + inputBegin + "b" + inputEnd:   {{"<a>", false}, {"b", true}},
		"<a>b" + inputEnd + "<c>":             {{"<a>b", true}, {"<c>", false}},
		"<a>" + inputBegin + "b<c>":           {{"<a>", false}, {"b<c>", true}},
		"a" + inputEnd + "b" + inputEnd + "c": {{"ab", true}, {"c", false}},
		inputBegin + "a" + inputBegin + "b" + inputEnd + "c" + inputEnd + "d": {{"abc", true}, {"d", false}},
		"\xEF\xB7" + inputBegin + "\xEF\xB7" + inputEnd + "\xEF":              {{"\xEF\xB7", false}, {"\xEF\xB7", true}, {"\xEF", false}},
	} {
		if got := splitInput(s); !slices.Equal(got, want) {
			t.Errorf("%q: %+v", s, got)
		}
	}
}
