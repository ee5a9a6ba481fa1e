package attention

// run is tiles that are planned together: neighbours in the batch, of one sequence, whose positions lie between the same multiples of
// some number.
type run struct {
	tile, tiles int // the first tile, and how many there are
	row, rows   int // the first row, and how many there are
	pos         int // of the first row
	seq         int
	knob        float32
}

// pays says whether reading everything costs no more than so many of the keys before the run. Rows and heads that read everything share passes
// over the cache, and lists need time of their own.
func (r run) pays(keys int) bool { return 8*keys >= 5*r.pos }

// reads is how many of the keys before the run are in a list of it.
func (r run) reads(ranges [2]int, blocks, keys []int32) int {
	return ranges[0] + r.pos - ranges[1] + len(blocks)*PageTokens + len(keys)
}

// end is the number of keys that the last query of the run sees.
func (r run) end() int { return r.pos + r.rows }

// runs calls visit for each run of tiles that a selector serves. size is the number of positions between two multiples. The knob is that
// of the run's first tile, or own where the request has none.
func (l *Layout) runs(selector, size int, own float32, visit func(run)) {
	seq, pos := l.Seq.I32(), l.Pos.I32()
	var r run
	l.Tiles.Served(selector, own, func(tile, first, last int, knob float32) {
		s, p := int(seq[first]), int(pos[first])
		if r.tiles > 0 && tile == r.tile+r.tiles && s == r.seq && p/size == r.pos/size {
			r.tiles, r.rows = r.tiles+1, last+1-r.row
			return
		}
		if r.tiles > 0 {
			visit(r)
		}
		r = run{tile: tile, tiles: 1, row: first, rows: last + 1 - first, pos: p, seq: s, knob: knob}
	})
	if r.tiles > 0 {
		visit(r)
	}
}

// writeRun sets the plan rows of a run and a group of heads. The tiles read one list, which has the room of all of them: the plan rows of
// a run's tiles and heads lie one after the other, and each group of heads takes its share of their room. Where little would be left out,
// they read everything.
func (p *Plan) writeRun(r run, group int, ranges [2]int, blocks, keys []int32) {
	counts := [2]int{len(blocks), len(keys)}
	if r.pays(r.reads(ranges, blocks, keys)) {
		ranges, counts = [2]int{}, [2]int{}
	}
	for t := r.tile; t < r.tile+r.tiles; t++ {
		i := t*p.Groups + group
		p.Sink.I32()[i], p.Local.I32()[i] = int32(ranges[0]), int32(ranges[1])
		p.BlockAt.I32()[i], p.BlockN.I32()[i] = int32(p.runAt(r, group, p.BlockRoom())), int32(counts[0])
		p.KeyAt.I32()[i], p.KeyN.I32()[i] = int32(p.runAt(r, group, p.KeyRoom())), int32(counts[1])
	}
	copy(p.Blocks.I32()[p.runAt(r, group, p.BlockRoom()):], blocks)
	copy(p.Keys.I32()[p.runAt(r, group, p.KeyRoom()):], keys)
}

// split makes blocks and single keys of the keys that are chosen, ascending. A page of which more than single are chosen is a block. Where there is no
// room for all of the others, so are those of which most are chosen, of equals the last.
func split(chosen []int32, single, room int) (blocks, keys []int32) {
	var n [PageTokens + 1]int // pages by how many of their keys are chosen
	var pages [][]int32
	for at := 0; at < len(chosen); {
		end := at + 1
		for end < len(chosen) && chosen[end]/PageTokens == chosen[at]/PageTokens {
			end++
		}
		pages = append(pages, chosen[at:end])
		n[end-at]++
		at = end
	}
	most := 0 // so many keys of a page have room in all pages
	for most < single && (most+1)*n[most+1] <= room {
		most++
		room -= most * n[most]
	}
	for _, p := range pages {
		switch {
		case len(p) == most+1 && len(p) <= min(single, room):
			room -= len(p)
			fallthrough
		case len(p) <= most:
			keys = append(keys, p...)
		default:
			blocks = append(blocks, p[0]/PageTokens)
		}
	}
	return blocks, keys
}

// runAt is where a run's list starts for a group of heads; room is that of a plan row.
func (p *Plan) runAt(r run, group, room int) int { return (r.tile*p.Groups + group*r.tiles) * room }
