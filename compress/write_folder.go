package compress

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
)

var (
	expertTensors = regexp.MustCompile(`^(.*\blayers\.(\d{1,4})\.(?:[^.]+\.)*?)experts\.(.+)$`)
	singleTensors = regexp.MustCompile(`^(\d{1,4})\.(.+)$`)
	otherWeights  = regexp.MustCompile(`(?i)\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|onnx|gguf)$`) // of the model as it was
)

const indexFile = "model.safetensors.index.json"

// routerTensors have a row a router row; they stand where the experts do. The first ones are the router itself.
var routerTensors = []string{"gate.weight", "router.weight", "gate.wg.weight", "router.layer.weight",
	"gate.bias", "router.bias", "gate.e_score_correction_bias", "e_score_correction_bias", "expert_bias"}

const routerWeights = 4 // of routerTensors

// folder is a Hugging Face model that is made smaller.
type folder struct {
	c      *store.Checkpoint
	config *config
	prefix map[int]string // by layer: what the names of its experts' and its router's tensors begin with
	all    map[int]*slicing
}

// readFolder finds the layers of experts of a folder.
func readFolder(c *store.Checkpoint) (*folder, map[int]*expertLayer, error) {
	f := &folder{c: c, prefix: map[int]string{}}
	var err error
	if f.config, err = readConfig(c.Files["config.json"]); err != nil {
		return nil, nil, err
	}
	layers, err := f.layers()
	return f, layers, err
}

func applyFolder(ctx context.Context, c *store.Checkpoint, o *moe.Overlay, w *Writing) error {
	f, layers, err := readFolder(c)
	if err != nil {
		return err
	}
	if f.all, err = sliced(layers, o, w.Merging); err != nil {
		return err
	}
	if q := f.config.fields[quantizationField]; count(f.all, 0).changed && bytes.Contains(q, []byte("experts")) {
		return badConfig("%s names experts by numbers that others would get", quantizationField)
	}
	if w.For == Anyone {
		if err := interoperable(f.all, func(int) bool { return false }); err != nil {
			return err
		}
	}
	return newFolder(w.Out, func(dir string) error {
		where, err := f.write(ctx, dir, f.tensor, w.See)
		if err != nil {
			return err
		}
		made, err := f.describe(dir, o.Method, where)
		if err != nil {
			return err
		}
		return f.others(ctx, dir, made)
	})
}

// layers finds the layers of experts by the names of their tensors, and how many experts are there.
func (f *folder) layers() (map[int]*expertLayer, error) {
	counts := map[int]int{}
	for _, name := range f.c.Names() {
		m := expertTensors.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		layer, err := strconv.Atoi(m[2])
		if err != nil || layer >= layerLimit {
			return nil, unfit(f.c, name, "layer %s, at most %d are cut", m[2], layerLimit)
		}
		if p, ok := f.prefix[layer]; ok && p != m[1] {
			return nil, unfit(f.c, name, "layer %d has other experts under %.100q", layer, p)
		}
		f.prefix[layer] = m[1]
		n := 0
		if single := singleTensors.FindStringSubmatch(m[3]); single != nil {
			e, err := strconv.Atoi(single[1])
			if err != nil || single[1] != strconv.Itoa(e) {
				return nil, unfit(f.c, name, "expert %s", single[1])
			}
			n = e + 1
		} else if t, err := f.c.Tensor(name); err != nil {
			return nil, err
		} else if len(t.Shape) > 0 {
			n = t.Shape[0]
		}
		counts[layer] = max(counts[layer], n)
	}
	out := map[int]*expertLayer{}
	for layer, n := range counts {
		e, err := f.layer(layer, n)
		if err != nil {
			return nil, err
		}
		out[layer] = e
	}
	return out, nil
}

// layer is a layer of n experts.
func (f *folder) layer(layer, n int) (*expertLayer, error) {
	router := ""
	for _, name := range routerTensors[:routerWeights] {
		if f.c.Has(f.prefix[layer] + name) {
			router = f.prefix[layer] + name
		}
	}
	if router == "" {
		return nil, unfit(f.c, f.prefix[layer]+"experts", "no router is known beside it")
	}
	t, err := f.c.Tensor(router)
	if err != nil {
		return nil, err
	}
	if len(t.Shape) != 2 || t.Shape[0] != n || n < 1 || n > moe.MostExperts {
		return nil, unfit(f.c, router, "%v for %d experts, at most %d are cut", t.Shape, n, moe.MostExperts)
	}
	e := &expertLayer{place: make([]place, n), orig: moe.EveryExpert(n).Orig}
	for i := range e.place {
		e.place[i].row = int32(i)
	}
	if e.k, err = f.config.used(); err != nil {
		return nil, err
	}
	if e.k = min(e.k, n); e.k < 1 {
		return nil, unfit(f.c, router, "%d experts a token", e.k)
	}
	e.groups, e.kept = f.config.groups()
	if e.groups > 1 && n%e.groups != 0 {
		return nil, unfit(f.c, router, "%d experts in %d groups", n, e.groups)
	}
	if ids := f.config.ids(layer); ids != nil {
		e.orig = ids
	}
	if len(e.orig) != n {
		return nil, unfit(f.c, router, "%d experts, and numbers of %d in config.json", n, len(e.orig))
	}
	return e, nil
}

