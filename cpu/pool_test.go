//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"runtime"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/tensor"
)

// Many more threads than cores, several devices and several queues a device: every list gives what it should, and none is stuck.
func TestCrowdedPool(t *testing.T) {
	const rounds, rows, dim = 60, 64, 1024
	var wg gosync.WaitGroup
	for _, v := range variants(t) {
		for _, threads := range []int{1, 2, 9} {
			d := open(t, v, threads)
			for range 2 {
				q, x, y := d.Queue(), f32(t, d, rows, dim, nil), f32(t, d, rows, dim, nil)
				for i := range x.F32() {
					x.F32()[i] = 1
				}
				wg.Go(func() {
					for round := range rounds {
						for range 5 {
							q.Run(&tensor.Add{X: x, Y: y})
						}
						if err := q.Sync(); err != nil {
							t.Error(err)
						}
						if round%20 == 0 {
							time.Sleep(time.Millisecond) // long enough for the workers to fall asleep
						}
					}
					for i, got := range y.F32() {
						if got != 5*rounds {
							t.Errorf("%s, %d threads: y[%d] = %g", v, threads, i, got)
							return
						}
					}
				})
			}
		}
	}
	wg.Wait()
}

// A list may hold more ops than fit at once, and Run takes no memory of the Go heap.
func TestLongList(t *testing.T) {
	for _, v := range variants(t) {
		d := open(t, v, 2)
		q, op := d.Queue(), &tensor.Add{X: f32(t, d, 1, 16, []float32{1}), Y: f32(t, d, 1, 16, nil)}
		if n := testing.AllocsPerRun(10, func() {
			for range 2*listOps + 3 {
				q.Run(op)
			}
		}); n > 0 {
			t.Errorf("%s: %g allocations", v, n)
		}
		finish(t, q)
		if got, want := op.Y.F32()[0], float32(11*(2*listOps+3)); got != want {
			t.Errorf("%s: %g, want %g", v, got, want)
		}
	}
}

func TestVariants(t *testing.T) {
	for _, c := range []struct{ variant, arch string }{{"sse", ""}, {"avx512", "amd64"}, {"avx2", "amd64"}, {"neon", "arm64"}, {"dotprod", "arm64"}} {
		complaint := "want" // another machine's
		if c.arch == runtime.GOARCH {
			complaint = "lacks"
		}
		d, err := New(Options{Variant: c.variant, Threads: 1})
		switch {
		case err == nil && d.Name() != "cpu "+c.variant:
			t.Errorf("%s: %s", c.variant, d.Name())
		case err == nil:
			if err := d.(*device).Close(); err != nil {
				t.Error(err)
			}
		case !strings.Contains(err.Error(), complaint) || !strings.Contains(err.Error(), c.variant):
			t.Errorf("%s: %v", c.variant, err)
		}
	}
	if d, err := New(Options{Variant: "go"}); err != nil || d.Name() != "go" {
		t.Error(d, err)
	}
}

// What is freed goes back to the system, buffers do not overlap, and each keeps its bytes when its neighbours are freed.
func TestHeap(t *testing.T) {
	var h heap
	var all []*memory
	for i := range 200 {
		m, err := h.alloc(i * 4001)
		if err != nil {
			t.Fatal(err)
		}
		for j := range m.bytes {
			if m.bytes[j] != 0 {
				t.Fatalf("buffer %d is not zeroed", i)
			}
			m.bytes[j] = 1
		}
		all = append(all, m)
	}
	chunks := map[*chunk]bool{}
	for i, m := range all {
		chunks[m.chunk] = true
		if i%2 == 0 {
			h.free(m)
		}
	}
	for i := 1; i < len(all); i += 2 {
		for _, b := range all[i].bytes {
			if b != 1 {
				t.Fatalf("buffer %d lost bytes to what was freed beside it", i)
			}
		}
		h.free(all[i])
	}
	for c := range chunks {
		if c.mapped != nil && c != h.current {
			t.Error("a chunk without buffers is still mapped")
		}
	}
}
