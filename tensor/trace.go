package tensor

import (
	"reflect"
	"time"
)

// Span is one run of an op.
type Span struct {
	Op           string // type of the op: "tensor.Linear"
	Start        time.Time
	Duration     time.Duration
	Bytes, Flops int64 // from the op's Cost
}

// Traced is d, with a span for every op sent to sink, on the goroutine of its queue. Each op is waited for, so its time is its own;
// the whole is slower than without by the overlap that is lost.
func Traced(d Device, sink func(Span)) Device {
	return &stepped{Device: d, step: func(q Queue, op Op) error {
		if err := q.Sync(); err != nil { // what was written before the op is not part of it
			return err
		}
		start := time.Now()
		q.Run(op)
		err := q.Sync()
		s := Span{Op: opName(op), Start: start, Duration: time.Since(start)}
		s.Bytes, s.Flops = op.Cost()
		if err == nil {
			sink(s)
		}
		return err
	}}
}

func opName(op Op) string {
	t := reflect.TypeOf(op)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.String()
}
