package main

import (
	"bufio"
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
// Layout: Chrome trace events, a JSON array of complete events ("X") with times in microseconds from the first op. Viewers accept a
// file that lacks its end, so a killed process leaves a readable trace.
type tracer struct {
	mu    sync.Mutex // ops of several queues end at any time
	file  *os.File
	out   *bufio.Writer
	start time.Time
	err   error // the first failure to write; Close reports it
}

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
	Bytes  int64   `json:"bytes"`
	Flops  int64   `json:"flops"`
	GBs    float64 `json:"GB/s"`
	GFlops float64 `json:"GFLOP/s"`
}

func newTracer(path string) (*tracer, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	return &tracer{file: f, out: bufio.NewWriter(f)}, nil
}

// span takes one op. It is called on the goroutine of the op's queue.
func (t *tracer) span(s tensor.Span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	mark := ",\n"
	if t.start.IsZero() {
		t.start, mark = s.Start, "[\n"
	}
	perNano := 1 / max(1, float64(s.Duration.Nanoseconds())) // bytes a nanosecond are gigabytes a second
	raw, err := json.Marshal(traceEvent{
		Name: s.Op, Phase: "X", PID: 1, TID: 1,
		Start: float64(s.Start.Sub(t.start).Nanoseconds()) / 1e3, Took: float64(s.Duration.Nanoseconds()) / 1e3,
		Args: traceArgs{s.Bytes, s.Flops, float64(s.Bytes) * perNano, float64(s.Flops) * perNano},
	})
	if err == nil {
		_, err = t.out.WriteString(mark + string(raw))
	}
	if t.err == nil {
		t.err = err
	}
}

// Close ends the array and the file.
func (t *tracer) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := "\n]\n"
	if t.start.IsZero() {
		end = "[]\n"
	}
	_, err := t.out.WriteString(end)
	if err = errors.Join(t.err, err, t.out.Flush(), t.file.Close()); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}
