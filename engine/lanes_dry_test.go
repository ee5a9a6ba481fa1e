package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
)

// openLanes lets sequences give pages back, so many of which may be kept in part.
func (d *dry) openLanes(rows int) {
	d.tiles, d.lanes = map[int32][]slot{}, map[int32][]int32{0: nil}
	for row := range rows {
		d.pool.rows = append(d.pool.rows, int32(row+1))
	}
}

// pack copies tiles as a model would, and spoils what nobody has any more.
func (d *dry) pack() {
	for _, p := range d.packings {
		for _, at := range p.places {
			if at < 0 {
				continue
			}
			page := d.cache[int(p.page)*attention.PageTokens:][:attention.PageTokens]
			d.tiles[at] = slices.Clone(page)
			d.spoil(at / int32(len(p.places)))
		}
		if p.places != nil {
			d.lanes[p.row] = p.places
		}
		if p.free {
			d.spoil(p.page)
		}
	}
}

// spoil overwrites a page's tokens.
func (d *dry) spoil(page int32) {
	for i := range attention.PageTokens {
		d.cache[int(page)*attention.PageTokens+i] = slot{-1, -1, -1}
	}
}

// unpack forgets the tiles in a page that gets tokens.
func (d *dry) unpack(page int32) {
	for at := range d.tiles { // nothing where d.heads is 0
		if at/d.heads == page {
			delete(d.tiles, at)
		}
	}
}

// packed checks what heads read of token i of a sequence, whose page was given back.
func (d *dry) packed(q *sequence, i int, want slot) error {
	page := i / attention.PageTokens
	places := d.lanes[attention.LanesEntry(q.pages[page])]
	for h := range q.lanes.keep.Heads {
		keeps := q.lanes.keep.Heads[h].Holds(page)
		if places == nil && !keeps {
			continue
		}
		if keeps != (places[h] >= 0) {
			return fmt.Errorf("head %d keeps page %d: %v, and has it at %d", h, page, keeps, places[h])
		}
		if !keeps {
			continue
		}
		if tile := d.tiles[places[h]]; tile == nil || tile[i%attention.PageTokens] != want {
			return fmt.Errorf("head %d finds something else at %d where %+v is meant", h, places[h], want)
		}
	}
	return nil
}

// retentions are ways in which four heads keep pages.
var retentions = []*attention.Retention{
	attention.NewRetention([]attention.Keep{column(4, 0), column(4, 1), column(4, 2), column(4, 3)}),
	attention.NewRetention([]attention.Keep{column(3, 0), attention.Everything(), column(3, 1), column(2, 1)}),
	attention.NewRetention(slices.Repeat([]attention.Keep{{Sink: 1, Recent: 2}}, 4)),
	attention.NewRetention([]attention.Keep{{Sink: 1, Recent: 1}, attention.Everything(), {Sink: 1, Recent: 1}, {Sink: 1, Recent: 1}}),
}

func column(stride int, columns ...int32) attention.Keep {
	return attention.Keep{Stride: stride, Columns: columns, Recent: 1}
}

// laned makes a sequence that gives pages back, from the start on or once its prompt is computed, as an engine would; nil where it does not fit.
func (d *dry) laned(r Request, keep *attention.Retention, prefill int) *sequence {
	from := len(r.Prompt)
	if prefill > 0 {
		from = 0
	}
	x, rows := newLanes(keep, from, &d.limits), len(d.pool.rows)
	for _, q := range slices.Concat(d.running, d.waiting) {
		if q.lanes != nil {
			rows += len(q.lanes.rows)
		}
	}
	most := x.fits(&d.limits, rows)
	if most < d.context() || r.check(1<<20, most) != nil || !x.saves(r.limit(most)) {
		return nil
	}
	q := newSequence(&r, most)
	q.root, q.policy = d.pool.root("full"), &model.Policy{Prefill: prefill, Decode: 1, Align: 1}
	if prefill > 0 {
		q.variant = fmt.Sprint(slices.Index(retentions, keep))
	}
	d.heads = int32(len(keep.Heads))
	if q.retains(x); d.add(q) != nil {
		return nil
	}
	return q
}

// randomLanes adds a generation that gives pages back.
func (d *dry) randomLanes(r *rand.Rand, prompt []int32) *sequence {
	ask := Request{Prompt: prompt, MaxTokens: r.IntN(600), Alternatives: -1, Priority: r.IntN(3)}
	return d.laned(ask, retentions[r.IntN(len(retentions))], r.IntN(2))
}

