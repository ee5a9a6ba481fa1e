package text

import (
	"slices"
	"strings"
)

// What users wrote stands between these two while a Go template works on it. Unicode reserves both for such use within a program: they
// are no text, so a user's own are replaced.
const (
	inputBegin = "\uFDD0"
	inputEnd   = "\uFDD1"
)

// nextMark is the place of the first mark in s, -1 if there is none. It looks for the two bytes that both begin with.
func nextMark(s string) int {
	for at := 0; ; at += 2 {
		i := strings.Index(s[at:], inputBegin[:2])
		if i < 0 {
			return -1
		}
		if at += i; at+2 < len(s) && (s[at+2] == inputBegin[2] || s[at+2] == inputEnd[2]) {
			return at
		}
	}
}

var (
	replaceMarks = strings.NewReplacer(inputBegin, "\uFFFD", inputEnd, "\uFFFD")
	removeMarks  = strings.NewReplacer(inputBegin, "", inputEnd, "")
)

// markInput marks what a user wrote. Nothing stays nothing: templates ask whether there is something.
func markInput(s string) string {
	if s == "" {
		return ""
	}
	if touched(s) {
		s = replaceMarks.Replace(s)
	}
	return inputBegin + s + inputEnd
}

// touched reports whether a user wrote some of s.
func touched(s string) bool { return nextMark(s) >= 0 }

func unmarked(s string) string {
	if !touched(s) {
		return s
	}
	return removeMarks.Replace(s)
}

// splitInput cuts a text at the marks into runs of one origin. Where the marks do not fit together, what might be a user's is taken for it:
// all before an end without beginning, all after a beginning without end.
func splitInput(s string) []Span {
	var runs []Span
	depth, doubtful := 0, 0 // doubtful: leading runs that might be a user's
	for {
		i := nextMark(s)
		if i < 0 {
			break
		}
		runs = append(runs, Span{s[:i], depth > 0})
		switch {
		case s[i:i+len(inputBegin)] == inputBegin:
			depth++
		case depth > 0:
			depth--
		default:
			doubtful = len(runs)
		}
		s = s[i+len(inputBegin):]
	}
	runs = append(runs, Span{s, depth > 0})
	for i := range runs[:doubtful] {
		runs[i].Input = true
	}
	return joinRuns(runs)
}

// joinRuns makes neighbours of one origin into one.
func joinRuns(runs []Span) (out []Span) {
	runs = slices.DeleteFunc(runs, func(s Span) bool { return s.Text == "" })
	for len(runs) > 0 {
		n := 1
		for n < len(runs) && runs[n].Input == runs[0].Input {
			n++
		}
		if n == 1 {
			out = append(out, runs[0])
		} else {
			out = append(out, Span{join(runs[:n]).text, runs[0].Input})
		}
		runs = runs[n:]
	}
	return out
}
