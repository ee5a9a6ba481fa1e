package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// NewSafetensors is a safetensors file to be written.
type NewSafetensors struct {
	Notes   map[string]string // __metadata__; nil = none
	Tensors []NewTensor
}

// WriteSafetensors makes a safetensors file at path, where nothing may be, with tensors in the order given. see is told how it goes on; it may
// be nil. ErrExists: path is taken. ErrFormat, ErrUnsupported: no such file can hold that. What fails or is cancelled leaves nothing.
func WriteSafetensors(ctx context.Context, path string, s NewSafetensors, see func(Progress)) error {
	head, total, err := s.head(path)
	if err != nil {
		return err
	}
	return writeNew(path, func(file io.Writer) error {
		w := newWriting(ctx, path, total, see)
		b := bufio.NewWriterSize(file, 1<<20)
		w.w = b
		if _, err := b.Write(head); err != nil {
			return err
		}
		for i := range s.Tensors {
			t := &s.Tensors[i]
			size, _ := t.bytes()
			if err := w.tensor(t, size); err != nil {
				return err
			}
		}
		return b.Flush()
	})
}

// head is the size and the header, padded with spaces so that the weights begin at a multiple of 8 bytes.
func (s *NewSafetensors) head(path string) (head []byte, total int64, err error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	field := func(open byte, key string, value any) error {
		b.WriteByte(open)
		for i, v := range []any{key, value} {
			if i > 0 {
				b.WriteByte(':')
			}
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(v); err != nil {
				return err
			}
			b.Truncate(b.Len() - 1) // the line's end
		}
		return nil
	}
	open, seen := byte('{'), map[string]bool{}
	if s.Notes != nil {
		err, open = field(open, "__metadata__", s.Notes), ','
	}
	for i := range s.Tensors {
		t := &s.Tensors[i]
		bad := &FileError{File: path, Part: quoted("tensor", t.Name), Err: ErrFormat}
		size, limit := t.bytes()
		switch {
		case limit != "":
			bad.Limit = limit
		case seen[t.Name] || t.Name == "" || t.Name == "__metadata__":
			bad.Limit = "a name that is taken"
		case stBits[t.Format.Name] == 0:
			bad.Limit, bad.Err = fmt.Sprintf("safetensors have no dtype %s", t.Format), ErrUnsupported
		}
		if bad.Limit != "" {
			return nil, 0, bad
		}
		seen[t.Name] = true
		shape := append([]int{}, t.Shape...)
		if err == nil {
			err = field(open, t.Name, struct {
				DType   string   `json:"dtype"`
				Shape   []int    `json:"shape"`
				Offsets [2]int64 `json:"data_offsets"`
			}{t.Format.Name, shape, [2]int64{total, total + size}})
		}
		open = ','
		total += size
	}
	if open == '{' {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	b.Write(bytes.Repeat([]byte(" "), -b.Len()&7))
	if err == nil && b.Len()-8 > stMaxHeader {
		err = &FileError{File: path, Part: "header", Limit: fmt.Sprintf("%d bytes, at most %d are allowed", b.Len()-8, stMaxHeader), Err: ErrUnsupported}
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(b.Len()-8))
	return b.Bytes(), total, err
}
