package text

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func split(s string, by step) []string {
	out := []string{}
	by(s, func(p string) { out = append(out, p) })
	return out
}

// Each hand-written step cuts as the matcher does with the same expression.
func TestStepsAgainstMatcher(t *testing.T) {
	alphabet := []string{"a", "b", "S", "T", "'", "'s", "'LL", "'re", " ", "  ", "\n", "\r\n", "\t", "1", "23", "½", "é", "E\u0301", "\u0301", "世", "ア", "ʰ", "ǅ",
		"!", ".", "/", "$", "~", "©", "\u00a0", "\u3000", "。", "𝔘", "😀", "\x01", "\u200d", "Ａ"}
	seed := uint64(7)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for expr, hand := range handSteps {
		if expr == reBailing || expr == reWhole { // possessive repeats, which the matcher lacks, and no expression
			continue
		}
		slow, err := matcherStep(expr)
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		for range 3000 {
			var b strings.Builder
			for range 1 + rnd.IntN(9) {
				b.WriteString(alphabet[rnd.IntN(len(alphabet))])
			}
			s := b.String()
			if expr == reTrailing && strings.Contains(s, "\n") { // lines were cut out before
				continue
			}
			if got, want := split(s, hand), split(s, slow); !slices.Equal(got, want) {
				t.Errorf("seed %d, %s\n%q\n got %q\nwant %q", seed, expr, s, got, want)
				break
			}
		}
	}
}

func TestPreTokenizers(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range preTokenizers {
		for _, n := range p.names {
			if seen[n] {
				t.Errorf("%q is named twice", n)
			}
			seen[n] = true
		}
		by, err := p.step()
		if err != nil {
			t.Errorf("%q: %v", p.names[0], err)
			continue
		}
		s := "It's 1234567 o'clock,\n\n  DON'T  panic… 世界 \xff\xfe !"
		if got := strings.Join(split(s, by), ""); got != s {
			t.Errorf("%q loses text: %q", p.names[0], got)
		}
	}
	for _, c := range []struct {
		pre  string
		want string
	}{
		{"gpt-2", "It|'s| 123| DON|'|T|  | x|\n"},
		{"qwen2", "It|'s| |1|2|3| DON|'T|  | x|\n"},
		{"llama-bpe", "It|'s| |123| DON|'T|  | x|\n"},
		{"smollm", "It|'s| |1|2|3| DON|'|T|  | x|\n"},
		{"gpt-4o", "It's| |123| DON'T|  | x|\n"},
		{"default", "It|'|s| |123|4| x|!|`|\n"},
		{"", "It|'|s| |123|4| x|!|`|\n"},
		{"falcon", "It|'|s| |123|4| x|!`|\n"},
		{"seed-coder", " x|!|\n\n"},
		{"afmoe", "It|'s| |12|345|678|\n"},
		{"laguna", "x|!|\n\n|y| |1|2"},
		{"minicpm5", "It|'s| |123|4|!\n"},
		{"kimi-k2", "Aé|世界|b|C's| |123|4|!\n"},
		{"exaone-moe", "a b c|!\n|\n"},
		{"youtu", "가나|！|a|B|1|2"},
	} {
		p, err := preTokenizerOf(&Vocab{Pre: c.pre})
		if err != nil {
			t.Fatal(err)
		}
		by, _ := p.step()
		s := strings.ReplaceAll(c.want, "|", "")
		if got := strings.Join(split(s, by), "|"); got != c.want {
			t.Errorf("%s: got %q, want %q", c.pre, got, c.want)
		}
	}
}

// A search that finds nothing new at a place still cuts there, and bytes that are not UTF-8 survive.
func TestMatcherStep(t *testing.T) {
	by, err := matcherStep(`(?=(\d{3})+(?!\d))`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := split("a1234567\xff", by), []string{"a1", "234", "567\xff"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Long merges by heap and short ones by looking through agree, and both with the rule said plainly.
func TestMerge(t *testing.T) {
	seed := uint64(11)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		p := newPairs(0)
		for id := int32(4); id < 40; id++ {
			p.add(rnd.Int32N(id), rnd.Int32N(id), id, rnd.IntN(20))
		}
		ids := make([]int32, 1+rnd.IntN(2*shortPiece))
		for i := range ids {
			ids[i] = rnd.Int32N(4)
		}
		want := mergePlainly(p, slices.Clone(ids))
		long := slices.Clone(ids)
		long = long[:p.mergeLong(long)]
		ids = ids[:p.merge(ids)]
		if !slices.Equal(ids, want) || !slices.Equal(long, want) {
			t.Fatalf("seed %d\n got %v\nlong %v\nwant %v", seed, ids, long, want)
		}
	}
}

func TestVisibleAlphabet(t *testing.T) {
	seen := map[byte]bool{}
	for r, b := range visibleByte {
		seen[b] = true
		if got := fromVisible(string(r)); len(got) != 1 || got[0] != b {
			t.Errorf("%q is % x, want %#x", r, got, b)
		}
	}
	if len(seen) != 256 {
		t.Errorf("%d bytes", len(seen))
	}
	if got := string(fromVisible("ĠĊ~®ÿ")); got != " \n~\xae\xff" {
		t.Errorf("got %q", got)
	}
}
