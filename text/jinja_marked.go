package text

import (
	"iter"
	"sort"
	"strings"
	"unicode/utf8"
)

// mark is a byte range [lo, hi) of a string.
type mark struct{ lo, hi int }

// marked is a string that remembers which of its bytes a user wrote: all of them, or those in the ranges of in, which are
// sorted, not empty and do not touch.
type marked struct {
	s    string
	all  bool
	safe bool // what the filter "safe" made: adding other text to it escapes that text, as the reference does
	in   []mark
}

// touched reports whether a user wrote any byte.
func (m marked) touched() bool { return m.all || len(m.in) > 0 }

// slice returns bytes lo to hi with their marks.
func (m marked) slice(lo, hi int) marked {
	r := marked{s: m.s[lo:hi], safe: m.safe}
	if lo >= hi {
		return marked{}
	}
	if m.all {
		r.all = true
		return r
	}
	first := sort.Search(len(m.in), func(i int) bool { return m.in[i].hi > lo })
	for _, k := range m.in[first:] {
		if k.lo >= hi {
			break
		}
		k = mark{max(k.lo, lo) - lo, min(k.hi, hi) - lo}
		if k.lo == 0 && k.hi == hi-lo {
			r.all = true
			return r
		}
		r.in = append(r.in, k)
	}
	return r
}

// with returns s marked as a whole: as input if m holds any. It is for results whose bytes have no single origin.
func (m marked) with(s string) marked { return marked{s: s, all: m.touched() && s != ""} }

// runs yields the pieces of m in order, each with whether a user wrote it.
func (m marked) runs() iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		if m.all || len(m.in) == 0 {
			if m.s != "" {
				yield(m.s, m.all)
			}
			return
		}
		at := 0
		for _, k := range m.in {
			if k.lo > at && !yield(m.s[at:k.lo], false) {
				return
			}
			if !yield(m.s[k.lo:k.hi], true) {
				return
			}
			at = k.hi
		}
		if at < len(m.s) {
			yield(m.s[at:], false)
		}
	}
}

// chars returns the code points of m, each with its marks.
func (m marked) chars() []marked {
	out := make([]marked, 0, utf8.RuneCountInString(m.s))
	for s, input := range m.runs() {
		for len(s) > 0 {
			_, n := utf8.DecodeRuneInString(s)
			out = append(out, marked{s: s[:n], all: input})
			s = s[n:]
		}
	}
	return out
}

// mapRunes replaces each code point by f's text; what comes from input stays input.
func (m marked) mapRunes(f func(r rune) string) marked {
	var w markedWriter
	w.b.Grow(len(m.s))
	for s, input := range m.runs() {
		from := w.size()
		for _, r := range s {
			w.text(f(r))
		}
		if input {
			w.mark(from, w.size())
		}
	}
	return w.done()
}

// markedWriter builds a marked string.
type markedWriter struct {
	b  strings.Builder
	in []mark
}

func (w *markedWriter) mark(lo, hi int) {
	if lo >= hi {
		return
	}
	if n := len(w.in); n > 0 && w.in[n-1].hi == lo {
		w.in[n-1].hi = hi
		return
	}
	w.in = append(w.in, mark{lo, hi})
}

// text appends what the template or the server wrote.
func (w *markedWriter) text(s string) { w.b.WriteString(s) }

func (w *markedWriter) size() int { return w.b.Len() }

// add appends m with its marks.
func (w *markedWriter) add(m marked) {
	at := w.size()
	w.text(m.s)
	if m.all {
		w.mark(at, w.size())
		return
	}
	for _, k := range m.in {
		w.mark(at+k.lo, at+k.hi)
	}
}

// done returns what was written. The writer may not be used afterwards.
func (w *markedWriter) done() marked {
	m := marked{s: w.b.String()}
	if len(w.in) == 1 && w.in[0] == (mark{0, len(m.s)}) {
		m.all = true
		return m
	}
	m.in = w.in
	return m
}

// spans returns m as runs of one origin each.
func (m marked) spans() []Span {
	var out []Span
	for s, input := range m.runs() {
		out = append(out, Span{Text: s, Input: input})
	}
	return out
}
