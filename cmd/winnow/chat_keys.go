package main

import (
	"unicode"
	"unicode/utf8"
)

// key is a rune that was typed, or one of the keys below.
type key rune

// Control keys are the runes that terminals send for them.
const (
	ctrlA     key = 'A' - '@'
	ctrlB     key = 'B' - '@'
	ctrlC     key = 'C' - '@'
	ctrlD     key = 'D' - '@'
	ctrlE     key = 'E' - '@'
	ctrlF     key = 'F' - '@'
	ctrlH     key = 'H' - '@'
	ctrlK     key = 'K' - '@'
	ctrlL     key = 'L' - '@'
	ctrlN     key = 'N' - '@'
	ctrlP     key = 'P' - '@'
	ctrlT     key = 'T' - '@'
	ctrlU     key = 'U' - '@'
	ctrlW     key = 'W' - '@'
	ctrlY     key = 'Y' - '@'
	lineFeed  key = '\n'
	enter     key = '\r'
	escape    key = 0x1b
	backspace key = 0x7f
)

// Keys that terminals send as sequences lie above all runes.
const (
	keyUnknown key = unicode.MaxRune + 1 + iota
	keyUp
	keyDown
	keyLeft
	keyRight
	keyHome
	keyEnd
	keyDelete
	keyWordLeft
	keyWordRight
	keyKillLeft
	keyKillRight
	keyNewLine
	keyPaste // what follows is pasted, until pasteEnd
)

const pasteEnd = "\x1b[201~"

// sequences are what terminals send, in the dialects of xterm, rxvt, the Linux console and of terminals that tell modifiers.
var sequences = map[string]key{
	"\x1b[A": keyUp, "\x1bOA": keyUp, "\x1b[B": keyDown, "\x1bOB": keyDown,
	"\x1b[C": keyRight, "\x1bOC": keyRight, "\x1b[D": keyLeft, "\x1bOD": keyLeft,
	"\x1b[H": keyHome, "\x1bOH": keyHome, "\x1b[1~": keyHome, "\x1b[7~": keyHome,
	"\x1b[F": keyEnd, "\x1bOF": keyEnd, "\x1b[4~": keyEnd, "\x1b[8~": keyEnd,
	"\x1b[3~": keyDelete, "\x1b[3;5~": keyKillRight, "\x1b[3;3~": keyKillRight, "\x1bd": keyKillRight,
	"\x1b\x7f": keyKillLeft, "\x1b\b": keyKillLeft,
	"\x1b[1;5C": keyWordRight, "\x1b[1;3C": keyWordRight, "\x1bOc": keyWordRight, "\x1bf": keyWordRight, "\x1b[5C": keyWordRight,
	"\x1b[1;5D": keyWordLeft, "\x1b[1;3D": keyWordLeft, "\x1bOd": keyWordLeft, "\x1bb": keyWordLeft, "\x1b[5D": keyWordLeft,
	"\x1b\r": keyNewLine, "\x1b\n": keyNewLine, "\x1b[13;2u": keyNewLine, "\x1b[13;3u": keyNewLine, "\x1b[27;2;13~": keyNewLine,
	"\x1b[200~": keyPaste,
}

// longestSequence bounds what is read of a sequence that does not end.
const longestSequence = 32

// decodeKey is the first key of what was typed, and its bytes; none while they are incomplete.
func decodeKey(b []byte) (key, int) {
	if len(b) == 0 {
		return 0, 0
	}
	if key(b[0]) != escape {
		if !utf8.FullRune(b) {
			return 0, 0
		}
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			return keyUnknown, 1
		}
		return key(r), n
	}
	n := sequenceLen(b)
	if k, known := sequences[string(b[:n])]; known {
		return k, n
	}
	return keyUnknown, n
}

// sequenceLen is the length of the escape sequence that b begins with, 0 while it is incomplete.
func sequenceLen(b []byte) int {
	switch {
	case len(b) == 1:
		return 0
	case key(b[1]) == escape:
		return 1
	case b[1] == 'O':
		if len(b) < 3 {
			return 0
		}
		return 3
	case b[1] != '[':
		if !utf8.FullRune(b[1:]) {
			return 0
		}
		_, n := utf8.DecodeRune(b[1:])
		return 1 + n
	}
	for i, c := range b[2:min(len(b), longestSequence)] {
		if c >= 0x40 && c <= 0x7e {
			return 2 + i + 1
		}
	}
	if len(b) >= longestSequence {
		return longestSequence
	}
	return 0
}
