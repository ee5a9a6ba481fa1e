//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	packedSuffix = ".packed"
	packedTemp   = ".packed-"
	// staleTemp is how old a file is that nobody will finish: who writes one changes it all the time.
	staleTemp = time.Hour
)

func (p *Packed) path(key packedKey) string {
	return filepath.Join(p.Dir, hex.EncodeToString(key[:])+packedSuffix)
}

// open gives the file of a key; nil = there is none. One that cannot be used is removed.
func (p *Packed) open(key packedKey) (*packedFile, *os.File, error) {
	path := p.path(key)
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() { // a FIFO would block for ever
		return nil, nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if st, err = f.Stat(); err == nil {
		var w *packedFile
		if w, err = parsePacked(f, st.Size(), key); err == nil {
			now := time.Now()
			_ = os.Chtimes(path, now, now) // or it goes earlier than it should
			_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
			return w, f, nil
		}
	}
	f.Close()
	os.Remove(path)
	return nil, nil, fmt.Errorf("%s: %w", path, err)
}

// write keeps weights under a key. Whoever looks for the file finds all of it or nothing.
func (p *Packed) write(key packedKey, weights []keptWeight, stopped func() bool) (err error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return err
	}
	os.Remove(p.path(key)) // it is not what is wanted, or it would not be replaced
	size, _ := packedSize(weights)
	if err := p.room(size); err != nil {
		return err
	}
	temp, err := os.CreateTemp(p.Dir, packedTemp+"*") // for its owner alone
	if err != nil {
		return err
	}
	if err = writePacked(temp, key, weights, stopped); err == nil {
		err = temp.Close()
	} else {
		temp.Close()
	}
	if err == nil {
		err = os.Rename(temp.Name(), p.path(key))
	}
	if err != nil {
		os.Remove(temp.Name())
	}
	return err
}

// room removes files until so many bytes more have room, the ones that were not used longest. A tenth of the disk stays free.
func (p *Packed) room(size int64) error {
	if p.Limit > 0 && size > p.Limit {
		return fmt.Errorf("%d bytes, of at most %d", size, p.Limit)
	}
	files, err := p.files()
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b found) int { return a.used.Compare(b.used) })
	sum := size
	for _, f := range files {
		sum += f.size
	}
	for {
		free, whole, err := disk(p.Dir)
		full := free-size < whole/10
		switch {
		case err != nil:
			return err
		case !full && (p.Limit <= 0 || sum <= p.Limit):
			return nil
		case len(files) == 0:
			return fmt.Errorf("%d bytes would leave less than a tenth of the disk free", size)
		}
		if err := os.Remove(files[0].path); err != nil && !os.IsNotExist(err) {
			return err
		}
		sum -= files[0].size
		files = files[1:]
	}
}

// disk is how many bytes are free for us where a folder is, and how many there are.
func disk(dir string) (free, whole int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// found is a file of the folder.
type found struct {
	path string
	size int64
	used time.Time
}

// files are those of the folder that are its own. What was left half written is removed.
func (p *Packed) files() (out []found, err error) {
	list, err := os.ReadDir(p.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		path := filepath.Join(p.Dir, e.Name())
		digits, ours := strings.CutSuffix(e.Name(), packedSuffix)
		switch key, err := hex.DecodeString(digits); {
		case strings.HasPrefix(e.Name(), packedTemp):
			if time.Since(st.ModTime()) > staleTemp {
				os.Remove(path)
			}
		case ours && err == nil && len(key) == len(packedKey{}):
			out = append(out, found{path, st.Size(), st.ModTime()})
		}
	}
	return out, nil
}
