package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ollama/ollama/types/model"
)

// noteName is a file in a folder that was pulled, which says what was.
const noteName = ".winnow-pull"

const maxNote = 1 << 20 // bytes

// note says where a folder's files are from.
type note struct {
	Names []string          `json:"names"` // under which it was pulled: "hf.co/org/repo:latest"
	From  string            `json:"from"`  // the repository: "org/repo"
	Files map[string]string `json:"files"` // path within the folder -> digest
}

// readNote reads the note of a folder; false where there is none.
func readNote(dir string) (n note, ok bool) {
	raw, err := readSmall(filepath.Join(dir, noteName), maxNote)
	return n, err == nil && json.Unmarshal(raw, &n) == nil
}

// write puts the note into a folder.
func (n note) write(dir string) error {
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode the note of %s: %w", dir, err)
	}
	return writeWhole(filepath.Join(dir, noteName), raw)
}

// writeWhole makes a file that is there whole or not at all.
func writeWhole(path string, raw []byte) error {
	temp, err := writeTemp(filepath.Dir(path), func(w io.Writer) error {
		_, err := w.Write(raw)
		return err
	})
	if err != nil {
		return err
	}
	return rename(temp, path)
}

// plainName says whether a folder or file of the store with that name is a model that Find finds.
func plainName(name string) bool {
	n := model.ParseName(name)
	return n.IsValid() && n.Model == name
}

// hubName is the hub's name of a repository and a tag, in which the hub itself has one name.
func hubName(n model.Name) string {
	n.Host = hubHosts[0]
	return strings.ToLower(n.String())
}

// pulledFolder finds the folder of a model that was pulled under a name of the hub.
func (s Store) pulledFolder(n model.Name) (string, bool) {
	if !slices.ContainsFunc(hubHosts, func(h string) bool { return strings.EqualFold(h, n.Host) }) {
		return "", false
	}
	entries, err := os.ReadDir(s.Root)
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		if !e.IsDir() || !plainName(e.Name()) {
			continue
		}
		dir := filepath.Join(s.Root, e.Name())
		if about, ok := readNote(dir); ok && slices.Contains(about.Names, hubName(n)) {
			return dir, true
		}
	}
	return "", false
}

// folder brings files of a repository into a folder of the store, which is there when all of them are. Until then they are in .NAME-winnow,
// which the next pull goes on with.
func (a *addition) folder(ctx context.Context, r repository, name string, files []hubFile) (err error) {
	if !plainName(name) {
		return fmt.Errorf("%w: %.100q has to be a plain one, since the model becomes a folder", ErrName, name)
	}
	if path := a.store.manifestPath(model.ParseName(name)); exists(path) {
		return fmt.Errorf("%w: %s, which would hide the folder, is %s", ErrExists, name, path)
	}
	about := note{Names: []string{hubName(r.name)}, From: strings.ToLower(r.String()), Files: map[string]string{}}
	for _, f := range files {
		about.Files[folderPath(f)] = f.digest()
	}
	dir := filepath.Join(a.store.Root, name)
	work := workFolder(dir)
	lock, err := holdFolder(ctx, work)
	if err != nil {
		return err
	}
	defer func() {
		dropEmpty(work)
		err = errors.Join(err, lock.Close())
	}()
	there, err := about.stands(dir)
	if err != nil {
		return err
	}
	if !there {
		if err := about.begin(work); err != nil {
			return err
		}
		about.reuse(dir, work)
		if err := r.bring(ctx, work, files); err != nil {
			return err
		}
		r.link.tell(Progress{Status: "writing manifest"})
		if err := replaceFolder(work, dir); err != nil {
			return err
		}
	}
	r.link.tell(Progress{Status: "saved as " + name})
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// workFolder is where a folder is while it is under way.
func workFolder(dir string) string {
	return filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+suffixPartial)
}

// dropEmpty removes a folder that is under way and holds nothing to go on with.
func dropEmpty(work string) {
	if left, err := os.ReadDir(work); err == nil && (len(left) == 0 || len(left) == 1 && left[0].Name() == noteName) {
		os.RemoveAll(work)
	}
}

