package store

import (
	"archive/zip"
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/winnow-llm/winnow/quant"
)

// Torch is a file of torch.save: a zip of a pickle and of the bytes of its tensors.
const Torch Kind = "torch"

// Layout: a zip whose entries are stored, not compressed, all in one folder of any name: data.pkl, a pickle of a dict from tensor name to
// tensor; data/KEY, the values of a storage, which one tensor or several are views of; byteorder, "little" where it is there. See pickle.go
// for what a pickle may hold.
const (
	torchPickle    = "data.pkl"
	torchOrder     = "byteorder"
	torchMaxPickle = 4 << 20 // bytes; one of 10,000 tensors has 2 MB
	torchMaxDims   = 8
	torchMaxName   = 1024 // bytes of a tensor name
)

// torchStorages are the kinds of storage that are read, and the format of their values.
var torchStorages = map[string]*quant.Format{
	"torch FloatStorage": quant.F32, "torch HalfStorage": quant.F16, "torch BFloat16Storage": quant.BF16,
}

// OpenTorch maps a file that torch.save made of a flat dict of tensors, in float32, float16 or bfloat16. Nothing in it is run: a pickle that
// asks for more than such a dict needs is refused by the name of what it asks for. ErrFormat, ErrUnsupported, in a *FileError.
func OpenTorch(path string) (*Checkpoint, error) {
	m, unmap, err := openMapped(path)
	if err != nil {
		return nil, err
	}
	c, err := readTorch(path, m.data)
	if err != nil {
		_ = unmap() // of a mapping that was only read, beside the error that matters
		return nil, err
	}
	c.maps(m, unmap)
	return c, nil
}

// readTorch reads a file that is in memory.
func readTorch(file string, data []byte) (*Checkpoint, error) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, &FileError{File: file, Limit: "no zip, as torch.save makes them since 1.6: " + err.Error(), Err: ErrFormat}
	}
	t := &torchFile{file: file, data: data, entries: map[string]*zip.File{}, storages: map[string]*torchStorage{}}
	if err := t.find(z.File); err != nil {
		return nil, err
	}
	if _, ordered := t.entries[t.root+torchOrder]; ordered {
		order, _, err := t.entry(torchOrder)
		if err != nil {
			return nil, err
		}
		if string(order) != "little" {
			return nil, t.bad(torchOrder, ErrUnsupported, "byte order %.20q, want little", order)
		}
	}
	raw, at, err := t.entry(torchPickle)
	if err != nil {
		return nil, err
	}
	if len(raw) > torchMaxPickle {
		return nil, t.bad(torchPickle, ErrUnsupported, "%d bytes, at most %d are read", len(raw), torchMaxPickle)
	}
	p := &pickle{in: raw, persistent: t.persistent, call: t.call}
	top, err := p.load()
	if err != nil {
		e := t.bad(torchPickle, p.sentinel, "%v", err)
		e.Offset = int64(at + p.at)
		return nil, e
	}
	return t.checkpoint(top)
}

// torchFile is a file that is being read.
type torchFile struct {
	file     string
	data     []byte
	root     string               // folder of all entries, with its slash
	entries  map[string]*zip.File // by name
	storages map[string]*torchStorage
}

// torchStorage is the memory that tensors are views of.
type torchStorage struct {
	format *quant.Format
	data   []byte
}

// torchTensor is a tensor that has no name yet.
type torchTensor struct {
	format *quant.Format
	shape  []int
	data   []byte
}

func (t *torchFile) bad(entry string, sentinel error, limit string, args ...any) *FileError {
	return &FileError{File: t.file, Part: quoted("entry", t.root+entry), Limit: fmt.Sprintf(limit, args...), Err: sentinel}
}

// find lists the entries and says which folder they are in.
func (t *torchFile) find(files []*zip.File) error {
	found := false
	for _, f := range files {
		if t.entries[f.Name] != nil {
			return &FileError{File: t.file, Part: quoted("entry", f.Name), Limit: "appears twice", Err: ErrFormat}
		}
		t.entries[f.Name] = f
		root, is := strings.CutSuffix(f.Name, torchPickle)
		if !is || strings.Count(root, "/") != 1 || !strings.HasSuffix(root, "/") {
			continue
		}
		if found {
			return &FileError{File: t.file, Part: quoted("entry", f.Name), Limit: "a second pickle", Err: ErrFormat}
		}
		t.root, found = root, true
	}
	if !found {
		return &FileError{File: t.file, Limit: "a zip without " + torchPickle + " in a folder", Err: ErrFormat}
	}
	return nil
}

// entry is the bytes of an entry as they lie in the file, and where they begin.
func (t *torchFile) entry(name string) (raw []byte, at int, err error) {
	f := t.entries[t.root+name]
	if f == nil {
		return nil, 0, t.bad(name, ErrFormat, "is not there")
	}
	if f.Method != zip.Store || f.Flags&1 != 0 || f.CompressedSize64 != f.UncompressedSize64 {
		return nil, 0, t.bad(name, ErrUnsupported, "is compressed or encrypted, torch.save stores")
	}
	from, err := f.DataOffset()
	if err != nil {
		return nil, 0, t.bad(name, ErrFormat, "%v", err)
	}
	room := int64(len(t.data))
	if from < 0 || from > room || f.UncompressedSize64 > uint64(room-from) {
		return nil, 0, t.bad(name, ErrFormat, "%d bytes from byte %d on reach past the %d of the file", f.UncompressedSize64, from, room)
	}
	end := from + int64(f.UncompressedSize64)
	return t.data[from:end:end], int(from), nil
}

