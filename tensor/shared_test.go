package tensor_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// copying is a device that copies what it loads, and counts.
type copying struct {
	tensor.Device
	mu           sync.Mutex
	loads, frees int
	err          error
}

func (d *copying) Load(w tensor.Mat) (tensor.Mat, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return tensor.Mat{}, d.err
	}
	d.loads++
	return tensor.HostMat(w.Name, w.Format, w.Rows, w.Cols, append([]byte(nil), w.Raw()...)), nil
}

func (d *copying) Free(tensor.Buffer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frees++
}

func TestShared(t *testing.T) {
	within := &copying{Device: tensor.Reference()}
	d := tensor.Shared(within)
	file := make([]byte, 64)
	mapped := func(lo, hi, cols int) tensor.Mat {
		m := tensor.HostMat("w", quant.F32, (hi-lo)/4/cols, cols, file[lo:hi])
		m.Buf = tensor.NewMapped(file[lo:hi])
		return m
	}
	load := func(w tensor.Mat) tensor.Mat {
		t.Helper()
		m, err := d.Load(w)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b := load(mapped(0, 32, 4)), load(mapped(0, 32, 4))
	if a.Buf != b.Buf || within.loads != 1 {
		t.Errorf("the same bytes are loaded %d times", within.loads)
	}
	for name, w := range map[string]tensor.Mat{
		"others": mapped(32, 64, 4), "fewer": mapped(0, 16, 4), "of another shape": mapped(0, 32, 2), "not mapped": tensor.HostMat("w", quant.F32, 2, 4, file[:32]),
	} {
		if m := load(w); m.Buf == a.Buf {
			t.Errorf("bytes that are %s are taken for the same", name)
		} else {
			d.Free(m.Buf)
		}
	}
	if within.frees != 4 {
		t.Errorf("%d frees of 4", within.frees)
	}
	d.Free(a.Buf)
	if within.frees != 4 {
		t.Error("freed while somebody has it")
	}
	if d.Free(b.Buf); within.frees != 5 {
		t.Error("not freed with the last who had it")
	}
	within.loads = 0
	if c := load(mapped(0, 32, 4)); within.loads != 1 {
		t.Error("not loaded again")
	} else {
		d.Free(c.Buf)
	}
	own, err := d.Alloc(8)
	if err != nil {
		t.Fatal(err)
	}
	if d.Free(own); within.frees != 7 {
		t.Error("other memory is not freed")
	}
	within.err = errors.New("full")
	if _, err := d.Load(mapped(0, 32, 4)); !errors.Is(err, within.err) {
		t.Errorf("got %v, want %v", err, within.err)
	}
	in := tensor.Shared(tensor.Reference())
	w := mapped(0, 32, 4)
	if m, err := in.Load(w); err != nil || m.Buf != w.Buf {
		t.Errorf("what a device uses in place becomes %v: %v", m, err)
	}
}

// Models that start and end together share what both have.
func TestSharedTogether(t *testing.T) {
	within := &copying{Device: tensor.Reference()}
	d := tensor.Shared(within)
	file := make([]byte, 64)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				w := tensor.HostMat("w", quant.F32, 4, 4, file)
				w.Buf = tensor.NewMapped(file)
				m, err := d.Load(w)
				if err != nil {
					t.Error(err)
					return
				}
				d.Free(m.Buf)
			}
		})
	}
	wg.Wait()
	if within.loads != within.frees {
		t.Errorf("%d loads, %d frees", within.loads, within.frees)
	}
}