// s2 is what the heads of a model of layers and key-value heads keep under S2-Attention, by its formula: every other layer reads everything
// where every is 2, no layer where it is 0.
func s2(layers, heads, stride, local, every int) (*attention.Retention, func(page, layer, head int) bool) {
	formula := func(page, layer, head int) bool {
		return every > 0 && (layer+1)%every == 0 || (page+head*max(1, stride/heads)+1)%stride == 0
	}
	var all []attention.Keep
	for layer := range layers {
		for head := range heads {
			k := attention.Keep{Stride: stride, Recent: local - 1}
			for page := range stride {
				if formula(page, layer, head) {
					k.Columns = append(k.Columns, int32(page))
				}
			}
			all = append(all, k)
		}
	}
	return attention.NewRetention(all), formula
}

// The pages that a sequence holds are what the formula of its selector says, while it grows to 64k tokens.
func TestLanesHoldWhatTheFormulaSays(t *testing.T) {
	const stride, local = 8, 16
	for name, c := range map[string]struct{ layers, heads, every, most int }{
		"no dense layers": {8, 8, 0, 145}, "every other layer dense": {8, 8, 2, 588},
	} {
		t.Run(name, func(t *testing.T) {
			keep, formula := s2(c.layers, c.heads, stride, local, c.every)
			lim := model.Limits{Rows: 512, Sequences: 1, Wanted: 1, Pages: c.most + 10, Context: 1<<16 + 64}
			s := newScheduler(lim, 1)
			for row := range 1 << 10 {
				s.pool.rows = append(s.pool.rows, int32(row+1))
			}
			x := newLanes(keep, 0, &lim)
			if have := x.fits(&lim, 1<<10); have != lim.Context {
				t.Fatalf("%d tokens fit", have)
			}
			q := newSequence(&Request{Prompt: make([]int32, 4000), Alternatives: -1}, lim.Context)
			q.root, q.policy = s.pool.root("full"), &model.Policy{Prefill: 1, Decode: 1, Align: 1}
			if q.retains(x); s.add(q) != nil {
				t.Fatal("refused")
			}
			kept, behind, most := 0, 0, 0
			for q.computed <= 1<<16 {
				s.next()
				if n := q.computed; n >= 4096 && n&(n-1) == 0 || n%1999 == 0 && n > 4096 {
					for ; behind < n/64-local+1; behind++ {
						for layer := range c.layers {
							for head := range c.heads {
								if formula(behind, layer, head) {
									kept++
								}
							}
						}
					}
					tiles := c.layers * c.heads
					least := pagesOf(n) - behind + (kept+tiles-1)/tiles
					if have := q.holds(); have < least || have > least+2 { // its next token's, and room for what leaves next
						t.Errorf("%d tokens: %d pages, want %d", n, have, least)
					}
					if most = max(most, q.holds()); n&(n-1) == 0 {
						t.Logf("%d tokens: %d pages, %d where all are kept", n, q.holds(), pagesOf(n))
					}
				}
				s.commit([]int32{7})
				s.resume()
			}
			if err := s.check(); err != nil || s.counts.Preempted > 0 || most > c.most {
				t.Errorf("%v, %d times preempted, %d pages", err, s.counts.Preempted, most)
			}
		})
	}
}

// Where one sequence fits that keeps all, several fit that give pages back, and one that is longer than all pages.
func TestLanesAdmitMore(t *testing.T) {
	keep, _ := s2(4, 4, 4, 2, 0)
	lim := model.Limits{Rows: 128, Sequences: 4, Wanted: 4, Pages: 34, Context: 4096}
	prompt := make([]int32, 1900)
	for i := range prompt {
		prompt[i] = int32(i)
	}
	run := func(n int, laned bool, prompt []int32) (most int) {
		d := newDry(lim, 8)
		d.openLanes(200)
		for i := range n {
			r := Request{Prompt: slices.Clone(prompt), MaxTokens: 200, Alternatives: -1}
			r.Prompt[0] = int32(i)
			var q *sequence
			if laned {
				q = d.lanedAs(r, keep)
			} else {
				q, _ = d.request(r)
			}
			if q == nil {
				return -1
			}
		}
		for len(d.running)+len(d.waiting) > 0 {
			if _, err := d.plan(); err != nil {
				t.Fatal(err)
			}
			most = max(most, len(d.running))
			if err := d.settled(); err != nil {
				t.Fatal(err)
			}
		}
		if d.counts.Preempted > 0 {
			t.Errorf("%d times preempted", d.counts.Preempted)
		}
		return most
	}
	if one, more := run(4, false, prompt), run(4, true, prompt); one != 1 || more < 2 {
		t.Errorf("%d run that keep all, %d that do not", one, more)
	}
	long := slices.Repeat(prompt, 2)[:3800]
	if none, one := run(1, false, long), run(1, true, long); none != -1 || one != 1 {
		t.Errorf("of 3800 tokens %d runs that keeps all, %d that does not", none, one)
	}
}

// lanedAs is laned for a prompt that is read as what follows it.
func (d *dry) lanedAs(r Request, keep *attention.Retention) *sequence { return d.laned(r, keep, 1) }
