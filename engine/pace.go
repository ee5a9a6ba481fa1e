package engine

import "time"

// pace bounds how long those who generate wait while others catch up: the others' step is computed in parts, some blocks of the network at a
// time, and between two parts all who generate have a step. How many rows and blocks a part has follows what they cost, whatever the model,
// the machine and the depth of a prompt. Decision 010 says why. It is of the loop's goroutine.
type pace struct {
	most   int              // rows of a step, which bound the stride
	whole  bool             // a chunk has all the rows that it may: each reads the same experts from disk, however few its rows
	alone  median           // of steps in which all generate, and nobody catches up
	beside median           // of such steps between parts, which find the caches full of others' data
	cost   [2]time.Duration // of a row of those who catch up in an even and in an odd block lately; 0 until there was one
}

// What pace aims at.
const (
	share       = 2.55                   // those who catch up have so many times what the steps between their parts take
	gapTime     = 100 * time.Millisecond // but part and step no more than this together
	leastTime   = 2                      // nor less than so many steps in which all generate, however long those are
	stride      = 96                     // rows of those who catch up, where a block of so many is not too long
	leastStride = 8
)

// spare is how long a part may take: the share of those who catch up, within what a step leaves of the gap, and in any case the time of a step.
func (p *pace) spare() time.Duration {
	alone := p.alone.at
	if alone == 0 {
		return gapTime
	}
	step := max(alone, p.beside.at)
	return max(min(time.Duration(share*float64(step)), gapTime-step), min(alone, max(gapTime, leastTime*alone)-alone))
}

// rows is how many those who catch up have in a step of their own beside those who generate.
func (p *pace) rows() int {
	if p.whole {
		return p.most
	}
	n := stride
	if block := max(p.cost[0], p.cost[1]); block > 0 {
		n = max(leastStride, min(stride, int(p.spare()/block)))
	}
	return min(n, p.most)
}

// step learns how long a step took in which all generate, and whether it stood between parts.
func (p *pace) step(took time.Duration, between bool) {
	if between {
		p.beside.add(took)
	} else {
		p.alone.add(took)
	}
}

// more says whether a part of so many rows, which has taken so long, goes on with block next.
func (p *pace) more(next, rows int, took time.Duration) bool {
	cost := p.cost[next%2]
	return cost > 0 && took+cost*time.Duration(rows) <= p.spare()
}

// block learns how long a block took with so many rows. A quarter of the news counts, of which no more than four times what is known.
func (p *pace) block(i, rows int, took time.Duration) {
	seen, known := max(took/time.Duration(rows), 1), &p.cost[i%2]
	if *known == 0 {
		*known = seen
	}
	*known += (min(seen, 4**known) - *known) / 4
}

// median follows what half the times do not reach, to which a hiccup is one time of many.
type median struct {
	at   time.Duration // 0 until there was a time
	seen int
}

// add counts a time. Each moves the median by a part of it, the more were seen the smaller, down to where it still follows steps that grow
// with what was generated.
func (m *median) add(took time.Duration) {
	move := m.at / time.Duration(min(4+m.seen/2, 32))
	switch m.seen++; {
	case m.at == 0:
		m.at = took
	case took > m.at:
		m.at += move
	default:
		m.at -= move
	}
}
