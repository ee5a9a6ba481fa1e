package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/ollama/ollama/types/model"
)

const (
	grace        = time.Hour              // files that nobody names yet are left alone that long after they changed, as ollama does
	partialGrace = 24 * time.Hour         // the same of a pull that was interrupted, which may be taken up again
	lockPatience = 500 * time.Millisecond // how long a removal waits for whoever adds to the store, before it leaves the files to a later one
	maxNesting   = 8                      // folders below manifests; a manifest is four deep
)

var (
	blobNames    = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)
	partialNames = regexp.MustCompile(`^(sha256-[0-9a-f]{64}` + suffixPartial + `)($|[.-])`) // and what is kept beside them
)

// Removal is what became of files that no model needs.
type Removal struct {
	Bytes int64 // of those that are gone
	Kept  error // why some stay for a later removal: ErrInUse, or a damaged model that may need them; nil = none do
}

// Remove takes a model out of the store at once, and then the files that only it named. One that is open in any process stays until a
// removal after that, and so do all while somebody adds to the store or another manifest cannot be read. A folder that was pulled goes as a
// whole. ErrName, ErrNoModel; ErrUnsupported: the model is a file that the user placed; ErrInUse: a folder that somebody pulls into.
func (s Store) Remove(ctx context.Context, name string) (Removal, error) {
	n := model.ParseName(name)
	if !n.IsValid() {
		return Removal{}, fmt.Errorf("%w: %.100q", ErrName, name)
	}
	path := s.manifestPath(n)
	m, damaged := s.readManifest(path)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		if dir, ok := s.plain(n); ok {
			if _, pulled := readNote(dir); pulled {
				return removePulled(ctx, dir)
			}
		}
		return Removal{}, s.nothingStored(n)
	}
	if err != nil {
		return Removal{}, fileError(path, err)
	}
	for dir := filepath.Dir(path); dir != filepath.Join(s.Root, "manifests"); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil { // it holds other models
			break
		}
	}
	if damaged != nil {
		m = manifest{}
	}
	return s.discard(ctx, m.digests()), nil
}

// nothingStored says why there is no manifest to change: no model has the name, or one that is no business of ours.
func (s Store) nothingStored(n model.Name) error {
	if path, ok := s.plain(n); ok {
		limit := "it was placed in the store as it is: copy, move or delete it there"
		return &FileError{File: path, Limit: limit, Err: ErrUnsupported}
	}
	return fmt.Errorf("%w: %s in %s", ErrNoModel, n.DisplayShortest(), s.Root)
}

// Sweep removes what no model names and nobody has open: blobs and unfinished files of ours that have not changed for an hour, and pulls
// that were interrupted a day ago. What it does not know, and ollama's unfinished pulls, it leaves alone.
func (s Store) Sweep(ctx context.Context) Removal { return s.discard(ctx, nil) }

// discard sweeps the store, and takes what the digests name without waiting for it to be old.
func (s Store) discard(ctx context.Context, digests []string) Removal {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	lock, err := s.acquire(ctx, true)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: somebody adds to %s", ErrInUse, s.Root)
	}
	if err != nil {
		return Removal{Kept: err}
	}
	defer lock.Close()
	w := sweep{now: time.Now(), drop: map[string]bool{}, named: map[string]bool{}}
	if w.err = w.read(filepath.Join(s.Root, "manifests"), 0); w.err != nil {
		return Removal{Kept: w.err}
	}
	for _, d := range digests {
		w.drop[filepath.Base(s.blob(d))] = true
	}
	w.clean(filepath.Join(s.Root, "blobs"))
	w.clean(filepath.Join(s.Root, "manifests"))
	return Removal{w.bytes, w.err}
}

// sweep is one removal of files. The store's lock is held alone.
type sweep struct {
	now   time.Time
	named map[string]bool // files of blobs that manifests name
	drop  map[string]bool // files of blobs that may go although they are young
	bytes int64           // that are gone
	err   error           // the first reason why something stays
}

// read notes the blobs of all manifests. One that cannot be read is an error, since it may name any, but for what other programs leave in
// folders under a name that begins with a dot.
func (w *sweep) read(dir string, depth int) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && depth > maxNesting {
		err = &FileError{File: dir, Limit: "folders in folders beyond those of manifests", Err: ErrUnsupported}
	}
	if err != nil {
		return fileError(dir, err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		st, err := os.Stat(path) // it may be a link
		switch {
		case strings.HasPrefix(f.Name(), prefixTemp) || errors.Is(err, fs.ErrNotExist):
			continue
		case err == nil && st.IsDir():
			err = w.read(path, depth+1)
		case err == nil:
			var m manifest
			if m, err = (Store{}).readManifest(path); err == nil {
				for _, d := range m.digests() {
					w.named[filepath.Base(Store{}.blob(d))] = true
				}
			}
		}
		if err != nil && !strings.HasPrefix(f.Name(), ".") && !errors.Is(err, fs.ErrNotExist) {
			return fileError(path, err)
		}
	}
	return nil
}

// clean removes files from one folder.
func (w *sweep) clean(dir string) {
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.keep(fileError(dir, err))
	}
	pulls := changes(files)
	for _, f := range files {
		name, wait := f.Name(), grace
		st, err := f.Info()
		if err != nil || !st.Mode().IsRegular() && st.Mode().Type() != fs.ModeSymlink {
			continue // it is gone, or nothing of ours
		}
		changed := st.ModTime()
		part := partialNames.FindStringSubmatch(name)
		switch {
		case part != nil:
			changed, wait = pulls[part[1]], partialGrace
		case strings.HasPrefix(name, prefixTemp):
		case w.drop[name] && !w.named[name]:
			wait = 0
		case !blobNames.MatchString(name) || w.named[name]:
			continue
		}
		if wait == 0 || w.now.Sub(changed) >= wait {
			w.remove(filepath.Join(dir, name))
		}
	}
}

// changes says when pulls that were interrupted last went on: the files of one go together, or stay.
func changes(files []fs.DirEntry) map[string]time.Time {
	out := map[string]time.Time{}
	for _, f := range files {
		part := partialNames.FindStringSubmatch(f.Name())
		if part == nil {
			continue
		}
		if st, err := f.Info(); err == nil && st.ModTime().After(out[part[1]]) {
			out[part[1]] = st.ModTime()
		}
	}
	return out
}

// remove takes a file that nobody has open. On file systems without locks one that is open goes too, and is there for whoever has it.
func (w *sweep) remove(path string) {
	f, size, err := openRegular(path)
	if err == nil {
		defer f.Close()
		if free, lerr := lockFile(f, true); lerr == nil && !free {
			err = fmt.Errorf("%w: %s", ErrInUse, path)
		}
	}
	if err == nil {
		err = os.Remove(path)
	}
	switch {
	case err == nil:
		w.bytes += size
	case !errors.Is(err, fs.ErrNotExist):
		w.keep(err)
	}
}

func (w *sweep) keep(err error) {
	if w.err == nil {
		w.err = err
	}
}
