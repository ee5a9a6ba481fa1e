package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

// Ways to leave the prompt without a message, beside io.EOF.
var (
	errDropped     = errors.New("message dropped") // Ctrl-C in a message
	errInterrupted = errors.New("interrupted")     // Ctrl-C with nothing typed
)

// mostAhead is the most bytes that are kept of what is typed during an answer.
const mostAhead = 1 << 20

// editor makes messages of keys. It is our own since the one of golang.org/x/term takes every rune for one column, and each line of a
// pasted text for a message.
type editor struct {
	line
	screen  screen
	history *history
	back    int    // how many messages back in the history; 0 = the message being typed
	draft   []rune // the message being typed, while another is shown
	pasting bool
	typed   []byte // not yet taken
}

// begin shows an empty message.
func (e *editor) begin() error {
	e.text, e.at, e.back, e.draft = nil, 0, 0, nil
	return e.screen.paint(&e.line)
}

// feed adds what was typed. A lone Ctrl-C ends a paste that does not end by itself.
func (e *editor) feed(b []byte) {
	if e.pasting && string(b) == string(rune(ctrlC)) {
		e.typed = append(e.typed, pasteEnd...)
	}
	e.typed = append(e.typed, b...)
}

// take works off what was typed until a message is complete, and says so.
func (e *editor) take() (message string, complete bool, err error) {
	for !complete && err == nil {
		if e.pasting {
			if !e.paste() {
				break
			}
			continue
		}
		k, n := decodeKey(e.typed)
		if n == 0 {
			break
		}
		e.typed = e.typed[n:]
		complete, err = e.press(k)
	}
	if !complete && err == nil {
		if e.pasting {
			return "", false, nil // the screen follows when all of it is there
		}
		return "", false, e.screen.paint(&e.line)
	}
	message = string(e.text)
	if left := e.screen.leave(&e.line); left != nil {
		return "", false, left
	}
	return message, complete, err
}

// press does what a key says.
func (e *editor) press(k key) (complete bool, err error) {
	if edit := edits[k]; edit != nil {
		edit(&e.line)
		return false, nil
	}
	switch k {
	case enter, lineFeed:
		return e.enter(), nil
	case keyUp, ctrlP:
		if to := e.up(); to >= 0 {
			e.at = to
		} else {
			e.recall(e.back + 1)
		}
	case keyDown, ctrlN:
		if to := e.down(); to >= 0 {
			e.at = to
		} else {
			e.recall(e.back - 1)
		}
	case ctrlC:
		if len(e.text) > 0 {
			return false, errDropped
		}
		return false, errInterrupted
	case ctrlD:
		if len(e.text) == 0 {
			return false, io.EOF
		}
		e.cut(e.right())
	case ctrlL:
		return false, e.screen.clear()
	case keyPaste:
		e.pasting = true
	case '\t':
		e.insert(rune(k))
	default:
		if k >= ' ' && k < keyUnknown && !(k >= 0x80 && k < 0xa0) {
			e.insert(rune(k))
		}
	}
	return false, nil
}

// enter says whether the message is complete. A backslash at its end, or three quotes that are not closed, ask for another line.
func (e *editor) enter() bool {
	if n := len(e.text); e.at == n && n > 0 && e.text[n-1] == '\\' {
		e.text[n-1] = '\n'
		return false
	}
	if unfinished(string(e.text)) {
		e.insert('\n')
		return false
	}
	return true
}

// recall shows a message of the history, or the one being typed again.
func (e *editor) recall(back int) {
	if back < 0 || back > e.history.len() {
		return
	}
	if e.back == 0 {
		e.draft = append(e.draft[:0], e.text...)
	}
	if e.back = back; back == 0 {
		e.set(e.draft)
	} else {
		e.set([]rune(e.history.ago(back)))
	}
}

// paste takes text as it is, but for control characters; a line break of it does not end the message. It says whether the end was seen.
func (e *editor) paste() bool {
	pasted, rest, ended := bytes.Cut(e.typed, []byte(pasteEnd))
	if !ended {
		// What may be the beginning of the end mark, of a rune or of a line break waits for what follows.
		cut := max(0, len(pasted)-len(pasteEnd)+1)
		for cut > 0 && (!utf8.RuneStart(pasted[cut]) || pasted[cut-1] == '\r') {
			cut--
		}
		pasted, rest = pasted[:cut], pasted[cut:]
	}
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.ToValidUTF8(string(pasted), "\uFFFD"))
	e.insert([]rune(printable(text))...)
	e.typed, e.pasting = rest, !ended
	return ended
}

// printable is a text without control characters other than tabs and line breaks: what a terminal shows and does not obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			return -1
		}
		return r
	}, s)
}
