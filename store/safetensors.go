package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/winnow-llm/winnow/quant"
)

// Layout: a safetensors file is the size of the header as u64, little-endian, the header, and the weights. The header is
// a JSON object from tensor name to {"dtype", "shape" slowest first, "data_offsets" [begin, end) in the weights}, with
// strings to strings under "__metadata__". The tensors fill the weights from end to end.
const (
	stMaxHeader = 100_000_000 // bytes, as the reference reader allows
	stMaxDims   = 8           // of a tensor; models have up to 4
)

// stBits is the size of a value of each dtype, in bits.
var stBits = map[string]uint64{
	"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
	"F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
	"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}

// stEntry is one tensor as the header writes it.
type stEntry struct {
	name    string
	DType   string   `json:"dtype"`
	Shape   []uint64 `json:"shape"`
	Offsets []uint64 `json:"data_offsets"`
}

// OpenSafetensors maps one file of tensors that need not be a model.
func OpenSafetensors(path string) (*Checkpoint, error) {
	c := newCheckpoint(path, HF)
	if err := c.addWeights(path); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// addSafetensors checks one file and adds its tensors to c.
func addSafetensors(c *Checkpoint, file string, data []byte) error {
	fail := func(limit string, args ...any) error {
		return &FileError{File: file, Part: "header", Limit: fmt.Sprintf(limit, args...), Err: ErrFormat}
	}
	if len(data) < 8 {
		return fail("%d bytes are too few for the header size", len(data))
	}
	size := binary.LittleEndian.Uint64(data)
	if size > stMaxHeader || size > uint64(len(data)-8) {
		return fail("size %d, the file has %d bytes and the limit is %d", size, len(data), stMaxHeader)
	}
	entries, notes, err := stHeader(data[8:][:size])
	if err != nil {
		return fail("%v", err)
	}
	weights := data[8+size:]
	slices.SortStableFunc(entries, func(a, b stEntry) int {
		return cmp.Or(cmp.Compare(a.Offsets[0], b.Offsets[0]), cmp.Compare(a.Offsets[1], b.Offsets[1]))
	})
	end, part := uint64(0), Part{File: file, Notes: notes}
	for _, e := range entries {
		bad := &FileError{File: file, Part: quoted("tensor", e.name), Err: ErrFormat}
		if bad.Limit = e.check(end, uint64(len(weights))); bad.Limit != "" {
			return bad
		}
		if c.Has(e.name) {
			bad.Limit = "appears in two files"
			return bad
		}
		part.Names = append(part.Names, e.name)
		begin := e.Offsets[0]
		end = e.Offsets[1]
		t := Tensor{Name: e.name, Format: quant.ByName(e.DType), Shape: make([]int, len(e.Shape)), Data: weights[begin:end:end]}
		for i, d := range e.Shape {
			t.Shape[i] = int(d)
		}
		if stBits[e.DType] != 0 && t.Format != nil {
			c.add(e.name, t, end-begin, nil)
			continue
		}
		bad.Limit, bad.Err = fmt.Sprintf("dtype %.40q", e.DType), ErrUnsupported
		c.add(e.name, Tensor{}, end-begin, bad)
	}
	if end != uint64(len(weights)) {
		return fail("%d bytes of weights, tensors fill %d", len(weights), end)
	}
	c.Parts = append(c.Parts, part)
	return nil
}

// check says what is wrong with an entry that should start at byte begin of the weights; "" when nothing is.
func (e *stEntry) check(begin, room uint64) string {
	if e.Offsets[0] != begin || e.Offsets[1] < begin || e.Offsets[1] > room {
		return fmt.Sprintf("lies at %d of the %d bytes of weights, should start at %d, where the last one ends", e.Offsets, room, begin)
	}
	if len(e.Shape) > stMaxDims {
		return fmt.Sprintf("%d dimensions, at most %d are read", len(e.Shape), stMaxDims)
	}
	values := uint64(1)
	for _, d := range e.Shape {
		if d > maxInt || d != 0 && values > maxInt/64/d {
			return fmt.Sprintf("shape %d is too large", e.Shape)
		}
		values *= d
	}
	if bits, ok := stBits[e.DType]; ok && values*bits != 8*(e.Offsets[1]-begin) {
		return fmt.Sprintf("%d bytes for %d values of %s", e.Offsets[1]-begin, values, e.DType)
	}
	return ""
}

// stHeader reads the header: entries in its order, each with a shape and two offsets, and what it says under __metadata__.
func stHeader(raw []byte) (entries []stEntry, notes map[string]string, err error) {
	err = eachField(raw, func(name string, dec *json.Decoder) error {
		if name == "__metadata__" {
			return dec.Decode(&notes)
		}
		if name == "" || len(name) > ggufMaxKey || strings.ContainsFunc(name, unicode.IsControl) {
			return fmt.Errorf("%s is not a printable name", quoted("tensor", name))
		}
		e := stEntry{name: name}
		if err := dec.Decode(&e); err != nil {
			return fmt.Errorf("%s: %w", quoted("tensor", name), err)
		}
		if e.DType == "" || e.Shape == nil || len(e.Offsets) != 2 {
			return fmt.Errorf("%s lacks dtype, shape or two data_offsets", quoted("tensor", name))
		}
		entries = append(entries, e)
		return nil
	})
	return entries, notes, err
}

// eachField walks a JSON object, in which no key may appear twice; field reads the value of each key from dec. Nothing
// but space may follow the object.
func eachField(raw []byte, field func(key string, dec *json.Decoder) error) error {
	if !utf8.Valid(raw) {
		return fmt.Errorf("JSON is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("not a JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok || seen[key] {
			return fmt.Errorf("%s appears twice", quoted("key", key))
		}
		seen[key] = true
		if err := field(key, dec); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("text follows the JSON object")
	}
	return nil
}
