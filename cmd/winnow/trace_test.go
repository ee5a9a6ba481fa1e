package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/tensor"
)

// A trace is whole whenever it is looked at, not only after Close.
func TestTraceIsAlwaysWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	read := func() []traceEvent {
		t.Helper()
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var events []traceEvent
		if err := json.Unmarshal(raw, &events); err != nil {
			t.Fatalf("%v in %q", err, raw)
		}
		return events
	}
	tr, err := newTracer(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(); len(got) != 0 {
		t.Errorf("%v before the first op", got)
	}
	start, n := time.Now(), 0
	seen := 0
	for range 3 {
		for range 700 { // more than is kept
			tr.span(tensor.Span{Op: "tensor.Linear", Start: start.Add(time.Duration(n) * time.Millisecond), Duration: time.Microsecond, Bytes: 4096, Flops: 8192})
			n++
		}
		got := read()
		if len(got) <= seen || len(got) > n {
			t.Errorf("%d events in the file after %d, %d before", len(got), n, seen)
		}
		seen = len(got)
	}
	tr.span(tensor.Span{Op: "tensor.Norm", Start: start.Add(time.Hour), Duration: time.Microsecond}) // long after the last write
	if got := read(); len(got) != n+1 {
		t.Errorf("%d events of %d in the file after a pause", len(got), n+1)
	}
	tr.span(tensor.Span{Op: "tensor.Add", Start: start.Add(time.Hour), Duration: time.Microsecond})
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	got := read()
	if len(got) != n+2 || got[n+1].Name != "tensor.Add" || got[1].Start != 1000 || got[1].Took != 1 || got[1].Args.GBs != 4.096 {
		t.Errorf("%d events, second %+v", len(got), got[1])
	}
}
