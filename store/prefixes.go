package store

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Prefixes is a folder of pages of models' caches, each under the number of the prefix that it is the end of. It may lose any of them, and never gives
// one that is not whole. What is not used longest goes when there is too much. Its methods may be called from any goroutine; another process
// may use the folder too, but each counts only what it has seen.
type Prefixes struct {
	dir   string
	limit int64             // bytes of files; 0 = none
	log   func(line string) // is told of the first failure of a kind

	mu     sync.Mutex
	files  map[[32]byte]kept
	counts PrefixCounts
	said   map[string]bool
}

// kept is what is known of a file.
type kept struct {
	size int64
	used time.Time // when it was needed last; of later pages of a prefix earlier, see useTime
}

// PrefixCounts is what is in a folder of pages, and what went wrong.
type PrefixCounts struct {
	Pages  int
	Bytes  int64 // of files
	Errors int64 // files that were damaged or could not be read or written
}

const (
	pageSuffix = ".page"
	tempPrefix = ".page-"
	// staleTemp is how old a file is that nobody will finish.
	staleTemp = time.Hour
	// slack is what is left of the limit when files had to go, so that not each new one makes another go.
	slack = 0.95
)

// OpenPrefixes looks at what a folder holds, and makes it if it is not there. Files that are not its own are left alone.
func OpenPrefixes(dir string, limit int64, log func(line string)) (*Prefixes, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fileError(dir, err)
	}
	p := &Prefixes{dir: dir, limit: limit, log: log, files: map[[32]byte]kept{}, said: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && path == dir:
			return err
		case err != nil: // not ours to read
			return fs.SkipDir
		case d.IsDir() && path != dir && (filepath.Dir(path) != filepath.Clean(dir) || len(d.Name()) != 2):
			return fs.SkipDir
		case d.Type().IsRegular():
			p.found(path, d)
		}
		return nil
	})
	if err != nil {
		return nil, fileError(dir, err)
	}
	p.shrink(0)
	return p, nil
}

// found takes a file of the folder into the books, and removes it if it was left half written.
func (p *Prefixes) found(path string, d fs.DirEntry) {
	st, err := d.Info()
	if err != nil {
		return // it has just gone
	}
	if strings.HasPrefix(d.Name(), tempPrefix) && time.Since(st.ModTime()) > staleTemp {
		os.Remove(path)
	}
	if id, ok := pageID(d.Name()); ok && path == p.path(id) {
		p.files[id] = kept{st.Size(), st.ModTime()}
		p.counts.Pages++
		p.counts.Bytes += st.Size()
	}
}

// pageID is the number in a file's name.
func pageID(name string) (id [32]byte, ok bool) {
	digits, ours := strings.CutSuffix(name, pageSuffix)
	b, err := hex.DecodeString(digits)
	if !ours || err != nil || len(b) != len(id) {
		return id, false
	}
	return [32]byte(b), true
}

func (p *Prefixes) path(id [32]byte) string {
	name := hex.EncodeToString(id[:])
	return filepath.Join(p.dir, name[:2], name+pageSuffix)
}

// Counts is what the folder holds now.
func (p *Prefixes) Counts() PrefixCounts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// Has says whether there is a page under a number.
func (p *Prefixes) Has(id [32]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.files[id]
	return ok
}

// Load reads the page that has depth others before it and holds tokens. It says whether it was there, whole; a file that is not what it should be is
// removed.
func (p *Prefixes) Load(id [32]byte, depth int, tokens []int32, page []byte) bool {
	path := p.path(id)
	err := readPage(path, id, tokens, page)
	now := useTime(depth)
	if err == nil {
		os.Chtimes(path, now, now) // or it goes earlier than it should
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.files[id]
	if err == nil {
		if f.used = now; ok {
			p.files[id] = f
		}
		return true
	}
	p.drop(id)
	switch {
	case errors.Is(err, ErrPage):
		os.Remove(path)
		p.failed("a page is removed that cannot be used", err)
	case !errors.Is(err, fs.ErrNotExist): // which another process may have removed
		p.failed("a page cannot be read", err)
	}
	return false
}

// Save keeps a page, and says whether it could.
func (p *Prefixes) Save(id [32]byte, depth int, tokens []int32, page []byte) bool {
	size := pageFileBytes(len(tokens), len(page))
	if p.limit > 0 && size > p.limit {
		return false
	}
	p.shrink(size)
	now := useTime(depth)
	err := writePage(p.path(id), now, pageFile{id, tokens, page})
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed("a page is not kept", err)
		return false
	}
	p.drop(id)
	p.files[id] = kept{size, now}
	p.counts.Pages++
	p.counts.Bytes += size
	return true
}

// shrink makes room for so many bytes.
func (p *Prefixes) shrink(more int64) {
	for _, id := range p.oldest(more) { // Has need not wait for this
		if err := os.Remove(p.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.mu.Lock()
			p.failed("a page cannot be removed", err)
			p.mu.Unlock()
		}
	}
}

// oldest takes the pages out of the books that have to go for so many bytes.
func (p *Prefixes) oldest(more int64) [][32]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit <= 0 || p.counts.Bytes+more <= p.limit {
		return nil
	}
	ids := slices.SortedFunc(maps.Keys(p.files), func(a, b [32]byte) int {
		return cmp.Or(p.files[a].used.Compare(p.files[b].used), slices.Compare(a[:], b[:]))
	})
	n := 0
	for n < len(ids) && p.counts.Bytes+more > int64(slack*float64(p.limit)) {
		p.drop(ids[n])
		n++
	}
	return ids[:n]
}

// drop takes a page out of the books.
func (p *Prefixes) drop(id [32]byte) {
	if f, ok := p.files[id]; ok {
		delete(p.files, id)
		p.counts.Pages--
		p.counts.Bytes -= f.size
	}
}

// failed counts a failure, and tells of the first one of its kind.
func (p *Prefixes) failed(what string, err error) {
	p.counts.Errors++
	if !p.said[what] {
		p.said[what] = true
		p.log(fmt.Sprintf("prefix cache: %s; further ones are counted: %v", what, err))
	}
}

// useTime is when a page counts as used that is used now. One that has others before it counts as used a second earlier for each, so that of a prefix
// the end goes first: without its beginning it is worth nothing.
func useTime(depth int) time.Time { return time.Now().Add(-time.Duration(depth) * time.Second) }
