package text_test

import (
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/text"
)

func TestStops(t *testing.T) {
	for _, c := range []struct {
		stops  []string
		pushes []string
		want   []string // what each push gives, then Flush
		stop   int      // index of the push that stops, -1 = none
	}{
		{nil, []string{"a", "b"}, []string{"a", "b", ""}, -1},
		{[]string{""}, []string{"a"}, []string{"a", ""}, -1},
		{[]string{"END"}, []string{"the E", "N", "D of"}, []string{"the ", "", "", ""}, 2},
		{[]string{"END"}, []string{"the E", "N", "ough"}, []string{"the ", "", "ENough", ""}, -1},
		{[]string{"END"}, []string{"EN"}, []string{"", "EN"}, -1},
		{[]string{"aab"}, []string{"aaa", "b", "c"}, []string{"a", "", "", ""}, 1},
		{[]string{"abc", "b"}, []string{"abc"}, []string{"a", ""}, 0},
		{[]string{"bc", "abc"}, []string{"xabc"}, []string{"x", ""}, 0},
		{[]string{"\n\n", "\nUser:"}, []string{"hi\n", "User", ":x"}, []string{"hi", "", "", ""}, 2},
		{[]string{"ababac"}, []string{"abababac"}, []string{"ab", ""}, 0},
		{[]string{"é"}, []string{"caf", "é!"}, []string{"caf", "", ""}, 1},
	} {
		s := text.NewStops(c.stops)
		for i, p := range c.pushes {
			got, stopped := s.Push(p)
			if got != c.want[i] || stopped != (c.stop >= 0 && i >= c.stop) {
				t.Errorf("%q push %d %q: got %q %v, want %q", c.stops, i, p, got, stopped, c.want[i])
			}
		}
		if got, want := s.Flush(), c.want[len(c.pushes)]; got != want {
			t.Errorf("%q flush: got %q, want %q", c.stops, got, want)
		}
	}
}

// FuzzStops checks, for any stop strings and any cutting of the text, that the output is the text up to the
// stop string that ends first.
func FuzzStops(f *testing.F) {
	f.Add("END", "E", "the ENough END", uint8(3))
	f.Add("aab", "ba", "aaaabaab", uint8(1))
	f.Add("\n\n", "", "a\nb\n\nc", uint8(2))
	f.Fuzz(func(t *testing.T, a, b, s string, size uint8) {
		stops := []string{a, b}
		want, stopped := s, false
		for end := 1; end <= len(s) && !stopped; end++ {
			for _, stop := range stops {
				if stop != "" && strings.HasSuffix(s[:end], stop) {
					stopped = true
					want = want[:min(len(want), end-len(stop))]
				}
			}
		}
		st := text.NewStops(stops)
		var got strings.Builder
		done := false
		for i := 0; i < len(s); i += int(size)%7 + 1 {
			out, now := st.Push(s[i:min(len(s), i+int(size)%7+1)])
			got.WriteString(out)
			if done = done || now; !done && !strings.HasPrefix(s, got.String()) {
				t.Fatalf("%q is no beginning of %q", got.String(), s)
			}
		}
		got.WriteString(st.Flush())
		if got.String() != want || done != stopped {
			t.Fatalf("stops %q text %q: got %q %v, want %q %v", stops, s, got.String(), done, want, stopped)
		}
	})
}
