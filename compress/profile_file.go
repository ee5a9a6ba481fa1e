package compress

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// profileFormat is the version of the layout below.
const profileFormat = 1

// profileFile is a profile as a file, or one that is still being made.
//
// Layout: JSON, {"format":1,"model":"...","arch":"...","calibration":{...},"layers":[{"tokens":9,"k":2,"usage":[...],...}]}, each field and
// each row of a matrix on a line of its own. What is still being made has "partial" before "layers".
type profileFile struct {
	Format int `json:"format"`
	Profile
	Partial *partial `json:"partial,omitempty"`
}

// partial is how far an observation has come.
type partial struct {
	Sequences int64     `json:"sequences"` // that were seen
	IDs       string    `json:"ids"`       // sha256 of their ids, each as 4 bytes, little-endian
	Columns   bool      `json:"columns"`   // Inputs and Hidden are summed too
	Cosines   []float64 `json:"cosines"`   // sums of the cosines of a layer's input and output, one a layer
}

// WriteProfile writes a profile to a file, which is there whole or not at all.
func WriteProfile(path string, p Profile) error { return writeProfile(path, profileFile{Profile: p}) }

func writeProfile(path string, f profileFile) (err error) {
	if err := f.Check(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f.Format = profileFormat
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	w := bufio.NewWriterSize(temp, 1<<20)
	err = errors.Join(writeLines(w, reflect.ValueOf(f)), w.WriteByte('\n'), w.Flush(), temp.Chmod(0o644), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(temp.Name())))
	}
	return nil
}

// writeLines writes JSON for people: a struct field by field, a matrix row by row, anything else on one line.
func writeLines(w *bufio.Writer, v reflect.Value) error {
	switch {
	case v.Kind() == reflect.Pointer && !v.IsNil():
		return writeLines(w, v.Elem())
	case v.Kind() == reflect.Struct:
		separator := "{\n"
		if err := writeFields(w, v, &separator); err != nil {
			return err
		}
		_, err := w.WriteString("}")
		return err
	case v.Kind() == reflect.Slice && (v.Type().Elem().Kind() == reflect.Slice || v.Type().Elem().Kind() == reflect.Struct) && v.Len() > 0:
		for i := range v.Len() {
			separator := ",\n"
			if i == 0 {
				separator = "[\n"
			}
			w.WriteString(separator) // the first failure of w sticks
			if err := writeLines(w, v.Index(i)); err != nil {
				return err
			}
		}
		_, err := w.WriteString("]")
		return err
	}
	raw, err := json.Marshal(v.Interface())
	if err != nil {
		return err
	}
	_, err = w.Write(raw)
	return err
}

// writeFields writes the fields of a struct and of those within it, as their tags say; separator is what stands before the next.
func writeFields(w *bufio.Writer, v reflect.Value, separator *string) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if err := writeFields(w, v.Field(i), separator); err != nil {
				return err
			}
			continue
		}
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		if option != "" && v.Field(i).IsZero() {
			continue
		}
		fmt.Fprintf(w, "%s%q: ", *separator, name)
		*separator = ",\n"
		if err := writeLines(w, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

// ReadProfile reads what WriteProfile wrote. ErrProfile: the file is damaged, contradicts itself or is one of an unfinished observation.
func ReadProfile(path string) (Profile, error) {
	f, err := readProfile(path)
	if err == nil && f.Partial != nil {
		err = fmt.Errorf("%w: an unfinished observation", ErrProfile)
	}
	if err != nil {
		return Profile{}, fmt.Errorf("read %s: %w", path, err)
	}
	return f.Profile, nil
}

func readProfile(path string) (profileFile, error) {
	st, err := os.Stat(path)
	if err != nil {
		return profileFile{}, err
	}
	if !st.Mode().IsRegular() {
		return profileFile{}, fmt.Errorf("%w: not a regular file but %s", ErrProfile, st.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return profileFile{}, err
	}
	defer f.Close()
	return parseProfile(f)
}

// mostLayerBytes is the most that the JSON of a layer, or of all that is not a layer, may take: twice what 384 experts with their columns do.
const mostLayerBytes = 256 << 20

// allowance reads from r as long as what is left of it lasts.
type allowance struct {
	r    io.Reader
	left int
}

func (a *allowance) Read(b []byte) (int, error) {
	if a.left <= 0 {
		return 0, fmt.Errorf("a layer of more than %d bytes", mostLayerBytes)
	}
	n, err := a.r.Read(b[:min(len(b), a.left)])
	a.left -= n
	return n, err
}

// parseProfile reads layer by layer, and checks each before the next, so that a hostile file takes little more memory than its own size.
func parseProfile(r io.Reader) (f profileFile, err error) {
	in := &allowance{r: r, left: mostLayerBytes}
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	err = eachField(d, func(name string) error {
		in.left = mostLayerBytes
		switch name {
		case "format":
			return d.Decode(&f.Format)
		case "model":
			return d.Decode(&f.Model)
		case "arch":
			return d.Decode(&f.Arch)
		case "calibration":
			return d.Decode(&f.Calibration)
		case "partial":
			return d.Decode(&f.Partial)
		case "layers":
			f.Layers, err = parseLayers(d, in)
			return err
		}
		return errors.New("no such field")
	})
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows it")
		}
	}
	switch {
	case err == nil && f.Format != profileFormat:
		err = fmt.Errorf("format %d, want %d", f.Format, profileFormat)
	case err == nil:
		err = errors.Join(f.checkHead(), f.checkPartial())
	}
	if err != nil && !errors.Is(err, ErrProfile) {
		err = fmt.Errorf("%w: %w", ErrProfile, err)
	}
	return f, err
}

// eachField calls read before the value of each field of an object, which read takes.
func eachField(d *json.Decoder, read func(name string) error) error {
	if err := delim(d, '{'); err != nil {
		return err
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		if err := read(name); err != nil {
			return fmt.Errorf("field %.80q: %w", name, err)
		}
	}
	return delim(d, '}')
}

func delim(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("%.80q where %q should be", fmt.Sprint(t), want)
	}
	return nil
}

func parseLayers(d *json.Decoder, in *allowance) (layers []LayerProfile, err error) {
	if err := delim(d, '['); err != nil {
		return nil, err
	}
	for d.More() {
		if len(layers) == mostLayers {
			return nil, fmt.Errorf("%w: more than %d layers", ErrProfile, mostLayers)
		}
		in.left = mostLayerBytes
		var l LayerProfile
		if err := d.Decode(&l); err != nil {
			return nil, fmt.Errorf("layer %d: %w", len(layers), err)
		}
		if err := l.check(len(layers)); err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	return layers, delim(d, ']')
}

func (f *profileFile) checkPartial() error {
	p := f.Partial
	switch {
	case p == nil:
		return nil
	case p.Sequences < 1 || p.Sequences > f.Calibration.Tokens || !isSHA256(p.IDs) || len(p.Cosines) != len(f.Layers):
		return fmt.Errorf("%w: partial of %d sequences, %d layers, ids %.80q", ErrProfile, p.Sequences, len(p.Cosines), p.IDs)
	}
	for i, v := range p.Cosines {
		if !(math.Abs(v) <= 2*float64(f.Calibration.Tokens)) {
			return fmt.Errorf("%w: partial: layer %d: cosines sum to %v", ErrProfile, i, v)
		}
	}
	return nil
}
