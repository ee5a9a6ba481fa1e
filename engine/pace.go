package engine

import "time"

// pace bounds the steps in which some sequences generate and others catch up: how many rows those who catch up share then, the stride,
// follows what rows cost, whatever the model, the machine and the depth of a prompt. Decision 010 says why.
type pace struct {
	most   int           // rows of a step, which bound the stride
	stride int           // rows; all of a step's until a shared step is measured
	alone  time.Duration // half the steps in which all generate take less; 0 until there was one
	row    time.Duration // what a row of those who catch up adds to a step lately; 0 until there was one
}

// What pace aims at.
const (
	stepTime    = 100 * time.Millisecond // of a shared step
	patience    = 5                      // no shared step is longer than so many in which all generate
	leastTime   = 2                      // nor aims at less than so many, however long those are
	firstStride = 64
	leastStride = 8
	tileRows    = 4 // kernels take rows by fours, and by eights where they can
)

// goal is how long a shared step may take.
func (p *pace) goal() time.Duration {
	if p.alone == 0 {
		return stepTime
	}
	return min(patience*p.alone, max(stepTime, leastTime*p.alone))
}

// rows is how many those who catch up have in a step beside those that generate: the stride, or fewer where that makes whole tiles.
func (p *pace) rows(generating int) int {
	if n := p.stride - (generating+p.stride)%tileRows; n >= leastStride {
		return n
	}
	return p.stride
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

// shared learns from a step in which some generated and others caught up by rows.
func (p *pace) shared(took time.Duration, rows int) {
	seen := max(took-p.alone, took/8) / time.Duration(rows)
	if p.row == 0 {
		p.row = seen
	}
	p.row += (min(seen, 4*p.row) - p.row) / 4
	p.stride = int((p.goal() - min(p.alone, p.goal())) / max(p.row, 1))
	p.stride = max(min(leastStride, p.most), min(p.stride, p.most))
}
