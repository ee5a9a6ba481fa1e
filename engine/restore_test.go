package engine

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
)

// keepOutside lets a dry scheduler keep pages, as an engine would.
func (d *dry) keepOutside(whims *rand.Rand) {
	d.outside, d.whims, d.pool.spills = map[pageID][]slot{}, whims, true
	d.stored = func(id pageID) bool { return d.outside[id] != nil }
}

// whim is true once in n times, where there are whims.
func (d *dry) whim(n int) bool { return d.whims != nil && d.whims.IntN(n) == 0 }

func (d *dry) page(id int32) []slot {
	return d.cache[int(id)*attention.PageTokens:][:attention.PageTokens]
}

// spill keeps what was evicted, and something of what will be.
func (d *dry) spill() {
	if d.outside == nil {
		return
	}
	out := append(d.pool.lost, d.pool.endangered(1, d.stored)...)
	for _, p := range out {
		if !d.whim(5) {
			d.outside[p.id] = slices.Clone(d.page(p.page))
		}
	}
	d.pool.lost = d.pool.lost[:0]
	if d.whim(20) {
		for id := range maps.Keys(d.outside) { // any
			delete(d.outside, id)
			break
		}
	}
	d.seek(2)
}

// restored brings back the pages that are to be restored.
func (d *dry) restored() {
	r := d.restore
	if r == nil || d.whim(3) {
		return
	}
	var found [][]slot
	for _, id := range r.ids {
		if d.outside[id] == nil || d.whim(10) {
			break
		}
		found = append(found, d.outside[id])
	}
	r.whole = len(found)
	for i, id := range d.landing() {
		copy(d.page(id), found[i])
	}
	d.land(true)
}

// A page is found again by all that it follows from, and by nothing else.
func TestNamesOfPages(t *testing.T) {
	names := map[pageID]string{}
	name := func(what string, root, variant string, ids ...int32) {
		lim := model.Limits{Rows: 512, Sequences: 2, Wanted: 2, Pages: 8, Context: 512}
		d := newDry(lim, 2)
		d.keepOutside(nil)
		q, err := d.request(Request{Prompt: ids, MaxTokens: 1, Alternatives: -1})
		if err != nil {
			t.Fatal(err)
		}
		q.root, q.variant = d.pool.root(root), variant
		d.next()
		d.commit([]int32{7})
		for id, g := range d.pool.pages {
			if g.key != nil && g.depth == len(ids)/attention.PageTokens-1 {
				if other, ok := names[d.pool.name(int32(id))]; ok {
					t.Errorf("%s and %s have one name", what, other)
				}
				names[g.name] = what
			}
		}
	}
	two := numbers("1..128")
	last := slices.Clone(two)
	last[127]++
	first := slices.Clone(two)
	first[0]++
	name("one page", "m", "", numbers("1..64")...)
	name("two pages", "m", "", two...)
	name("another last token", "m", "", last...)
	name("another first token", "m", "", first...)
	name("another model", "n", "", two...)
	name("another variant", "m", "reads: quest", two...)
	if len(names) != 6 {
		t.Errorf("%d pages have names, want 6", len(names))
	}
	before := maps.Clone(names)
	clear(names)
	name("the same", "m", "", two...)
	for id := range names {
		if before[id] != "two pages" {
			t.Errorf("the same page in another pool is %q", before[id])
		}
	}
}

// What is planned together is restored together or not at all: a unit of two pages of which one is missing is computed.
func TestRestoreWholeUnits(t *testing.T) {
	for _, missing := range []int{-1, 0, 1, 2, 3, 4} {
		lim := model.Limits{Rows: 512, Sequences: 1, Wanted: 1, Pages: 8, Context: 512}
		play := func(d *dry) *sequence {
			q, err := d.request(Request{Prompt: numbers("1..400"), MaxTokens: 1, Alternatives: -1})
			if err != nil {
				t.Fatal(err)
			}
			q.policy, q.variant = &model.Policy{Prefill: 1, Align: 128}, "reads"
			for len(d.running)+len(d.waiting) > 0 {
				if _, err := d.plan(); err != nil {
					t.Fatal(err)
				}
				if err := d.settled(); err != nil {
					t.Fatal(err)
				}
			}
			return q
		}
		d := newDry(lim, 2)
		d.keepOutside(nil)
		play(d)
		kept := map[pageID][]slot{}
		for id, g := range d.pool.pages {
			if g.key != nil && g.depth != missing {
				kept[g.name] = slices.Clone(d.page(int32(id)))
			}
		}
		again := newDry(lim, 2)
		again.keepOutside(nil)
		again.outside = kept
		want := 384
		if missing >= 0 {
			want = missing / 2 * 128
		}
		if q := play(again); q.cached != want || again.counts.Restored != int64(want/64) {
			t.Errorf("without page %d, %d tokens are cached and %d pages restored, want %d tokens", missing, q.cached, again.counts.Restored, want)
		}
	}
}
