package store_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/store"
)

const tiny = "../model/testdata/qwen3_moe"

// Handles of one path have one mapping, which lasts as long as the last of them.
func TestShelf(t *testing.T) {
	var s store.Shelf
	opened := 0
	open := func(path string) (*store.Checkpoint, error) {
		opened++
		return store.Open(path)
	}
	first, err := s.Open(tiny, open)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Open(tiny, open)
	if err != nil {
		t.Fatal(err)
	}
	name := first.Names()[0]
	a, b := first.Tensors[name].Data, second.Tensors[name].Data
	if &a[0] != &b[0] || opened != 1 {
		t.Errorf("opened %d times", opened)
	}
	want := slices.Clone(a)
	for range 2 { // a second Close does nothing
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(b, want) {
		t.Error("the bytes are gone with the first handle")
	}
	second.Release(b)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	third, err := s.Open(tiny, open)
	if err != nil || opened != 2 {
		t.Fatalf("opened %d times in all, want 2: %v", opened, err)
	}
	if err := third.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(filepath.Join(t.TempDir(), "none"), open); err == nil || errors.Is(err, store.ErrFormat) {
		t.Errorf("what is not there: %v", err)
	}
}

// The fingerprint follows names, shapes and formats, and nothing else.
func TestFingerprint(t *testing.T) {
	c, err := store.Open(tiny)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	whole := c.Fingerprint()
	if len(whole) != 64 || whole != c.Fingerprint() {
		t.Errorf("fingerprint %q, then %q", whole, c.Fingerprint())
	}
	name := c.Names()[0]
	was := c.Tensors[name]
	for what, change := range map[string]func(*store.Tensor){
		"shape":  func(x *store.Tensor) { x.Shape = append([]int{1}, x.Shape...) },
		"format": func(x *store.Tensor) { f := *x.Format; f.Name += "!"; x.Format = &f },
	} {
		x := was
		change(&x)
		if c.Tensors[name] = x; c.Fingerprint() == whole {
			t.Errorf("another %s has the same fingerprint", what)
		}
	}
	x := was
	x.Data = make([]byte, len(x.Data))
	if c.Tensors[name] = x; c.Fingerprint() != whole {
		t.Error("other weights have another fingerprint")
	}
	delete(c.Tensors, name)
	if c.Fingerprint() == whole {
		t.Error("without a tensor it has the same fingerprint")
	}
}
