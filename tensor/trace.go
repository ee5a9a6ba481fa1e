package tensor

import (
	"reflect"
	"time"

	"github.com/winnow-llm/winnow/quant"
)

// Span is one run of an op.
type Span struct {
	Op           string        // type of the op: "tensor.Linear"
	Weights      *quant.Format // of the largest weight that the op reads, as the device has it; nil where it reads none
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
		s := Span{Op: opName(op), Weights: weightsOf(op), Start: start, Duration: time.Since(start)}
		s.Bytes, s.Flops = op.Cost()
		if err == nil {
			sink(s)
		}
		return err
	}}
}

// weightsOf is the format of an op's largest weight. A single row, a norm's or a bias, is none.
func weightsOf(op Op) (f *quant.Format) {
	in, _ := op.Operands()
	most := 0
	for _, m := range in {
		if m.Present() && m.Name != "" && m.Rows > 1 && m.Bytes() > most {
			f, most = m.Format, m.Bytes()
		}
	}
	return f
}

func opName(op Op) string {
	t := reflect.TypeOf(op)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.String()
}
