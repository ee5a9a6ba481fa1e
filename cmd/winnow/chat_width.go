package main

import (
	"unicode"

	"golang.org/x/text/width"
)

const (
	softHyphen = 0xad // a format character that terminals show
	joiner     = 0x200d
)

// runeWidth is how many columns of a terminal a rune takes: 2 for East Asian and emoji, 0 for marks on the rune before, and for control
// characters.
func runeWidth(r rune) int {
	switch {
	case r >= ' ' && r < 0x7f || r == softHyphen:
		return 1
	case unicode.IsControl(r) || unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) || r >= 0x1160 && r <= 0x11ff: // the last: Hangul vowels and finals
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// joins says whether a rune belongs to the character that another begins.
func joins(before, r rune) bool {
	return before == joiner || r >= ' ' && r != 0x7f && runeWidth(r) == 0
}
