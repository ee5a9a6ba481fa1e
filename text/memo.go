package text

// Memo remembers the ids of runs of text. It may forget, and is used by any number of goroutines.
type Memo interface {
	Find(s string) (ids []int32, ok bool) // the ids are not written to
	Keep(s string, ids []int32)           // both stay the caller's
}

// leastMemo is how many bytes a run has that is worth looking for; shorter ones are as quickly encoded.
const leastMemo = 128

// Remembering is a tokenizer that gives the same ids and remembers those of each run of text between tokens that are matched whole.
// Such a run's ids depend on nothing around it, so of a conversation that has grown only the new runs are encoded. A memo is for one
// tokenizer.
func Remembering(t Tokenizer, m Memo) Tokenizer {
	switch t := t.(type) {
	case *bpe:
		c := *t
		c.table = t.table.remembering(m)
		return &c
	case *spm:
		c := *t
		c.table = t.table.remembering(m)
		return &c
	}
	return t
}

func (t *table) remembering(m Memo) *table {
	c := *t
	c.memo = m
	return &c
}

// plainer appends the ids of a run of text; at is where it begins in the whole one.
type plainer func(dst []int32, s string, at int) []int32

// run appends the ids of one run by plain, or as remembered. The first run of a text is encoded by rules of its own in some
// vocabularies, and is not remembered there.
func (t *table) run(dst []int32, s string, at int, plain plainer) []int32 {
	if t.memo == nil || len(s) < leastMemo || at == 0 && t.v.PrefixFirst {
		return plain(dst, s, at)
	}
	if ids, ok := t.memo.Find(s); ok {
		return append(dst, ids...)
	}
	start := len(dst)
	dst = plain(dst, s, at)
	t.memo.Keep(s, dst[start:])
	return dst
}