// tensor is what becomes of a tensor: itself, less rows, or that of other experts.
func (f *folder) tensor(t store.Tensor) ([]store.NewTensor, error) {
	x := cutter{f.c}
	m := expertTensors.FindStringSubmatch(t.Name)
	for layer, s := range f.all {
		prefix := f.prefix[layer]
		rest, ok := strings.CutPrefix(t.Name, prefix)
		switch {
		case !ok || !s.changed:
			continue
		case m != nil:
			return f.expert(s, t, m)
		case slices.Contains(routerTensors, rest):
			if len(t.Shape) == 0 || t.Shape[0] != len(s.place) {
				return nil, unfit(f.c, t.Name, "%v for %d experts", t.Shape, len(s.place))
			}
			from := make([][]int, len(s.rows))
			for i, r := range s.rows {
				from[i] = r.of
			}
			return x.all(t, from)
		case !strings.Contains(rest, "shared") && len(t.Shape) > 0 && slices.Contains(t.Shape, len(s.place)):
			return nil, unfit(f.c, t.Name, "%v: it is not known whether that is by expert", t.Shape)
		}
	}
	return []store.NewTensor{x.copied(t)}, nil
}

// expert is what becomes of a tensor of one expert, or of all that a layer has.
func (f *folder) expert(s *slicing, t store.Tensor, m []string) ([]store.NewTensor, error) {
	x := cutter{f.c}
	if single := singleTensors.FindStringSubmatch(m[3]); single != nil {
		e, err := strconv.Atoi(single[1])
		if err != nil {
			panic("winnow: bug: compress: four digits are no number")
		}
		return x.singles(s, t, func(i int) string { return fmt.Sprintf("%sexperts.%d.%s", m[1], i, single[2]) }, e)
	}
	if len(t.Shape) == 0 || t.Shape[0] != len(s.place) {
		return nil, unfit(f.c, t.Name, "%v for %d experts", t.Shape, len(s.place))
	}
	return x.all(t, bankRows(s.stored(separate).banks[0]))
}

// all is a tensor's rows as the only result.
func (x cutter) all(t store.Tensor, from [][]int) ([]store.NewTensor, error) {
	out, err := x.rows(t, from, 0)
	return []store.NewTensor{out}, err
}

// whereabouts say which file each tensor of a new folder is in.
type whereabouts struct {
	file map[string]string
	size int64 // bytes of all tensors
}

// write makes the files of weights of what the tensors become, each in the file that it was in.
func (f *folder) write(ctx context.Context, dir string, become func(store.Tensor) ([]store.NewTensor, error), see func(store.Progress)) (whereabouts, error) {
	where := whereabouts{file: map[string]string{}}
	for _, part := range f.c.Parts {
		s := store.NewSafetensors{Notes: part.Notes}
		base := filepath.Base(part.File)
		for _, name := range part.Names {
			t, err := f.c.Tensor(name)
			if err != nil {
				return where, err
			}
			more, err := become(t)
			if err != nil {
				return where, err
			}
			for _, n := range more {
				if where.file[n.Name] != "" {
					return where, unfit(f.c, t.Name, "another tensor becomes %.100q too", n.Name)
				}
				where.file[n.Name] = base
				where.size += int64(n.Format.RowBytes(valuesOf(n.Shape)))
			}
			s.Tensors = append(s.Tensors, more...)
		}
		if err := store.WriteSafetensors(ctx, filepath.Join(dir, base), s, see); err != nil {
			return where, err
		}
	}
	return where, nil
}

// describe writes what says how many experts there are and where, if they have changed; made are the names of files that need not be copied.
func (f *folder) describe(dir, method string, where whereabouts) (made map[string]bool, err error) {
	made = map[string]bool{}
	if !count(f.all, 0).changed {
		return made, nil
	}
	config, err := f.config.changed(f.all, method)
	if err != nil {
		return nil, err
	}
	made["config.json"], made[indexFile] = true, true
	if err := writeFile(filepath.Join(dir, "config.json"), config); err != nil {
		return nil, err
	}
	if len(f.c.Parts) == 1 && filepath.Base(f.c.Parts[0].File) == "model.safetensors" {
		return made, nil
	}
	return made, writeFile(filepath.Join(dir, indexFile), where.index())
}

func valuesOf(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// index is the file that says it.
func (w whereabouts) index() []byte {
	raw, err := json.MarshalIndent(map[string]any{"metadata": map[string]int64{"total_size": w.size}, "weight_map": w.file}, "", "  ")
	if err != nil {
		panic("winnow: bug: compress: index: " + err.Error())
	}
	return append(raw, '\n')
}

// others copies what is neither weights nor made already: the files of the model's folder, and those in folders of it that Winnow reads.
func (f *folder) others(ctx context.Context, dir string, made map[string]bool) error {
	here, err := os.ReadDir(f.c.Path)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range here {
		names = append(names, e.Name())
	}
	for name := range f.c.Files {
		if strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	for _, name := range names {
		from := filepath.Join(f.c.Path, filepath.FromSlash(name))
		st, err := os.Stat(from)
		if made[name] || name[0] == '.' || otherWeights.MatchString(name) || err == nil && !st.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := copyFile(filepath.Join(dir, filepath.FromSlash(name)), from); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return writeStream(to, in)
}

func writeFile(path string, raw []byte) error {
	return writeStream(path, strings.NewReader(string(raw)))
}

// writeStream makes a file that is on the disk when it returns.
func writeStream(path string, from io.Reader) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// newFolder makes a folder at path, where nothing may be: whole, or not at all.
func newFolder(path string, fill func(dir string) error) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, store.ErrExists)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(path), "winnow-temp-*")
	if err != nil {
		return err
	}
	err = fill(temp)
	if err == nil {
		err = os.Chmod(temp, 0o755)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	_ = dir.Sync() // not all file systems can; the folder is there, a crash may only undo that
	return nil
}
