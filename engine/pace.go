package engine

import "time"

// pace bounds how long those who generate wait while others catch up: the others' step is computed in parts, some layers at a time, and
// between two parts all who generate have a step. How many rows and layers a part has follows what they cost, whatever the model, the
// machine and the depth of a prompt. Decision 010 says why.
type pace struct {
	most  int           // rows of a step, which bound the stride
	alone time.Duration // half the steps in which all generate take less; 0 until there was one
	cost  time.Duration // of a row in a layer lately, in steps of those who catch up; 0 until there was one
}

// What pace aims at.
const (
	gapTime     = 100 * time.Millisecond // between two tokens of one who generates, while others catch up
	patience    = 4.5                    // what such a gap aims at, in steps in which all generate
	leastTime   = 2                      // but at no less than so many, however long those are
	stride      = 128                    // rows of those who catch up, where a layer of so many is not too long
	leastStride = 8
)

// spare is how long a part may take.
func (p *pace) spare() time.Duration {
	if p.alone == 0 {
		return gapTime
	}
	return min(time.Duration(patience*float64(p.alone)), max(gapTime, leastTime*p.alone)) - p.alone
}

// rows is how many those who catch up have in a step of their own beside those who generate.
func (p *pace) rows() int {
	n := stride
	if p.cost > 0 {
		n = max(leastStride, min(stride, int(p.spare()/p.cost)))
	}
	return min(n, p.most)
}

// layers is how many of a step of rows make a part, at least one.
func (p *pace) layers(rows int) int {
	if p.cost == 0 {
		return 1
	}
	return max(1, int(p.spare()/(p.cost*time.Duration(rows))))
}

// plain learns from a step in which all sequences generated. It follows the median, to which a hiccup is one step of many.
func (p *pace) plain(took time.Duration) {
	switch {
	case p.alone == 0:
		p.alone = took
	case took > p.alone:
		p.alone += p.alone / 16
	default:
		p.alone -= p.alone / 16
	}
}

// part learns from a part of so many rows and layers. A quarter of the news counts, of which no more than four times what is known.
func (p *pace) part(took time.Duration, rows, layers int) {
	seen := max(took/time.Duration(rows*layers), 1)
	if p.cost == 0 {
		p.cost = seen
	}
	p.cost += (min(seen, 4*p.cost) - p.cost) / 4
}
