package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRelease reads a mapped tensor, releases it, and reads it again: the memory goes and the bytes stay.
func TestRelease(t *testing.T) {
	const size = 4 << 20
	g := good()
	g.tensors, g.weights = []testTensor{{"big", []uint64{size / 4}, 0, 0}}, size
	path := filepath.Join(dir(t, map[string]string{"m.gguf": string(g.bytes())}), "m.gguf")
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := c.Tensor("big")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(w.Data)
	before, ok := resident(t, path)
	c.Release(w.Data)
	after, _ := resident(t, path)
	switch {
	case !ok:
		t.Log("no /proc/self/smaps here: what is resident is not tested")
	case before < size || after > size/8:
		t.Errorf("%d bytes of the file resident, %d after they were released", before, after)
	}
	c.Release(w.Data[5:9])
	if !bytes.Equal(w.Data, want) {
		t.Error("released bytes differ")
	}
}

// resident is how many bytes of a mapped file are in memory; false where the system does not tell.
func resident(t *testing.T, path string) (n int, ok bool) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return 0, false
	}
	_, entry, found := strings.Cut(string(maps), path+"\n")
	_, rss, found2 := strings.Cut(entry, "\nRss:")
	if _, err := fmt.Sscan(rss, &n); err != nil || !found || !found2 {
		t.Fatalf("no entry for %s: %v", path, err)
	}
	return n << 10, true
}

// TestReleaseOfMemory releases what no file is behind: it must stay as it is.
func TestReleaseOfMemory(t *testing.T) {
	raw := good().bytes()
	c, err := OpenBytes("mem", raw)
	if err != nil {
		t.Fatal(err)
	}
	c.Release(c.Tensors["a"].Data)
	c.mapped = []mapping{{data: make([]byte, 100)}}
	c.Release(c.Tensors["a"].Data)
	if !bytes.Equal(raw, good().bytes()) {
		t.Error("the bytes differ")
	}
	whole := raw[4:8]
	for _, p := range []struct {
		part []byte
		want bool
	}{{raw[4:8], true}, {raw[5:6], true}, {raw[7:8], true}, {raw[3:5], false}, {raw[7:9], false}, {raw[8:9], false}, {raw[:1], false}, {nil, false}} {
		if got := within(whole, p.part); got != p.want {
			t.Errorf("within(%v): %v", p.part, got)
		}
	}
}

// TestSkip reads every other stripe of a tensor: the stripes that are skipped stay out of memory, and can be read later.
func TestSkip(t *testing.T) {
	const size, stripe = 4 << 20, 40 << 10
	g := good()
	g.tensors, g.weights = []testTensor{{"big", []uint64{size / 4}, 0, 0}}, size
	path := filepath.Join(dir(t, map[string]string{"m.gguf": string(g.bytes())}), "m.gguf")
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := c.Tensor("big")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(w.Data)
	c.Release(w.Data)
	for at := stripe; at+stripe <= size; at += 2 * stripe {
		c.Skip(w.Data[at : at+stripe])
	}
	for at := 0; at < size; at += 2 * stripe {
		if stop := min(at+stripe, size); !bytes.Equal(w.Data[at:stop], want[at:stop]) {
			t.Error("read bytes differ")
		}
	}
	switch n, ok := residentParts(t, path); {
	case !ok:
		t.Log("no /proc/self/smaps here: what is resident is not tested")
	case n > size*5/8:
		t.Errorf("%d bytes of the file resident, half of %d were read", n, size)
	}
	c.Skip(w.Data[:1])
	c.Skip(nil)
	if !bytes.Equal(w.Data, want) {
		t.Error("skipped bytes differ")
	}
}

// residentParts is resident of all parts into which advice has cut a mapping.
func residentParts(t *testing.T, path string) (sum int, ok bool) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return 0, false
	}
	for _, entry := range strings.Split(string(maps), path+"\n")[1:] {
		n := 0
		_, rss, found := strings.Cut(entry, "\nRss:")
		if _, err := fmt.Sscan(rss, &n); err != nil || !found {
			t.Fatalf("no size of a part of %s: %v", path, err)
		}
		sum += n << 10
	}
	return sum, true
}
