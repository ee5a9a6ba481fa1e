package engine

import "time"

// pace bounds the steps in which some sequences generate and others catch up: how many rows those who catch up share then, the stride,
// follows what steps take, whatever the model, the machine and the depth of a prompt. Decision 010 says why.
type pace struct {
	most   int           // rows of a step, which bound the stride
	stride int           // rows; all of a step's until a step is measured
	alone  time.Duration // what steps take lately in which all generate; 0 until there was one
}

// What pace aims at.
const (
	stepTime    = 100 * time.Millisecond // of a shared step
	patience    = 4                      // no shared step is longer than so many in which all generate
	leastTime   = 2                      // nor aims at less than so many, however long those are
	firstStride = 64
	leastStride = 8
)

// goal is how long a shared step may take.
func (p *pace) goal() time.Duration {
	if p.alone == 0 {
		return stepTime
	}
	return min(patience*p.alone, max(stepTime, leastTime*p.alone))
}

// plain learns from a step in which all sequences generated.
func (p *pace) plain(took time.Duration) {
	if p.alone == 0 {
		p.alone = took
	}
	p.alone += (took - p.alone) / 4
}

// shared learns from a step in which some generated and others caught up. What the first ones cost is not the stride's doing.
func (p *pace) shared(took time.Duration) {
	goal := p.goal()
	spare, used := goal-min(p.alone, goal), max(took-p.alone, took/8, 1)
	rows := float64(p.stride) * min(2, float64(spare)/float64(used))
	p.stride = max(min(leastStride, p.most), min(int(rows), p.most))
}
