package attention

// past reads keys and values as the reference of Attend does: pruned or not, by the row's own page.
type past struct {
	o          *Attend
	keyOf      func(tile, slot, d int) float32
	valueOf    func(tile, slot, d int) float32
	unpacked   map[int]*unpacked // by where the tile starts
	seq, pos   []int32
	table, own []int32 // logical page -> page, and page of the cache where pages are pruned
}

// pastKey is a key that a row reads.
type pastKey struct {
	tile, slot int       // of the whole cache
	pruned     *unpacked // the tile, where that is pruned; else nil
}

// past is the past of a batch in host memory.
func (o *Attend) past() *past {
	l, whole := o.Layout, o.Layout.whole(o.Cache)
	p := &past{
		o: o, keyOf: whole.key(), valueOf: whole.value(), unpacked: map[int]*unpacked{},
		seq: l.Seq.I32(), pos: l.Pos.I32(), table: l.Pages[o.Lane].I32(),
	}
	if o.Cache.Pruned != nil {
		p.own = l.Dense.I32()
	}
	return p
}

// keys are those that the plan lists for a row's query head.
func (p *past) keys(row, head int) (out []pastKey) {
	o, c, pos := p.o, p.o.Cache, int(p.pos[row])
	kv, from := head*c.Heads/o.Heads, int(p.seq[row])*o.Layout.Pages[o.Lane].Cols
	o.Plan.keys(o.Plan.row(row, head, o.Heads), pos, func(k int) {
		page := k / PageTokens
		switch {
		case c.Pruned == nil:
			out = append(out, pastKey{tile: o.Layout.tile(c, p.table[from+page], kv), slot: k % PageTokens})
		case page == pos/PageTokens:
			out = append(out, pastKey{tile: c.Tile(p.own[int(p.seq[row])*o.Layout.Dense.Cols+page], kv), slot: k % PageTokens})
		default:
			at := c.Pruned.tile(c, p.table[from+page], kv)
			if p.unpacked[at] == nil {
				p.unpacked[at] = c.Pruned.unpack(c, p.table[from+page], kv)
			}
			out = append(out, pastKey{slot: k % PageTokens, pruned: p.unpacked[at]})
		}
	})
	return out
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
		return k.pruned.v[k.slot*p.o.Cache.Dim+d]
	}
	return p.valueOf(k.tile, k.slot, d)
}
