package attention

// past reads keys and values as a row does: of pages that are pruned, all but the row's own one are. It is for references.
type past struct {
	c          *Cache
	l          *Layout
	lane       int
	keyOf      func(tile, slot, d int) float32
	valueOf    func(tile, slot, d int) float32
	unpacked   map[int]*unpacked // by where the page table has the page, and head
	seq, pos   []int32
	table, own []int32 // logical page -> page, and page of the cache that is not pruned

	known   map[pastKey]int // where numbers has the vectors of a key; all is forgotten when there are many
	numbers []float32
}

// mostKnown is of how many keys vectors are kept: rows and query heads that are neighbours read much the same.
const mostKnown = 1 << 14

// pastKey is a key that a row reads.
type pastKey struct {
	tile, slot int       // of the whole cache
	pruned     *unpacked // the tile, where that is pruned; else nil
}

// past is the past of a batch in host memory.
func (l *Layout) past(c *Cache, lane int) *past {
	whole := l.whole(c)
	return &past{
		c: c, l: l, lane: lane, keyOf: whole.key(), valueOf: whole.value(), unpacked: map[int]*unpacked{}, known: map[pastKey]int{},
		seq: l.Seq.I32(), pos: l.Pos.I32(), table: l.Pages[lane].I32(), own: l.Own(c, lane).I32(),
	}
}

// at is where a row finds key k in a key-value head.
func (p *past) at(row, kv, k int) pastKey {
	page := k / PageTokens
	in := int(p.seq[row])*p.l.Pages[p.lane].Cols + page
	switch {
	case p.c.Pruned == nil:
		return pastKey{tile: p.l.tile(p.c, p.table[in], kv), slot: k % PageTokens}
	case page == int(p.pos[row])/PageTokens:
		return pastKey{tile: p.c.Tile(p.own[in], kv), slot: k % PageTokens}
	}
	at := in*p.c.Heads + kv
	if p.unpacked[at] == nil {
		p.unpacked[at] = p.c.Pruned.unpack(p.c, p.l, p.table[in], kv)
	}
	return pastKey{slot: k % PageTokens, pruned: p.unpacked[at]}
}

// keys are those that the plan lists for a row's query head.
func (o *Attend) keys(p *past, row, head int) (out []pastKey) {
	o.Plan.keys(o.Plan.row(row, head, o.Heads), int(p.pos[row]), func(k int) {
		out = append(out, p.at(row, head*o.Cache.Heads/o.Heads, k))
	})
	return out
}

// vectors are a key and its value, until the next call.
func (p *past) vectors(k pastKey) (key, value []float32) {
	dim := p.c.Dim
	at, ok := p.known[k]
	if !ok {
		if len(p.known) == mostKnown {
			clear(p.known)
			p.numbers = p.numbers[:0]
		}
		at = len(p.numbers)
		p.known[k] = at
		for d := range dim {
			p.numbers = append(p.numbers, p.key(k, d))
		}
		for d := range dim {
			p.numbers = append(p.numbers, p.value(k, d))
		}
	}
	return p.numbers[at : at+dim], p.numbers[at+dim : at+2*dim]
}

// key is dimension d of a key, and value that of its value.
func (p *past) key(k pastKey, d int) float32 {
	if k.pruned != nil {
		return k.pruned.k[d*PageTokens+k.slot]
	}
	return p.keyOf(k.tile, k.slot, d)
}

func (p *past) value(k pastKey, d int) float32 {
	if k.pruned != nil {
		return k.pruned.v[k.slot*p.c.Dim+d]
	}
	return p.valueOf(k.tile, k.slot, d)
}
