package text

import (
	"slices"
	"testing"
)

// mergePlainly is what merging means: the pair of the best rank, the leftmost of equals, until no pair has one.
func mergePlainly(p *pairs, ids []int32) []int32 {
	for {
		best := -1
		for i := 0; i+1 < len(ids); i++ {
			if v := p.find(ids[i], ids[i+1]); v != none && (best < 0 || v>>32 < p.find(ids[best], ids[best+1])>>32) {
				best = i
			}
		}
		if best < 0 {
			return ids
		}
		ids[best] = int32(uint32(p.find(ids[best], ids[best+1])))
		ids = slices.Delete(ids, best+1, best+2)
	}
}

// encodePlainly cuts with the matcher, whatever is written by hand, and merges plainly, without a cache.
func encodePlainly(b *bpe, by step, s string) (ids []int32) {
	by(s, func(piece string) {
		if id, ok := b.words[piece]; ok {
			ids = append(ids, id)
			return
		}
		var bytes []int32
		for i := 0; i < len(piece); i++ {
			if id := b.bytes[piece[i]]; id >= 0 {
				bytes = append(bytes, id)
			}
		}
		ids = append(ids, mergePlainly(b.pairs, bytes)...)
	})
	return ids
}

// FuzzEncode compares with what encoding means, for every pre-tokenizer whose expressions the matcher can read.
func FuzzEncode(f *testing.F) {
	v, err := ParseTokenizerJSON(read(f, "testdata/tiny.json"))
	if err != nil {
		f.Fatal(err)
	}
	type twin struct {
		fast *bpe
		cut  step
	}
	var twins []twin
	for _, p := range preTokenizers {
		if slices.Contains(p.split, reBailing) { // possessive repeats
			continue
		}
		w := *v
		w.Pre = p.names[0]
		fast, err := newBPE(&w)
		if err != nil {
			f.Fatal(err)
		}
		cut, err := chain(p.split, matcherStep)
		if err != nil {
			f.Fatal(err)
		}
		twins = append(twins, twin{fast, cut})
	}
	f.Add("Hello, World's end 1234567\r\n\t  x `!` DON'T\n\n")
	f.Add("a,b.c 1 2  3\n\n\n\tThe CAT's hat; thE cAt'LL say: \"no!\" (42%)\r\n")
	f.Add("func main() { fmt.Println(\"日本語\", x+=1) }\n// ~~~ |||  ===> ¡olé! ΑΒΓ αβγ ʰʰ")
	f.Add("    \n   \t\u3000\u00a0 \n x \xff\xfe\xe4\xb8 ١٢٣ ⅷ Ⅳ ½ 👩\u200d👩\u200d👧 한국어 ㄱㄴ ไทย မြန်မာ")
	f.Add("\u00a0世界ア 가나！e\u0301Ａ½ ǅ the the ththethethe")
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 200 {
			return // the matcher looks ahead again and again
		}
		for _, w := range twins {
			for range 2 { // the second time out of the cache
				got := w.fast.Encode(nil, Span{Text: s, Input: true})
				if want := encodePlainly(w.fast, w.cut, s); !slices.Equal(got, want) {
					t.Fatalf("%s: %q\n got %v\nwant %v", w.fast.v.Pre, s, got, want)
				}
			}
		}
	})
}
