package text

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

// Expressions of published tokenizers, as their files write them.
const (
	reGPT2    = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	reQwen2   = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	reQwen35  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	reSeed    = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+`
	reLlama3  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	reBailing = `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
	reGPT4o   = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	reTekken = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|` +
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|` +
		`\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	reExaoneMoE = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|` +
		`\s*[\r\n]|\s+(?!\S)|\s+`
	reKimi = `[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}-[\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}-[\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}-[\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}-[\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	reYoutu      = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"
	reYoutuWords = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	reDeepseek3 = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" +
		"\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
	reDigit     = `\p{N}`
	reDigits    = `\p{N}+`
	reDigits3   = `\p{N}{1,3}`
	reHanKana   = "[一-龥぀-ゟ゠-ヿ]+"
	reHanHangul = "[一-龥ࠀ-一가-퟿]+"
	reLine      = `[\r\n]`
	rePunctTick = "[\\p{P}\\$\\+<=>\\^~\\|`]+"
	rePunct     = `[\p{P}\$\+<=>\^~\|]+`
	reTriple    = `[0-9][0-9][0-9]`
	reWhole     = `(?s).+`                                // no cut at all
	reGroups    = `\p{N}{1,3}?(?=(?:\p{N}{3})*(?!\p{N}))` // threes from the right
	reLines     = `[^\n]+|[\n]+`
	reAsia      = "[一-鿿㐀-䶿豈-\ufaff぀-ゟ゠-ヿ･-ﾟ⼀-\u2fdfเ-\u0e7f\u0e80-\u0effក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+"
	reBloom     = ` ?[^(\s|.,!?…。，、।۔،)]+`

	reTrailing      = `\s+$`
	reSpacedLetters = `\s?\p{L}+`
	reSpacedPunct   = `\s?\p{P}+`
)

// DeepSeek's expressions list their runes one by one.
var (
	reDeepseekLetters = `\s?[` + deepseekLetters.class() + `]+`
	reDeepseekPunct   = `\s?[` + deepseekPunct.class() + `]+`
)

func noTail(string) int { return 0 }

func anyCase(s string) int { return contraction(s, 0x20) }

// handSteps are the expressions that are written out as code, many times faster than a matcher.
var handSteps = map[string]step{
	reGPT2:    pieces(nextGPT2),
	reQwen2:   pieces(words{digits: 1, word: clLetter}.next),
	reBailing: pieces(words{digits: 1, word: clLetter}.next),
	reQwen35:  pieces(words{digits: 1, word: clLetter | clMark}.next),
	reSeed:    pieces(words{digits: 1, word: clLetter, trail: trailNothing}.next),
	reLlama3:  pieces(words{digits: 3, word: clLetter}.next),
	reGPT4o: pieces(func(s string) int {
		return words{digits: 3, word: clLetter, trail: trailSlashes}.nextCased(s, anyCase)
	}),
	reTekken: pieces(func(s string) int {
		return words{digits: 1, word: clLetter, trail: trailSlashes}.nextCased(s, noTail)
	}),
	reYoutuWords: pieces(func(s string) int {
		return words{digits: 1, word: clLetter, trail: trailSlashes}.nextCased(s, anyCase)
	}),
	reDeepseek3: isolate(clAny, matchDeepseek3),
	reDigit:     isolate(clNumber, words{digits: 1}.numbers),
	reDigits3:   isolate(clNumber, words{digits: 3}.numbers),
	reDigits:    digitRuns,
	reGroups:    stepGroups,
	reLines:     pieces(nextLines),
	reHanKana:   isolate(clHanKana, plainRun(clHanKana)),
	reHanHangul: isolate(clHanHangul, plainRun(clHanHangul)),
	reLine: isolate(clNewline, func(s string) int {
		if s[0] == '\r' || s[0] == '\n' {
			return 1
		}
		return 0
	}),
	rePunctTick:       isolate(clPunct|clSymbol, punctOr("$+<=>^~|`")),
	rePunct:           isolate(clPunct|clSymbol, punctOr("$+<=>^~|")),
	reWhole:           func(s string, yield func(string)) { yield(s) },
	reTriple:          isolate(clNumber, matchTriple),
	reDeepseekLetters: isolate(clSpace|clDeepseekLetter, spacedRun(clDeepseekLetter)),
	reDeepseekPunct:   isolate(clSpace|clDeepseekPunct, spacedRun(clDeepseekPunct)),
	reTrailing:        pieces(nextTrailing),
	reSpacedLetters:   isolate(clSpace|clLetter, spacedRun(clLetter)),
	reSpacedPunct:     isolate(clSpace|clPunct, spacedRun(clPunct)),
}

// step chains the expressions, those written by hand where there are such.
func (p preTokenizer) step() (step, error) {
	return chain(p.split, func(expr string) (step, error) {
		if hand, ok := handSteps[expr]; ok {
			return hand, nil
		}
		return matcherStep(expr)
	})
}

// chain makes the steps of some expressions into one: each cuts the pieces of the one before.
func chain(split []string, of func(expr string) (step, error)) (step, error) {
	var whole step
	for i := len(split) - 1; i >= 0; i-- {
		this, err := of(split[i])
		if err != nil {
			return nil, bad("split[%d]: %v", i, err)
		}
		rest := whole
		if rest == nil {
			whole = this
			continue
		}
		whole = func(s string, yield func(string)) {
			this(s, func(piece string) { rest(piece, yield) })
		}
	}
	return whole, nil
}

// matchTime bounds one search of the slow path, matchPerByte what all searches of a text add to it. Where
// that runs out the remaining text is one piece.
const (
	matchTime    = 2 * time.Second
	matchPerByte = 20 * time.Microsecond
)

// matcherStep is the slow path for an expression that nobody wrote by hand: matches and what lies between
// them are pieces.
func matcherStep(expr string) (step, error) {
	if len(expr) > 1<<14 {
		return nil, fmt.Errorf("expression of %d bytes", len(expr))
	}
	re, err := regexp2.Compile(expr, regexp2.None)
	if err != nil {
		return nil, err
	}
	re.MatchTimeout = matchTime
	return func(s string, yield func(string)) {
		runes := make([]rune, 0, len(s))
		at := make([]int, 0, len(s)+1) // byte offset of each rune
		for i := 0; i < len(s); {
			r, n := utf8.DecodeRuneInString(s[i:])
			runes, at = append(runes, r), append(at, i)
			i += n
		}
		at = append(at, len(s))
		done := 0
		end := time.Now().Add(matchTime + time.Duration(len(s))*matchPerByte)
		m, err := re.FindRunesMatch(runes)
		for ; m != nil && err == nil && time.Now().Before(end); m, err = re.FindNextMatch(m) {
			if m.Index > done {
				yield(s[at[done]:at[m.Index]])
			}
			if done = m.Index + m.Length; m.Length > 0 {
				yield(s[at[m.Index]:at[done]])
			}
		}
		if at[done] < len(s) {
			yield(s[at[done]:])
		}
	}, nil
}
