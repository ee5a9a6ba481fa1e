package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// Layout: a GGUF model in several files is a folder's NAME-00001-of-00003.gguf to NAME-00003-of-00003.gguf. Each is a GGUF file
// with a data section of its own; the first holds the model's metadata, and all of them hold the integers
//
//	split.no             which file it is, from 0: one less than its name says
//	split.count          how many there are, as its name says
//	split.tensors.count  the tensors of all of them together
type split struct{ no, count, tensors int64 }

const maxSplit = 1<<16 - 1 // files: their number is stored in 16 bits

// split reads what a GGUF file says of the set it is one of. A count of 0 or 1 is that of a file that is whole.
func (c *Checkpoint) split() (s split, err error) {
	for _, k := range []struct {
		name string
		to   *int64
	}{{"split.count", &s.count}, {"split.no", &s.no}, {"split.tensors.count", &s.tensors}} {
		if k.name != "split.count" && s.count > 1 && !c.Meta.Has(k.name) {
			return s, c.badKey(k.name, "missing, the file is one of %d", s.count)
		}
		if *k.to, err = c.Meta.Int(k.name, 0); err != nil {
			return s, c.badKey(k.name, "has type %T, should have an integer", c.Meta[k.name])
		}
	}
	switch {
	case s.count < 0 || s.count > maxSplit:
		return s, c.badKey("split.count", "%d files, at most %d are allowed", s.count, maxSplit)
	case s.count > 1 && (s.no < 0 || s.no >= s.count):
		return s, c.badKey("split.no", "%d, the %d files are counted from 0", s.no, s.count)
	}
	return s, nil
}

func (c *Checkpoint) badKey(key, limit string, args ...any) error {
	return &FileError{File: c.Path, Part: quoted("key", key), Limit: fmt.Sprintf(limit, args...), Err: ErrFormat}
}

// openGGUF opens a GGUF file, and with it the other files of its set where it is one of several.
func openGGUF(path string) (*Checkpoint, error) {
	c, s, err := openPart(path)
	if err != nil || s.count <= 1 {
		return c, err
	}
	whole, err := c.joined(s)
	if err != nil {
		return nil, errors.Join(err, whole.Close())
	}
	return whole, nil
}

// openPart maps one GGUF file, which may be one of several.
func openPart(path string) (*Checkpoint, split, error) {
	m, unmap, err := openMapped(path)
	if err != nil {
		return nil, split{}, err
	}
	c, s, err := readPart(path, m.data)
	if err != nil {
		return nil, split{}, errors.Join(err, unmap())
	}
	c.maps(m, unmap)
	return c, s, nil
}

func readPart(file string, data []byte) (c *Checkpoint, s split, err error) {
	if c, err = readGGUF(file, data); err == nil {
		s, err = c.split()
	}
	return c, s, err
}

// joined is the whole model of which c, described by s, is one file. The result holds all that is open, also after an error.
func (c *Checkpoint) joined(s split) (*Checkpoint, error) {
	whole := newCheckpoint(c.Path, GGUF)
	whole.mapped, whole.unmap = c.mapped, c.unmap
	dir, file := filepath.Split(c.Path)
	name, ok := parsePartName(file)
	if !ok || name.no != s.no+1 || name.count != s.count {
		return whole, c.badKey("split.no", "%d of %d files, so its name should end in %s", s.no, s.count, suffix(s.no+1, s.count))
	}
	for no := range s.count {
		part, has := c, s
		if no != s.no {
			path := dir + name.stem + suffix(no+1, s.count) + name.ext
			var err error
			if part, has, err = openPart(path); errors.Is(err, fs.ErrNotExist) {
				return whole, &FileError{File: path, Limit: fmt.Sprintf("one of %d by split.count of %s, not there", s.count, file), Err: ErrFormat}
			}
			if err != nil {
				return whole, err
			}
			whole.maps(part.mapped[0], part.unmap[0])
		}
		if err := part.belongs(has, split{no, s.count, s.tensors}, file); err != nil {
			return whole, err
		}
		if err := whole.join(part); err != nil {
			return whole, err
		}
	}
	if n := int64(len(whole.Names())); n != s.tensors {
		return whole, c.badKey("split.tensors.count", "%d, the %d files hold %d", s.tensors, s.count, n)
	}
	return whole, nil
}

// belongs checks that a file says of itself what its name and the first opened file of the set say.
func (c *Checkpoint) belongs(has, want split, opened string) error {
	switch {
	case has.count != want.count:
		return c.badKey("split.count", "%d, in %s it is %d", has.count, opened, want.count)
	case has.no != want.no:
		return c.badKey("split.no", "%d, should be %d by the name of the file", has.no, want.no)
	case has.tensors != want.tensors:
		return c.badKey("split.tensors.count", "%d, in %s it is %d: the files are of different models", has.tensors, opened, want.tensors)
	}
	return nil
}

// join takes over a file's tensors and, from the first file, the metadata.
func (whole *Checkpoint) join(part *Checkpoint) error {
	const arch = "general.architecture"
	switch other, same := part.Meta[arch], whole.Meta[arch]; {
	case len(whole.Meta) == 0:
		whole.Meta, whole.Keys = part.Meta, part.Keys
	case other != nil && other != same:
		return part.badKey(arch, "%.40q, in the first file it is %.40q: the files are of different models", other, same)
	}
	for _, name := range part.Names() {
		if whole.Has(name) {
			return &FileError{File: part.Path, Part: quoted("tensor", name), Limit: "is in an earlier file of the set too", Err: ErrFormat}
		}
		t, err := part.Tensor(name)
		whole.add(name, t, 0, err)
	}
	whole.size += part.size
	whole.Parts = append(whole.Parts, part.Parts...)
	return nil
}

// partName is a file name of a split GGUF, taken apart: NAME, "-00002-of-00003" as numbers, ".gguf".
type partName struct {
	stem, ext string
	no, count int64 // no from 1
}

var partNames = regexp.MustCompile(`^(.+)-(\d{5})-of-(\d{5})(\.(?i:gguf))$`)

func parsePartName(file string) (p partName, ok bool) {
	m := partNames.FindStringSubmatch(file)
	if m == nil {
		return p, false
	}
	no, err := strconv.ParseInt(m[2], 10, 32)
	count, err2 := strconv.ParseInt(m[3], 10, 32)
	if err != nil || err2 != nil {
		panic("winnow: bug: store: five digits are no number")
	}
	return partName{stem: m[1], ext: m[4], no: no, count: count}, true
}

// suffix is how the name of file no, from 1, of count ends, before ".gguf".
func suffix(no, count int64) string { return fmt.Sprintf("-%05d-of-%05d", no, count) }

// splitIn finds the split GGUF that a directory holds: the path of the first of its files that is there, "" where there is none. An
// error: there are files of two.
func splitIn(dir string) (first string, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return "", fileError(dir, err)
	}
	var set partName
	for _, f := range files {
		p, ok := parsePartName(f.Name())
		switch {
		case !ok:
		case first == "":
			first, set = filepath.Join(dir, f.Name()), p
		case p.stem != set.stem || p.count != set.count:
			limit := fmt.Sprintf("files of two split models, %.100q and %.100q: one of them must be named", filepath.Base(first), f.Name())
			return first, &FileError{File: dir, Limit: limit, Err: ErrUnsupported}
		}
	}
	return first, nil
}