// persistent is what a persistent id stands for: ("storage", kind of storage, key, device, values).
func (t *torchFile) persistent(id any) (any, error) {
	tuple, ok := id.(pickleTuple)
	if !ok || len(tuple) != 5 || tuple[0] != "storage" {
		return nil, unwanted("a persistent id that is no storage")
	}
	kind, ok := tuple[1].(pickleGlobal)
	if !ok {
		return nil, damaged("the kind of a storage is no class")
	}
	format := torchStorages[string(kind)]
	if format == nil {
		return nil, unwanted("a storage of %.60q, want FloatStorage, HalfStorage or BFloat16Storage of torch", string(kind))
	}
	key, isKey := tuple[2].(string)
	values, isCount := tuple[4].(int64)
	if _, isDevice := tuple[3].(string); !isKey || !isCount || !isDevice || values < 0 {
		return nil, damaged("a storage whose key, device or size is of another type")
	}
	if s := t.storages[key]; s != nil {
		if s.format != format || int64(len(s.data)) != values*int64(format.Bytes) {
			return nil, damaged("storage %.40q is described twice, in two ways", key)
		}
		return s, nil
	}
	data, _, err := t.entry("data/" + key)
	if err != nil {
		return nil, damaged("%v", err)
	}
	if int64(len(data))%int64(format.Bytes) != 0 || int64(len(data))/int64(format.Bytes) != values {
		return nil, damaged("storage %.40q has %d bytes, %d values of %s should be there", key, len(data), values, format)
	}
	s := &torchStorage{format, data}
	t.storages[key] = s
	return s, nil
}

// call makes what a pickle makes by calling a function. There are two.
func (t *torchFile) call(function pickleGlobal, args pickleTuple) (any, error) {
	switch function {
	case "collections OrderedDict":
		if len(args) != 0 {
			return nil, unwanted("an OrderedDict of %d arguments", len(args))
		}
		return &pickleDict{}, nil
	case "torch._utils _rebuild_tensor_v2":
		return t.tensor(args)
	}
	return nil, unwanted("a call of %.80q", string(function))
}

// tensor is a view of a storage: storage, first value, shape, strides, and two or three things that say nothing of its values.
func (t *torchFile) tensor(args pickleTuple) (any, error) {
	if len(args) < 6 || len(args) > 7 {
		return nil, damaged("a tensor of %d arguments, want 6 or 7", len(args))
	}
	s, isStorage := args[0].(*torchStorage)
	first, isNumber := args[1].(int64)
	shape, isShape := args[2].(pickleTuple)
	strides, isStrides := args[3].(pickleTuple)
	if !isStorage || !isNumber || !isShape || !isStrides || len(shape) != len(strides) || len(shape) > torchMaxDims {
		return nil, damaged("a tensor without storage, first value, shape and strides, of at most %d dimensions", torchMaxDims)
	}
	out := &torchTensor{format: s.format, shape: make([]int, len(shape))}
	room, values := int64(len(s.data)/s.format.Bytes), int64(1)
	most := room
	if slices.Contains(shape, any(int64(0))) { // it has no values, whatever else it has
		most, values = math.MaxInt32, 0
	}
	for i := len(shape) - 1; i >= 0; i-- {
		n, isCount := shape[i].(int64)
		stride, isStride := strides[i].(int64)
		if !isCount || !isStride || n < 0 || n > 0 && max(1, values) > most/n {
			return nil, damaged("a tensor of shape %s in a storage of %d values", numbers(shape), room)
		}
		if n > 1 && values > 0 && stride != values {
			return nil, unwanted("a tensor of shape %s with strides %s, which does not lie in one piece", numbers(shape), numbers(strides))
		}
		out.shape[i] = int(n)
		values *= n
	}
	if first < 0 || first > room-values {
		return nil, damaged("%d values from value %d on, in a storage of %d", values, first, room)
	}
	size := int64(s.format.Bytes)
	out.data = s.data[first*size : (first+values)*size : (first+values)*size]
	return out, nil
}

// numbers writes the numbers of a shape.
func numbers(t pickleTuple) string {
	var out []string
	for _, v := range t {
		if n, ok := v.(int64); ok {
			out = append(out, fmt.Sprint(n))
		} else {
			out = append(out, "?")
		}
	}
	return "(" + strings.Join(out, ", ") + ")"
}

// checkpoint names the tensors of the dict that a pickle came to.
func (t *torchFile) checkpoint(top any) (*Checkpoint, error) {
	dict, ok := top.(*pickleDict)
	if !ok {
		return nil, t.bad(torchPickle, ErrUnsupported, "no dict of tensors")
	}
	c := newCheckpoint(t.file, Torch)
	part := Part{File: t.file}
	for _, item := range dict.items {
		e := &FileError{File: t.file, Part: quoted("tensor", item.key), Err: ErrFormat}
		v, isTensor := item.value.(*torchTensor)
		name := item.key
		switch {
		case name == "" || len(name) > torchMaxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
			e.Limit = "not a printable name"
			return nil, e
		case c.Has(name):
			e.Limit = "appears twice"
			return nil, e
		case !isTensor:
			e.Limit, e.Err = "is no tensor, and a flat dict of tensors is read", ErrUnsupported
			return nil, e
		}
		part.Names = append(part.Names, name)
		c.add(name, Tensor{name, v.format, v.shape, v.data}, uint64(len(v.data)), nil)
	}
	c.Parts = []Part{part}
	return c, nil
}
