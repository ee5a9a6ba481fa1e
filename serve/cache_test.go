package serve

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

func newCache(t testing.TB, opt CacheOptions) *Cache {
	t.Helper()
	c, err := NewCache(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// settle waits for what was put into a cache, which no request does.
func (c *Cache) settle() {
	if c != nil && c.conversations != nil {
		c.conversations.Wait()
	}
	if c != nil && c.runs != nil {
		c.runs.Wait()
	}
}

// talk is a conversation of some turns with texts of all kinds.
func talk(turns int) []Turn {
	all := []Turn{{Role: "system", Content: "You tell stories. " + strings.Repeat("Never say <|im_end|>. ", 8)}}
	for i := range turns {
		all = append(all, Turn{Role: "user", Content: fmt.Sprintf("%d. Tell me more of the cat, the dog and the tree.%s", i, strings.Repeat(" And é世界 then?\n", 20+i%7))},
			Turn{Role: "assistant", Content: fmt.Sprintf("Once upon a time (%d), %s", i, strings.Repeat("there was a little cat who lived in the big tree. ", 16+i%5))})
	}
	return all
}

// The prompts of a growing conversation are those that a model without a cache makes, whatever the cache keeps or drops.
func TestCacheChangesNothing(t *testing.T) {
	plain := open(t, demo.Name, small())
	said := store.Modelfile{Template: chatML, System: "Be brief."}
	own := variantOf(t, plain, said)
	big := CacheOptions{Written: 32 << 20, Tokenised: 32 << 20}
	for name, cache := range map[string]*Cache{
		"none": nil, "of size zero": newCache(t, CacheOptions{}), "that drops all": newCache(t, CacheOptions{Written: 1, Tokenised: 1}),
		"small": newCache(t, CacheOptions{Written: 20_000, Tokenised: 20_000}), "large": newCache(t, big),
		"of conversations": newCache(t, CacheOptions{Written: 1 << 20}), "of runs": newCache(t, CacheOptions{Tokenised: 1 << 20}),
	} {
		opt := small()
		opt.Cache = cache
		m := open(t, demo.Name, opt)
		v := variantOf(t, m, said)
		turns := talk(12)
		for n := 2; n <= len(turns); n += 2 {
			for range 2 {
				r := ChatRequest{Messages: turns[:n]}
				for i, pair := range [][2]*Model{{plain, m}, {own, v}} {
					want, _, err := pair[0].prompt(t.Context(), &r)
					if err != nil {
						t.Fatal(err)
					}
					if got, _, err := pair[1].prompt(t.Context(), &r); err != nil || !slices.Equal(got, want) {
						t.Fatalf("%s, %d: %d messages make %d ids, want %d: %v", name, i, n, len(got), len(want), err)
					}
				}
				cache.settle()
			}
		}
		if got := cache.Counters(); name == "large" && (got.WrittenHits < 20 || got.TokenisedHits < 100 || got.TokenisedMisses > 60) {
			t.Errorf("%s: %+v", name, got)
		} else if name == "that drops all" && (got.WrittenHits != 0 || got.TokenisedHits != 0 || got.WrittenMisses == 0) {
			t.Errorf("%s: %+v", name, got)
		}
		p := NewPool(PoolOptions{Cache: cache})
		if p.Cache() != cache.Counters() {
			t.Errorf("%s: the pool has other counts", name)
		}
	}
}

// Requests that a template could tell apart are kept apart, and so are models.
func TestCacheKeys(t *testing.T) {
	cache := newCache(t, CacheOptions{Written: 1 << 20, Tokenised: 1 << 20})
	arg := func(v text.Value) []text.Pair { return []text.Pair{{Key: "a", Value: v}} }
	hi := []Turn{{Role: "user", Content: "hi"}}
	seen := map[string]int{}
	for i, r := range []ChatRequest{
		{}, {Suffix: "x"}, {Template: "x"}, {Think: &Think{}}, {Think: &Think{On: true}}, {Think: &Think{Level: "x"}},
		{TemplateArgs: arg(text.Int(1))}, {TemplateArgs: arg(text.String("1"))}, {TemplateArgs: arg(text.Input("1"))},
		{Messages: hi}, {Messages: append(hi[:1:1], hi...)}, {Messages: []Turn{{Role: "user", Name: "hi"}}}, {Messages: []Turn{{Role: "user", Reasoning: "hi"}}},
		{Messages: []Turn{{Role: "user", CallID: "hi"}}}, {Messages: []Turn{{Role: "userh", Content: "i"}}},
		{Messages: []Turn{{Role: "user", Calls: []Call{{Name: "hi"}}}}}, {Messages: []Turn{{Role: "user", Calls: []Call{{ID: "hi"}}}}},
		{Messages: []Turn{{Role: "user", Calls: []Call{{Arguments: "hi"}}}}},
	} {
		for model := range uint64(2) {
			key := cache.key(model, r.Messages, &r)
			if other, twice := seen[key]; twice || key == "" {
				t.Errorf("requests %d and %d have one key", other, i)
			}
			if seen[key] = i; cache.key(model, slices.Clone(r.Messages), &r) != key {
				t.Errorf("request %d has two keys", i)
			}
		}
	}
	one, two := memo{cache, 1}, memo{cache, 2}
	one.Keep("text", []int32{1, 2})
	cache.settle()
	if ids, ok := one.Find("text"); !ok || !slices.Equal(ids, []int32{1, 2}) {
		t.Errorf("%v, %v", ids, ok)
	}
	if ids, ok := two.Find("text"); ok {
		t.Errorf("another model's: %v", ids)
	}
}

// What depends on the clock is rendered each time.
func TestCacheAndClock(t *testing.T) {
	opt := small()
	opt.Cache = newCache(t, CacheOptions{Written: 1 << 20})
	m := open(t, demo.Name, opt)
	dated := variantOf(t, m, store.Modelfile{Template: "{{ currentDate }}{{ .Prompt }}"})
	jinja := *m
	var err error
	if jinja.template, err = text.ParseTemplate("{{ strftime_now('%Y') }}"); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Model{dated, &jinja} {
		for range 3 {
			if _, err := m.write(&ChatRequest{Messages: []Turn{{Role: "user", Content: "hi"}}}); err != nil {
				t.Fatal(err)
			}
			opt.Cache.settle()
		}
	}
	if n := opt.Cache.Counters(); n.WrittenHits != 0 || n.WrittenMisses != 6 {
		t.Errorf("%+v", n)
	}
}

// Many goroutines make the same prompt out of one cache.
func TestCacheTogether(t *testing.T) {
	cache := newCache(t, CacheOptions{Written: 8 << 10, Tokenised: 8 << 10})
	opt := small()
	opt.Cache = cache
	m := open(t, demo.Name, opt)
	turns := talk(4)
	want, _, err := m.prompt(t.Context(), &ChatRequest{Messages: turns})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				if got, _, err := m.prompt(t.Context(), &ChatRequest{Messages: turns}); err != nil || !slices.Equal(got, want) {
					t.Errorf("%d ids, %v", len(got), err)
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkPrompt prepares the prompts of conversations of 50 turns, one after each turn, without a cache and with one that has seen other
// conversations before the first turn.
func BenchmarkPrompt(b *testing.B) {
	for _, name := range []string{"jinja", "go"} {
		for _, cached := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/cache=%v", name, cached), func(b *testing.B) {
				m := bare(b)
				if name == "go" {
					var err error
					if m.own.template, err = text.ParseGoTemplate(chatML); err != nil {
						b.Fatal(err)
					}
				}
				if cached {
					m.cache = newCache(b, CacheOptions{Written: 32 << 20, Tokenised: 32 << 20})
				}
				m.tok = m.cache.remembering(m.tok, 1)
				for i := 0; b.Loop(); i++ {
					turns := talk(50)
					for k := range turns {
						turns[k].Content += fmt.Sprint(" ", i)
					}
					for n := 2; n < len(turns); n += 2 {
						if _, _, err := m.prompt(b.Context(), &ChatRequest{Messages: turns[:n]}); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)*1e6/50, "µs/prompt")
			})
		}
	}
}

// bare is the demo as far as prompts need it.
func bare(b *testing.B) *Model {
	c, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		b.Fatal(err)
	}
	m := &Model{variants: &variants{of: map[string]variant{}}}
	if m.vocab, err = vocabulary(c); err != nil {
		b.Fatal(err)
	}
	if m.tok, err = text.NewTokenizer(m.vocab); err != nil {
		b.Fatal(err)
	}
	m.template, m.templateErr = chatTemplate(c)
	return m
}
