package store

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// shelfOfPages opens a folder of pages, and gives what it says.
func shelfOfPages(t *testing.T, dir string, limit int64) (*Prefixes, *[]string) {
	t.Helper()
	var said []string
	p, err := OpenPrefixes(dir, limit, func(line string) { said = append(said, line) })
	if err != nil {
		t.Fatal(err)
	}
	return p, &said
}

// somePage is a number, tokens and a page that go together.
func somePage(n byte) (id [32]byte, tokens []int32, page []byte) {
	return [32]byte{n, 31: n}, []int32{int32(n), -1, 1 << 30}, bytes.Repeat([]byte{n, 1, 2}, 100)
}

func loads(p *Prefixes, n byte) bool {
	id, tokens, want := somePage(n)
	got := make([]byte, len(want))
	return p.Load(id, 0, tokens, got) && bytes.Equal(got, want)
}

func saved(t *testing.T, p *Prefixes, n byte, depth int) {
	t.Helper()
	id, tokens, page := somePage(n)
	if !p.Save(id, depth, tokens, page) || !p.Has(id) {
		t.Fatalf("page %d is not kept: %+v", n, p.Counts())
	}
}

func TestPrefixesSurviveRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pages")
	p, _ := shelfOfPages(t, dir, 0)
	for n := range byte(3) {
		saved(t, p, n, int(n))
	}
	saved(t, p, 1, 1) // once more
	if err := os.WriteFile(filepath.Join(dir, "mine.txt"), []byte("not a page"), 0o644); err != nil {
		t.Fatal(err)
	}
	again, said := shelfOfPages(t, dir, 0)
	size := pageFileBytes(3, 300)
	if c := again.Counts(); c != (PrefixCounts{Pages: 3, Bytes: 3 * size}) || c != p.Counts() {
		t.Errorf("%+v, before the restart %+v, want 3 pages of %d bytes", c, p.Counts(), size)
	}
	for n := range byte(3) {
		if !loads(again, n) {
			t.Errorf("page %d is not there", n)
		}
	}
	if loads(again, 7) || len(*said) > 0 {
		t.Errorf("a page that nobody kept is there, or something is said: %q", *said)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
		st, err := d.Info()
		if err != nil || strings.HasSuffix(path, "mine.txt") {
			return err
		}
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, st.Mode().Perm(), want)
		}
		return nil
	})
	if _, lost := os.Stat(filepath.Join(dir, "mine.txt")); err != nil || lost != nil {
		t.Error(err, lost)
	}
}

// A file is served only if every byte is as it was written; else it is removed, and said once.
func TestPrefixesTrustNothing(t *testing.T) {
	dir := t.TempDir()
	p, said := shelfOfPages(t, dir, 0)
	saved(t, p, 1, 0)
	id, tokens, page := somePage(1)
	path := p.path(id)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p.files[id], p.counts.Pages, p.counts.Bytes = kept{size: int64(len(b))}, 1, int64(len(b))
	}
	bad := 0
	refused := func(what string) {
		t.Helper()
		bad++
		if _, err := os.Stat(path); loads(p, 1) || p.Has(id) || err == nil && fileThere(path) {
			t.Errorf("%s: it is served, or stays", what)
		}
	}
	for at := range whole { // exhaustive: the file is small
		b := slices.Clone(whole)
		b[at] ^= 0x10
		put(b)
		refused("damaged")
	}
	for n := range len(whole) {
		put(whole[:n])
		refused("cut short")
	}
	put(append(slices.Clone(whole), 0))
	refused("longer")
	put(whole)
	other := slices.Clone(tokens)
	other[2]++
	if p.Load(id, 0, other, slices.Clone(page)) {
		t.Error("a page of other tokens is served")
	}
	put(whole)
	if p.Load(id, 0, tokens, make([]byte, len(page)-1)) {
		t.Error("a page of another size is served")
	}
	if c := p.Counts(); c != (PrefixCounts{Errors: int64(bad) + 2}) || len(*said) != 1 || !strings.Contains((*said)[0], path) {
		t.Errorf("%+v after %d bad files, said %q", c, bad+2, *said)
	}
	put(whole)
	if !loads(p, 1) {
		t.Error("the whole file is not served")
	}
}

func fileThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// What is not used longest goes first, and of one prefix its end.
func TestPrefixesKeepWithinLimit(t *testing.T) {
	size := pageFileBytes(3, 300)
	dir := t.TempDir()
	p, _ := shelfOfPages(t, dir, 4*size+size/2)
	for n := range byte(4) {
		saved(t, p, n, int(n)) // one prefix
	}
	saved(t, p, 10, 0)
	there := func(p *Prefixes) (all []byte) {
		for n := range byte(20) {
			if id, _, _ := somePage(n); p.Has(id) {
				all = append(all, n)
			}
		}
		return all
	}
	if got := there(p); !slices.Equal(got, []byte{0, 1, 2, 10}) {
		t.Errorf("%v stay, want the beginning of the prefix and the new page", got)
	}
	p, _ = shelfOfPages(t, dir, 2*size+size/2) // after a restart, with less room
	if got := there(p); !slices.Equal(got, []byte{0, 10}) || p.Counts().Bytes != 2*size {
		t.Errorf("%v stay: %+v", got, p.Counts())
	}
	now := time.Now().Add(-time.Hour)
	id, _, _ := somePage(10)
	p.files[id] = kept{size, now}
	old, _, _ := somePage(0)
	p.files[old] = kept{size, now.Add(time.Minute)}
	if !loads(p, 10) { // so it is used again
		t.Error("page 10 is not there")
	}
	saved(t, p, 11, 0)
	if got := there(p); !slices.Equal(got, []byte{10, 11}) {
		t.Errorf("%v stay, want the page that was used and the new one", got)
	}
	tiny, _ := shelfOfPages(t, t.TempDir(), size-1)
	if id, tokens, page := somePage(1); tiny.Save(id, 0, tokens, page) || tiny.Counts() != (PrefixCounts{}) {
		t.Errorf("a page larger than the limit is kept: %+v", tiny.Counts())
	}
}

// What a process left half written is not a page, and goes when nobody can be writing it any more.
func TestPrefixesAfterACrash(t *testing.T) {
	dir := t.TempDir()
	p, said := shelfOfPages(t, dir, 0)
	saved(t, p, 1, 0)
	id, _, _ := somePage(1)
	young, old := filepath.Join(filepath.Dir(p.path(id)), tempPrefix+"1"), filepath.Join(filepath.Dir(p.path(id)), tempPrefix+"2")
	for _, f := range []string{young, old} {
		if err := os.WriteFile(f, []byte(pageMagic), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-2 * staleTemp)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	p, _ = shelfOfPages(t, dir, 0)
	if c := p.Counts(); c.Pages != 1 || !fileThere(young) || fileThere(old) {
		t.Errorf("%+v, %v %v", c, fileThere(young), fileThere(old))
	}
	if err := os.RemoveAll(dir); err != nil { // as another process might
		t.Fatal(err)
	}
	if loads(p, 1) || p.Has(id) || len(*said) > 0 || p.Counts().Errors > 0 {
		t.Errorf("a page that is gone: %+v, %q", p.Counts(), *said)
	}
	if saved(t, p, 1, 0); !loads(p, 1) {
		t.Error("a folder that is gone is not made again")
	}
}

// A disk that takes nothing costs pages and no more, and is said once.
func TestPrefixesOfAFullDisk(t *testing.T) {
	dir := t.TempDir()
	p, said := shelfOfPages(t, dir, 0)
	id, tokens, page := somePage(1)
	if err := os.WriteFile(filepath.Dir(p.path(id)), nil, 0o600); err != nil { // a file where a folder should be
		t.Fatal(err)
	}
	for range 3 {
		if p.Save(id, 0, tokens, page) || p.Has(id) {
			t.Error("a page is kept that could not be written")
		}
	}
	if c := p.Counts(); c != (PrefixCounts{Errors: 3}) || len(*said) != 1 {
		t.Errorf("%+v, said %q", c, *said)
	}
	if _, err := OpenPrefixes(filepath.Dir(p.path(id)), 0, nil); err == nil {
		t.Error("a file is taken for a folder")
	}
}

// BenchmarkPrefixes is what a page of 8 MiB costs, about that of a model of some billion weights.
func BenchmarkPrefixes(b *testing.B) {
	p, err := OpenPrefixes(b.TempDir(), 0, func(line string) { b.Error(line) })
	if err != nil {
		b.Fatal(err)
	}
	id, tokens, page := [32]byte{1}, make([]int32, 64), make([]byte, 8<<20)
	for name, f := range map[string]func([32]byte, int, []int32, []byte) bool{"save": p.Save, "load": p.Load} {
		p.Save(id, 0, tokens, page)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(page)))
			for b.Loop() {
				if !f(id, 0, tokens, page) {
					b.Fatal("it is not there")
				}
			}
		})
	}
}
