package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ollama/ollama/types/model"
)

// Suffixes of files under way, which are not ollama's, so that neither takes the other's for its own.
const (
	suffixPartial = "-winnow"      // a blob that is being pulled: sha256-<hex>-winnow
	prefixTemp    = "winnow-temp-" // a file that is being written
)

// addition is a model in the making. While it lasts nobody removes a blob from the store, since it may rely on any; whatever it has
// added by then, a reader of the store sees whole or not at all.
type addition struct {
	store    Store
	lock     *os.File
	added    []string // digests of blobs that were not there before
	replaced []string // digests of the blobs of models whose names it takes
}

// add begins an addition, after whoever removes blobs. Close ends it.
func (s Store) add(ctx context.Context) (*addition, error) {
	lock, err := s.acquire(ctx, false)
	if err != nil {
		return nil, err
	}
	return &addition{store: s, lock: lock}, nil
}

// Close ends the addition. A second Close does nothing.
func (a *addition) Close() { a.lock.Close() }

// blob copies r into the store and gives its layer, without media type. Where want is a digest, other bytes are refused with ErrDigest.
// Nothing is left of a blob that fails.
func (a *addition) blob(r io.Reader, want string) (l layer, err error) {
	dir := filepath.Join(a.store.Root, "blobs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return l, fileError(dir, err)
	}
	sum := &counting{Hash: sha256.New()}
	temp, err := writeTemp(dir, func(w io.Writer) error {
		_, err := io.Copy(io.MultiWriter(w, sum), r)
		return err
	})
	if err != nil {
		return l, err
	}
	l = layer{Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Size: sum.bytes}
	if want != "" && l.Digest != want {
		return l, errors.Join(fmt.Errorf("%w: %s, should be %s", ErrDigest, l.Digest, want), os.Remove(temp))
	}
	path := a.store.blob(l.Digest)
	if st, err := os.Stat(path); err == nil && st.Size() == l.Size {
		return l, os.Remove(temp)
	}
	if err := rename(temp, path); err != nil {
		return l, err
	}
	a.added = append(a.added, l.Digest)
	return l, nil
}

// counting is a hash that knows how much it has seen.
type counting struct {
	hash.Hash
	bytes int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return c.Hash.Write(p)
}

// write makes a model of blobs that are there, in place of the one that has the name.
func (a *addition) write(n model.Name, m manifest) error {
	m.Version, m.MediaType = 2, typeManifest
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the manifest of %s: %w", n.DisplayShortest(), err)
	}
	return a.writeRaw(n, raw)
}

// writeRaw is write with the manifest's own bytes, which have been checked.
func (a *addition) writeRaw(n model.Name, raw []byte) error {
	path, manifests := a.store.manifestPath(n), filepath.Join(a.store.Root, "manifests")
	if err := os.MkdirAll(manifests, 0o755); err != nil {
		return fileError(manifests, err)
	}
	var err error
	for range 100 { // whoever removes the last model of a folder removes the folder, perhaps just before the file would be in it
		if err = os.MkdirAll(filepath.Dir(path), 0o755); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fileError(path, err)
		}
		temp, werr := writeTemp(manifests, func(w io.Writer) error {
			_, err := w.Write(raw)
			return err
		})
		if werr != nil {
			return werr
		}
		if err = rename(temp, path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fileError(path, err)
}

// manifestPath is where the manifest of a valid name is: where there is none but one that differs in case, there, since names are equal
// then.
func (s Store) manifestPath(n model.Name) string {
	path := filepath.Join(s.Root, "manifests", n.Filepath())
	if _, err := os.Stat(path); err == nil {
		return path
	}
	for _, other := range s.manifests() {
		if other.EqualFold(n) {
			return filepath.Join(s.Root, "manifests", other.Filepath())
		}
	}
	return path
}

// writeTemp makes a file of its own in dir, on the disk when it returns. Nothing is left of one that fails.
func writeTemp(dir string, write func(io.Writer) error) (path string, err error) {
	f, err := os.CreateTemp(dir, prefixTemp+"*")
	if err != nil {
		return "", fileError(dir, err)
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(fileError(f.Name(), err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// rename puts a finished file in its place, or removes it.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return errors.Join(fileError(to, err), os.Remove(from))
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return fileError(to, err)
	}
	defer dir.Close()
	_ = dir.Sync() // not all file systems can; the file is there, a crash may only undo that
	return nil
}
