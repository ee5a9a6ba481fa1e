package engine

import (
	"slices"

	"github.com/winnow-llm/winnow/attention"
)

// restore is the reading of a running sequence's next pages, which are kept outside. While it is under way the sequence does not advance, and
// others do. What the sequence is then to have in its pages it need not compute.
type restore struct {
	seq    *sequence
	from   int      // the first of the pages, by its number in the sequence
	ids    []pageID // whole units
	tokens []int32  // of all of them

	done  bool
	whole int    // when it is done: leading pages that were there
	bytes []byte // likewise: of all pages
}

// seek begins to restore pages of the first running sequence that has some to come, at most so many unless a unit has more. It gives nil when there
// is none, or when a restore is under way.
func (s *scheduler) seek(most int) *restore {
	if s.stored == nil || s.restore != nil {
		return nil
	}
	for _, q := range s.running {
		if ids := s.ahead(q, most); len(ids) > 0 {
			from := q.sealed * attention.PageTokens
			s.restore = &restore{
				seq: q, from: q.sealed, ids: ids, tokens: slices.Clone(q.tokens[from : from+len(ids)*attention.PageTokens]),
			}
			return s.restore
		}
	}
	return nil
}

// ahead is which pages that a sequence would compute next are kept outside: whole units, one at least where there is one.
func (s *scheduler) ahead(q *sequence, most int) (ids []pageID) {
	if q.lacking || q.held || q.planned || q.computed != q.sealed*attention.PageTokens {
		return nil
	}
	name, unit := s.pool.name(s.pool.parent(q, q.sealed)), q.unit()/attention.PageTokens
	for len(ids) == 0 || len(ids)+unit <= most {
		if to := q.sealed + len(ids) + unit; to*attention.PageTokens > q.adoptable() || to > len(q.pages) {
			return ids
		}
		for n := range unit {
			key := s.pool.keyAfter(0, q, q.sealed+len(ids))
			if name = s.pool.nameAfter(name, &key); !s.stored(name) {
				return ids[:len(ids)-n]
			}
			ids = append(ids, name)
		}
	}
	return ids
}

// waits says whether a sequence does not advance since pages are read for it, or will be.
func (s *scheduler) waits(q *sequence) bool {
	return s.stored != nil && (s.restore != nil && s.restore.seq == q || len(s.ahead(q, 1)) > 0)
}

// landing is where the pages go that were restored; nil where the sequence has no use for them any more.
func (s *scheduler) landing() []int32 {
	r := s.restore
	q := r.seq
	if !slices.Contains(s.running, q) || q.planned || q.sealed != r.from || q.computed != r.from*attention.PageTokens {
		return nil
	}
	return q.pages[r.from:][:r.whole]
}

// land ends a restore: where the pages were written to, the sequence has them as if it had computed them.
func (s *scheduler) land(written bool) {
	r := s.restore
	q := r.seq
	written = written && s.landing() != nil
	if s.restore = nil; !written {
		return
	}
	unit := q.unit() / attention.PageTokens
	q.lacking = r.whole < len(r.ids) // it is not asked again what was there and is not
	pages := r.whole / unit * unit
	q.computed += pages * attention.PageTokens
	s.pool.seal(q)
	if q.preempted == 0 {
		s.cached(q, pages*attention.PageTokens)
	}
	s.counts.Restored += int64(pages)
}
