package main

import (
	"slices"
	"unicode"
)

// mostTyped is the most runes that a message being typed may have.
const mostTyped = 1 << 20

// line is a message being typed, of one line or several, and the place where typing goes on.
type line struct {
	text   []rune
	at     int    // 0 to len(text), never inside a character of several runes
	killed []rune // what was deleted last in one go, for yank
}

func (l *line) set(text []rune) { l.text, l.at = slices.Clone(text), len(text) }

// insert types runes, as many as there is room for.
func (l *line) insert(rs ...rune) {
	rs = rs[:min(len(rs), max(0, mostTyped-len(l.text)))]
	l.text = slices.Insert(l.text, l.at, rs...)
	l.at += len(rs)
}

// left and right are the places one character away.
func (l *line) left() int {
	i := max(0, l.at-1)
	for i > 0 && joins(l.text[i-1], l.text[i]) {
		i--
	}
	return i
}

func (l *line) right() int {
	i := min(len(l.text), l.at+1)
	for i < len(l.text) && i > 0 && joins(l.text[i-1], l.text[i]) {
		i++
	}
	return i
}

// wordLeft and wordRight are the places behind the next run of letters and digits.
func (l *line) wordLeft() int {
	i := l.at
	for i > 0 && !wordy(l.text[i-1]) {
		i--
	}
	for i > 0 && wordy(l.text[i-1]) {
		i--
	}
	return i
}

func (l *line) wordRight() int {
	i := l.at
	for i < len(l.text) && !wordy(l.text[i]) {
		i++
	}
	for i < len(l.text) && wordy(l.text[i]) {
		i++
	}
	return i
}

func wordy(r rune) bool { return unicode.In(r, unicode.L, unicode.N, unicode.M) || r == '_' }

// spaceLeft is the beginning of the word before the place, by white space alone.
func (l *line) spaceLeft() int {
	i := l.at
	for i > 0 && unicode.IsSpace(l.text[i-1]) {
		i--
	}
	for i > 0 && !unicode.IsSpace(l.text[i-1]) {
		i--
	}
	return i
}

// home and end are the ends of the line that the place is in.
func (l *line) home() int {
	i := l.at
	for i > 0 && l.text[i-1] != '\n' {
		i--
	}
	return i
}

func (l *line) end() int {
	i := l.at
	for i < len(l.text) && l.text[i] != '\n' {
		i++
	}
	return i
}

// up and down are the places in the lines above and below, as far from their beginning; -1 where there is no such line.
func (l *line) up() int {
	home := l.home()
	if home == 0 {
		return -1
	}
	above := line{text: l.text, at: home - 1}
	return min(above.home()+l.at-home, above.at)
}

func (l *line) down() int {
	end := l.end()
	if end == len(l.text) {
		return -1
	}
	below := line{text: l.text, at: end + 1}
	return min(below.at+l.at-l.home(), below.end())
}

// cut deletes what is between the place and another.
func (l *line) cut(to int) {
	from := min(l.at, to)
	l.text = slices.Delete(l.text, from, max(l.at, to))
	l.at = from
}

// kill is cut that yank undoes.
func (l *line) kill(to int) {
	if to != l.at {
		l.killed = slices.Clone(l.text[min(l.at, to):max(l.at, to)])
		l.cut(to)
	}
}

// transpose swaps the characters around the place, or the last two at the end of a line.
func (l *line) transpose() {
	if l.at == l.end() {
		l.at = l.left()
	}
	from, mid, to := l.left(), l.at, l.right()
	if from < mid && mid < to && from >= l.home() {
		swapped := slices.Concat(l.text[mid:to], l.text[from:mid])
		copy(l.text[from:to], swapped)
		l.at = to
	}
}

// edits are the keys that change the line alone, or the place in it.
var edits = map[key]func(*line){
	keyLeft: func(l *line) { l.at = l.left() }, ctrlB: func(l *line) { l.at = l.left() },
	keyRight: func(l *line) { l.at = l.right() }, ctrlF: func(l *line) { l.at = l.right() },
	keyHome: func(l *line) { l.at = l.home() }, ctrlA: func(l *line) { l.at = l.home() },
	keyEnd: func(l *line) { l.at = l.end() }, ctrlE: func(l *line) { l.at = l.end() },
	keyWordLeft: func(l *line) { l.at = l.wordLeft() }, keyWordRight: func(l *line) { l.at = l.wordRight() },
	backspace: func(l *line) { l.cut(l.left()) }, ctrlH: func(l *line) { l.cut(l.left()) },
	keyDelete:  func(l *line) { l.cut(l.right()) },
	keyNewLine: func(l *line) { l.insert('\n') },
	ctrlK:      func(l *line) { l.kill(l.end()) }, ctrlU: func(l *line) { l.kill(l.home()) },
	ctrlW: func(l *line) { l.kill(l.spaceLeft()) }, keyKillLeft: func(l *line) { l.kill(l.wordLeft()) },
	keyKillRight: func(l *line) { l.kill(l.wordRight()) },
	ctrlY:        func(l *line) { l.insert(l.killed...) },
	ctrlT:        (*line).transpose,
}
