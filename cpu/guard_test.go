//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// end says at which end of a buffer its guard page touches.
type end string

const (
	front end = "front"
	back  end = "back"
)

// variants are those that this machine can run, or the emulation.
func variants(t testing.TB) []string {
	var can []string
	for _, v := range []string{"avx2", "avx512", "amx", "neon", "dotprod"} {
		if _, err := choose(v); err != nil {
			t.Logf("not tested: %v", err)
			continue
		}
		can = append(can, v)
	}
	return can
}

func open(t testing.TB, variant string, threads int) *device {
	t.Helper()
	d, err := New(Options{Variant: variant, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.(*device).Close(); err != nil {
			t.Error(err)
		}
	})
	return d.(*device)
}

// guarded opens a device whose buffers each stand between two pages that may not be touched, against one of them.
func guarded(t testing.TB, variant string, threads int, e end) *device {
	d := open(t, variant, threads)
	var mapped [][]byte
	t.Cleanup(func() {
		for _, b := range mapped { // a process may have 65,530 mappings
			if err := unix.Munmap(b); err != nil && !errors.Is(err, unix.EINVAL) { // which says that it was freed
				t.Error(err)
			}
		}
	})
	d.place = func(bytes int) (*memory, error) {
		page := os.Getpagesize()
		size := (bytes + page - 1) / page * page
		b, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return nil, err
		}
		mapped = append(mapped, b)
		if size > 0 {
			if err := unix.Mprotect(b[page:page+size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
				return nil, err
			}
		}
		at := page
		if e == back {
			at = page + size - bytes
		}
		return &memory{bytes: b[at : at+bytes : at+bytes], chunk: &chunk{mapped: b, live: 1}}, nil
	}
	return d
}

// f32 uploads values.
func f32(t testing.TB, d tensor.Device, rows, cols int, v []float32) tensor.Mat {
	t.Helper()
	m, err := tensor.NewMat(d, quant.F32, rows, cols)
	if err != nil {
		t.Fatal(err)
	}
	copy(m.F32(), v)
	return m
}

// count uploads a number of rows in use.
func count(t testing.TB, d tensor.Device, n int) tensor.Mat {
	t.Helper()
	m, err := tensor.NewMat(d, quant.I32, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	m.I32()[0] = int32(n)
	return m
}

func loaded(t testing.TB, d tensor.Device, w tensor.Mat) tensor.Mat {
	t.Helper()
	m, err := d.Load(w)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func finish(t testing.TB, q tensor.Queue) {
	t.Helper()
	if err := q.Sync(); err != nil {
		t.Fatal(fmt.Errorf("sync: %w", err))
	}
}
