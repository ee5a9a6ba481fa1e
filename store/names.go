package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ollama/ollama/types/model"
)

// Store is a folder of models in ollama's layout, which is read and never written. GGUF files and Hugging Face
// directories placed directly in the folder are models too.
//
// Layout: manifests/<host>/<namespace>/<model>/<tag> is the manifest of a model, blobs/sha256-<64 hex> a file that
// manifests name; <name>.gguf and <name>/config.json are models called <name>.
type Store struct{ Root string }

// Entry is one model of a store.
type Entry struct {
	Name     string    // the shortest name that finds it: "qwen3:8b"
	Path     string    // what Open takes; "" when Err is set
	Size     int64     // bytes of all its files
	Modified time.Time // of its manifest, or of the file or directory itself
	Digest   string    // "sha256:" and 64 hex of its manifest; "" for a model without one
	Err      error     // why it cannot be opened, when that shows without opening it
}

// Resolve finds what a command line names: the path of a GGUF file or of a Hugging Face directory, or else a name in the
// store. Names that come from clients go to Find, which never leaves the store.
func (s Store) Resolve(name string) (string, error) {
	if st, err := os.Stat(name); err == nil {
		separated := strings.ContainsRune(filepath.ToSlash(name), '/')
		if st.IsDir() && isHF(name) || !st.IsDir() && (separated || strings.EqualFold(filepath.Ext(name), ".gguf")) {
			return name, nil
		}
	}
	path, err := s.Find(name)
	if errors.Is(err, ErrName) {
		err = fmt.Errorf("%w: %.100q is neither a GGUF file, nor a Hugging Face directory, nor the name of a model", ErrNoModel, name)
	}
	return path, err
}

// Find gives the path that Open takes for a model of the store. ErrName: no model can have the name. ErrNoModel: none
// has it.
func (s Store) Find(name string) (string, error) {
	n := model.ParseName(name)
	if !n.IsValid() {
		return "", fmt.Errorf("%w: %.100q", ErrName, name)
	}
	path, err := s.fromManifest(n)
	if !errors.Is(err, ErrNoModel) {
		return path, err
	}
	if path, ok := s.plain(n); ok {
		return path, nil
	}
	return "", fmt.Errorf("%w: %s in %s", ErrNoModel, n.DisplayShortest(), s.Root)
}

// fromManifest finds the weights of a model that has a manifest: of this very name, or else of one that differs in case.
func (s Store) fromManifest(n model.Name) (string, error) {
	path := filepath.Join(s.Root, "manifests", n.Filepath())
	if _, err := os.Stat(path); err != nil {
		all := s.manifests()
		i := slices.IndexFunc(all, n.EqualFold)
		if i < 0 {
			return "", ErrNoModel
		}
		path = filepath.Join(s.Root, "manifests", all[i].Filepath())
	}
	m, err := s.readManifest(path)
	if err != nil {
		return "", err
	}
	return s.weights(path, m)
}

// plain finds a model placed directly in the folder. It has neither host nor namespace, and no tag but the default.
func (s Store) plain(n model.Name) (string, bool) {
	if d := model.DefaultName(); n.Host != d.Host || n.Namespace != d.Namespace || n.Tag != d.Tag {
		return "", false
	}
	path := filepath.Join(s.Root, n.Model)
	if isHF(path) {
		return path, true
	}
	for _, p := range []string{path, path + ".gguf"} {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && filepath.Ext(p) == ".gguf" {
			return p, true
		}
	}
	return "", false
}

// manifests lists the names that have one. What is no valid name is passed over.
func (s Store) manifests() []model.Name {
	paths, err := fs.Glob(os.DirFS(filepath.Join(s.Root, "manifests")), "*/*/*/*")
	if err != nil {
		panic("winnow: bug: store: " + err.Error())
	}
	var out []model.Name
	for _, p := range paths {
		if n := model.ParseNameFromFilepath(filepath.FromSlash(p)); n.IsValid() {
			out = append(out, n)
		}
	}
	return out
}

// List gives all models of the store by name. One that is damaged says so in its entry. A folder that is not there holds
// none.
func (s Store) List() ([]Entry, error) {
	files, err := os.ReadDir(s.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fileError(s.Root, err)
	}
	var out []Entry
	for _, n := range s.manifests() {
		out = append(out, s.manifestEntry(n))
	}
	for _, f := range files {
		if e, ok := s.plainEntry(f.Name()); ok {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (s Store) manifestEntry(n model.Name) Entry {
	path := filepath.Join(s.Root, "manifests", n.Filepath())
	e := Entry{Name: n.DisplayShortest()}
	st, err := os.Stat(path)
	if err != nil {
		e.Err = fileError(path, err)
		return e
	}
	e.Modified = st.ModTime()
	m, err := s.readManifest(path)
	if err != nil {
		e.Err = err
		return e
	}
	e.Size, e.Digest = m.size(), m.digest
	e.Path, e.Err = s.weights(path, m)
	return e
}

// plainEntry describes a file or directory of the folder; false when it is no model that Find finds.
func (s Store) plainEntry(file string) (Entry, bool) {
	name := strings.TrimSuffix(file, ".gguf")
	n := model.ParseName(name)
	if n.Model != name || !n.IsValid() {
		return Entry{}, false
	}
	path, ok := s.plain(n)
	if !ok || filepath.Base(path) != file {
		return Entry{}, false
	}
	st, err := os.Stat(path)
	if err != nil {
		return Entry{}, false
	}
	e := Entry{Name: name, Path: path, Size: st.Size(), Modified: st.ModTime()}
	if st.IsDir() {
		e.Size = weightBytes(path)
	}
	return e, true
}

// weightBytes sums the safetensors files of a directory.
func weightBytes(dir string) (sum int64) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, f := range files {
		if st, err := os.Stat(filepath.Join(dir, f.Name())); err == nil && filepath.Ext(f.Name()) == ".safetensors" {
			sum += st.Size()
		}
	}
	return sum
}

// isHF says whether a path is a Hugging Face directory.
func isHF(path string) bool {
	st, err := os.Stat(filepath.Join(path, "config.json"))
	return err == nil && st.Mode().IsRegular()
}
