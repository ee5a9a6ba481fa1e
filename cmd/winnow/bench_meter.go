package main

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"github.com/winnow-llm/winnow/tensor"
)

// meter is a device that adds up what ops cost while it is asked to; at other times it costs nothing. While it counts, each op is waited
// for: what an op of experts costs is known only when its plan is there.
type meter struct {
	tensor.Device
	counting     atomic.Bool
	bytes, flops atomic.Int64
}

func (m *meter) start() {
	m.bytes.Store(0)
	m.flops.Store(0)
	m.counting.Store(true)
}

func (m *meter) stop() (bytes, flops int64) {
	m.counting.Store(false)
	return m.bytes.Load(), m.flops.Load()
}

func (m *meter) Queue() tensor.Queue { return &meterQueue{Queue: m.Device.Queue(), meter: m} }

type meterQueue struct {
	tensor.Queue
	meter *meter
	err   error // the first failure that counting saw and the queue within has forgotten
}

func (q *meterQueue) Run(op tensor.Op) {
	q.Queue.Run(op)
	if !q.meter.counting.Load() || q.err != nil {
		return
	}
	if q.err = q.Queue.Sync(); q.err == nil {
		bytes, flops := op.Cost()
		q.meter.bytes.Add(bytes)
		q.meter.flops.Add(flops)
	}
}

func (q *meterQueue) After(other tensor.Queue) {
	if o, ok := other.(*meterQueue); ok {
		other = o.Queue
	}
	q.Queue.After(other)
}

func (q *meterQueue) Sync() error {
	err := q.Queue.Sync()
	if q.err != nil {
		err, q.err = q.err, nil
	}
	return err
}

// readBandwidth is how many gigabytes a second this machine reads from memory with some threads: the best of a few passes over more than
// caches hold.
func readBandwidth(threads int) float64 {
	const each, passes = 256 << 20, 4
	parts := make([][]byte, threads)
	run := func(work func(i int)) time.Duration {
		var all sync.WaitGroup
		started := time.Now()
		for i := range parts {
			all.Go(func() { work(i) })
		}
		all.Wait()
		return time.Since(started)
	}
	run(func(i int) { parts[i] = bytes.Repeat([]byte{0xAA}, each) }) // pages that nobody wrote to are all the same one
	best := 0.0
	for range passes {
		took := run(func(i int) {
			if bytes.IndexByte(parts[i], 0) >= 0 { // a search in vain reads everything, with vector instructions
				panic("winnow: bug: bench: a zero where none was written")
			}
		})
		best = max(best, float64(threads*each)/took.Seconds()/1e9)
	}
	return best
}
