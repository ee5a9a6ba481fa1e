package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/winnow-llm/winnow/tensor"
)

// tracer writes spans of ops to a file.
//
// Layout: Chrome trace events, a JSON array of complete events ("X") with times in microseconds from the first op. Every write ends the
// array and the next one overwrites that end, so the file is whole at any time; a killed process leaves all but its last second of work.
type tracer struct {
	mu      sync.Mutex // ops of several queues end at any time
	file    *os.File
	end     int64     // of the events in the file, in bytes: there the array's end is
	pending []byte    // events that are not in the file yet
	written time.Time // when the last ones went there
	start   time.Time // of the first op
	err     error     // the first failure to write; Close reports it
}

const (
	traceOpening = "[\n"
	traceEnding  = "\n]\n"

	// What is kept before it is written: so many bytes, or what came in so long.
	tracePending  = 64 << 10
	traceInterval = time.Second
)

// traceEvent is a span in the words of the format.
type traceEvent struct {
	Name  string    `json:"name"`
	Phase string    `json:"ph"`
	Start float64   `json:"ts"`
	Took  float64   `json:"dur"`
	PID   int       `json:"pid"`
	TID   int       `json:"tid"`
	Args  traceArgs `json:"args"`
}

type traceArgs struct {
	Bytes   int64   `json:"bytes"`
	Flops   int64   `json:"flops"`
	GBs     float64 `json:"GB/s"`
	GFlops  float64 `json:"GFLOP/s"`
	Weights string  `json:"weights,omitempty"` // format of the weights that the op reads
}

func newTracer(path string) (*tracer, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	t := &tracer{file: f, pending: []byte(traceOpening), written: time.Now()}
	if t.write(); t.err != nil {
		return nil, errors.Join(fmt.Errorf("trace: %w", t.err), f.Close())
	}
	return t, nil
}

// span takes one op. It is called on the goroutine of the op's queue.
func (t *tracer) span(s tensor.Span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.start.IsZero() {
		t.start = s.Start
	} else {
		t.pending = append(t.pending, ",\n"...)
	}
	perNano := 1 / max(1, float64(s.Duration.Nanoseconds())) // bytes a nanosecond are gigabytes a second
	raw, err := json.Marshal(traceEvent{
		Name: s.Op, Phase: "X", PID: 1, TID: 1,
		Start: float64(s.Start.Sub(t.start).Nanoseconds()) / 1e3, Took: float64(s.Duration.Nanoseconds()) / 1e3,
		Args: traceArgs{s.Bytes, s.Flops, float64(s.Bytes) * perNano, float64(s.Flops) * perNano, weightsName(s.Weights)},
	})
	if err != nil {
		panic("winnow: bug: trace: " + err.Error()) // numbers and a name
	}
	t.pending = append(t.pending, raw...)
	if now := s.Start.Add(s.Duration); len(t.pending) >= tracePending || now.Sub(t.written) >= traceInterval {
		t.written = now
		t.write()
	}
}

// write moves what is pending to the file, over the array's end, and ends the array anew. After a failure it only forgets.
func (t *tracer) write() {
	n := len(t.pending)
	if t.err == nil {
		_, t.err = t.file.WriteAt(append(t.pending, traceEnding...), t.end)
	}
	t.end += int64(n)
	t.pending = t.pending[:0]
}

// Close writes the last events.
func (t *tracer) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.write()
	if err := errors.Join(t.err, t.file.Close()); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}
