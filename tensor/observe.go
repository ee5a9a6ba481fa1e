package tensor

// Observed is d, with see called after every op that has run, on the goroutine of its queue. read copies an operand of that op to host
// memory, as the device keeps it. Ops run one by one and recorded work is built anew each time, so that see misses none.
func Observed(d Device, see func(op Op, read func(m Mat) []byte)) Device {
	return &stepped{Device: d, step: func(q Queue, op Op) error {
		q.Run(op)
		if err := q.Sync(); err != nil {
			return err
		}
		see(op, func(m Mat) []byte { return readMat(q, m) })
		return q.Sync()
	}}
}

// readMat is the matrix's bytes, from wherever they are.
func readMat(q Queue, m Mat) []byte {
	b := make([]byte, m.Bytes())
	q.Read(b, m.Buf, m.Off)
	return b
}

// stepped is a device whose queues hand each op to step, which runs it on the queue of the device within and waits.
type stepped struct {
	Device
	step func(q Queue, op Op) error
}

func (d *stepped) Queue() Queue { return &steppedQueue{within: d.Device.Queue(), step: d.step} }

type steppedQueue struct {
	within Queue
	step   func(q Queue, op Op) error
	err    error // the first failure since the last Sync: step has already cleared it within
}

func (q *steppedQueue) Run(op Op) {
	if q.err == nil {
		q.err = q.step(q.within, op)
	}
}

func (q *steppedQueue) Write(dst Buffer, off int, src []byte) {
	if q.err == nil {
		q.within.Write(dst, off, src)
	}
}

func (q *steppedQueue) Read(dst []byte, src Buffer, off int) {
	if q.err == nil {
		q.within.Read(dst, src, off)
	}
}

// Replay builds every time: what a device repeats by itself would pass unseen.
func (q *steppedQueue) Replay(_ string, build func()) { build() }

// After waits within for the queue that other stands for.
func (q *steppedQueue) After(other Queue) {
	if s, ok := other.(*steppedQueue); ok {
		other = s.within
	}
	q.within.After(other)
}

func (q *steppedQueue) Sync() error {
	err := q.within.Sync()
	if q.err != nil {
		err, q.err = q.err, nil
	}
	return err
}
