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

// Store is a folder of models in ollama's layout, which several processes may read and change at once. GGUF files, whole or split,
// and Hugging Face directories placed directly in the folder are models too; these are read only.
//
// Layout: manifests/<host>/<namespace>/<model>/<tag> is the manifest of a model, blobs/sha256-<64 hex> a file that
// manifests name; both appear whole, by renaming. <name>.gguf, <name>-00001-of-00002.gguf and its like, a directory <name> of such files,
// and <name>/config.json are models called <name>; such a directory that was pulled holds a file .winnow-pull, which says from where.
// Under way are files that begin with "winnow-temp-" or end in "-winnow" or "-winnow.map", and directories .<name>-winnow.
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

// Resolve finds what a command line names: the path of a GGUF file or of a directory that Open takes, or else a name in the
// store. Names that come from clients go to Find, which never leaves the store.
func (s Store) Resolve(name string) (string, error) {
	if st, err := os.Stat(name); err == nil {
		separated := strings.ContainsRune(filepath.ToSlash(name), '/')
		if st.IsDir() && isModel(name) || !st.IsDir() && (separated || strings.EqualFold(filepath.Ext(name), ".gguf")) {
			return name, nil
		}
	}
	path, err := s.Find(name)
	if errors.Is(err, ErrName) {
		err = fmt.Errorf("%w: %.100q is neither a GGUF file, nor a directory with a model, nor the name of a model", ErrNoModel, name)
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
	_, e, err := s.stored(n)
	return e.Path, err
}

// stored reads the manifest of a valid name and looks for its weights. ErrNoModel: there is none. The entry holds what is known of it, also
// after another error.
func (s Store) stored(n model.Name) (m manifest, e Entry, err error) {
	path := s.manifestPath(n)
	for range 3 { // somebody may replace it between a look at the manifest and one at its blobs
		before, gone := os.Stat(path)
		if gone != nil {
			return manifest{}, Entry{}, fmt.Errorf("%w: %s in %s", ErrNoModel, n.DisplayShortest(), s.Root)
		}
		e = Entry{Name: s.nameOf(path).DisplayShortest(), Modified: before.ModTime()}
		if m, err = s.readManifest(path); err == nil {
			e.Size, e.Digest = m.size(), m.digest
			e.Path, err = s.weights(path, m)
		}
		if after, gone := os.Stat(path); err == nil || gone == nil && os.SameFile(before, after) {
			return m, e, err
		}
	}
	return m, e, err
}

// nameOf is the name of a model by the path of its manifest.
func (s Store) nameOf(path string) model.Name {
	rest, err := filepath.Rel(filepath.Join(s.Root, "manifests"), path)
	if err != nil {
		panic("winnow: bug: store: " + err.Error())
	}
	return model.ParseNameFromFilepath(rest)
}

// plain finds a model that is a file or a directory of the folder: one pulled from the hub by the name that it has there, any other by its own,
// with neither host nor namespace, and no tag but the default.
func (s Store) plain(n model.Name) (string, bool) {
	if path, ok := s.pulledFolder(n); ok {
		return path, true
	}
	if d := model.DefaultName(); n.Host != d.Host || n.Namespace != d.Namespace || n.Tag != d.Tag {
		return "", false
	}
	path := filepath.Join(s.Root, n.Model)
	if isModel(path) {
		return path, true
	}
	for _, p := range slices.Concat([]string{path, path + ".gguf"}, splits(path)) {
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
		_, e, err := s.stored(n)
		if errors.Is(err, ErrNoModel) {
			continue
		}
		e.Err = err
		out = append(out, e)
	}
	for _, f := range files {
		if e, ok := s.placed(f.Name()); ok {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func plainEntry(name, path string) Entry {
	st, err := os.Stat(path)
	if err != nil {
		return Entry{Name: name, Err: fileError(path, err)}
	}
	return Entry{Name: name, Path: path, Size: weightBytes(path), Modified: st.ModTime()}
}

// placed describes a file or directory of the folder; false when it is no model that Find finds.
func (s Store) placed(file string) (Entry, bool) {
	name := ModelName(file)
	n := model.ParseName(name)
	if n.Model != name || !n.IsValid() {
		return Entry{}, false
	}
	path, ok := s.plain(n)
	if !ok || filepath.Base(path) != file {
		return Entry{}, false
	}
	e := plainEntry(name, path)
	return e, e.Err == nil
}

// ModelName is what a model is called by its path: the last part, without .gguf and without the number of a split file.
func ModelName(path string) string {
	base := filepath.Base(path)
	if p, ok := parsePartName(base); ok {
		return p.stem
	}
	if ext := filepath.Ext(base); strings.EqualFold(ext, ".gguf") {
		base = strings.TrimSuffix(base, ext)
	}
	return base
}

// splits lists the files NAME-00001-of-00002.gguf and so on of a path that ends in NAME. A name of a model holds nothing that Glob
// reads in its own way.
func splits(path string) (out []string) {
	dir, name := filepath.Split(path)
	files, err := fs.Glob(os.DirFS(filepath.Clean(dir)), name+"-?????-of-?????.gguf")
	if err != nil {
		panic("winnow: bug: store: " + err.Error())
	}
	for _, f := range files {
		if p, ok := parsePartName(f); ok && p.stem == name {
			out = append(out, filepath.Join(dir, f))
		}
	}
	return out
}

// weightBytes sums the files with the weights of a model in the folder: safetensors or the parts of a split GGUF in a directory, the
// file at path, or the set that it is one of.
func weightBytes(path string) (sum int64) {
	files := []string{path}
	if entries, err := os.ReadDir(path); err == nil {
		files = nil
		for _, e := range entries {
			if _, part := parsePartName(e.Name()); part || filepath.Ext(e.Name()) == ".safetensors" {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
	} else if p, part := parsePartName(filepath.Base(path)); part {
		files = splits(filepath.Join(filepath.Dir(path), p.stem))
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			sum += st.Size()
		}
	}
	return sum
}

// isModel says whether a path is a directory that Open takes.
func isModel(path string) bool {
	part, _ := splitIn(path) // one with two models is a model with an error
	return part != "" || isHF(path)
}

// isHF says whether a path is a Hugging Face directory.
func isHF(path string) bool {
	st, err := os.Stat(filepath.Join(path, "config.json"))
	return err == nil && st.Mode().IsRegular()
}