// removePulled takes a folder that was pulled out of the store, unless somebody pulls into it. Whoever has its files open keeps them.
func removePulled(ctx context.Context, dir string) (r Removal, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	work := workFolder(dir)
	lock, err := holdFolder(ctx, work)
	if errors.Is(err, context.DeadlineExceeded) {
		return r, &FileError{File: dir, Limit: "somebody pulls into it", Err: ErrInUse}
	}
	if err != nil {
		return r, err
	}
	defer func() {
		dropEmpty(work)
		err = errors.Join(err, lock.Close())
	}()
	bytes, old := weightBytes(dir), work+"-old"
	if err := os.RemoveAll(old); err != nil {
		return r, fileError(old, err)
	}
	if err := os.Rename(dir, old); err != nil {
		return r, fileError(dir, err)
	}
	if err := os.RemoveAll(old); err != nil { // it is no model any more, and the next pull or removal takes what is left
		return Removal{Kept: fileError(old, err)}, nil
	}
	return Removal{Bytes: bytes}, nil
}

// folderPath is where a file of a repository goes in its folder: the parts of a split GGUF lie side by side.
func folderPath(f hubFile) string {
	if _, part := parsePartName(filepath.Base(f.Path)); part {
		return filepath.Base(f.Path)
	}
	return f.Path
}

// holdFolder makes a folder that is under way, or goes on with it, when nobody else does.
func holdFolder(ctx context.Context, work string) (*os.File, error) {
	for {
		if err := os.MkdirAll(work, 0o755); err != nil {
			return nil, fileError(work, err)
		}
		f, err := os.Open(work)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fileError(work, err)
		}
		if err := waitLock(ctx, f, true); err != nil {
			f.Close()
			return nil, err
		}
		here, err := f.Stat()
		there, err2 := os.Stat(work)
		if err == nil && err2 == nil && os.SameFile(here, there) {
			return f, nil
		}
		f.Close() // it has become the model, or is gone
	}
}

// stands says whether the folder holds just these files. One that holds others may be replaced only when it is from the same repository.
func (n note) stands(dir string) (bool, error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	old, ok := readNote(dir)
	if !ok || old.From != n.From {
		return false, &FileError{File: dir, Limit: "is there and was not pulled from " + n.From + "; give the model another name", Err: fs.ErrExist}
	}
	if !maps.Equal(old.Files, n.Files) {
		return false, nil
	}
	if slices.Contains(old.Names, n.Names[0]) {
		return true, nil
	}
	old.Names = append(old.Names, n.Names...)
	return true, old.write(dir)
}

// begin makes a folder that is under way ready for files, and removes those of an earlier pull that have changed since.
func (n note) begin(work string) error {
	if old, ok := readNote(work); ok {
		for file, digest := range old.Files {
			if n.Files[file] != digest && filepath.IsLocal(file) {
				for _, suffix := range []string{"", suffixMap, suffixPartial} {
					os.Remove(filepath.Join(work, file) + suffix)
				}
			}
		}
	}
	return n.write(work)
}

// reuse gives a folder that is under way the files of the one that it will replace, where they are the same. What cannot be linked comes again.
func (n note) reuse(dir, work string) {
	old, _ := readNote(dir)
	for file, digest := range old.Files {
		if n.Files[file] == digest && filepath.IsLocal(file) {
			to := filepath.Join(work, file)
			_ = os.MkdirAll(filepath.Dir(to), 0o755)
			_ = os.Link(filepath.Join(dir, file), to)
		}
	}
}

// bring fetches files into a folder.
func (r repository) bring(ctx context.Context, work string, files []hubFile) error {
	var large []*wanted
	for _, f := range files {
		to := filepath.Join(work, filepath.FromSlash(folderPath(f)))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return fileError(to, err)
		}
		if f.LFS != nil {
			large = append(large, r.want(f, to))
			continue
		}
		if finished(to, f.Size) {
			continue
		}
		raw, err := r.small(ctx, f)
		if err != nil {
			return err
		}
		if err := writeWhole(to, raw); err != nil {
			return err
		}
	}
	return r.link.fetchAll(ctx, large)
}

// replaceFolder gives a finished folder its name, in place of an older one.
func replaceFolder(work, dir string) error {
	old := work + "-old"
	if err := os.RemoveAll(old); err != nil {
		return fileError(old, err)
	}
	err := os.Rename(dir, old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fileError(dir, err)
	}
	replaced := err == nil
	if err := os.Rename(work, dir); err != nil {
		err = fileError(dir, err)
		if replaced {
			err = errors.Join(err, os.Rename(old, dir))
		}
		return err
	}
	if err := os.RemoveAll(old); err != nil {
		return fileError(old, err)
	}
	return nil
}
