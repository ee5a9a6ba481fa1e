package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
)

// namedTensor is an array to be written.
type namedTensor struct {
	name  string
	dtype string // F32 or I32
	shape []int
	data  []byte // little-endian
}

func floats(name string, shape []int, v []float32) namedTensor {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return namedTensor{name, "F32", shape, b}
}

func integers(name string, shape []int, v []int32) namedTensor {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	return namedTensor{name, "I32", shape, b}
}

// writeSafetensors writes arrays to a file.
//
// Layout: the length of the header in 8 bytes, little-endian; the header, JSON padded with spaces to a multiple of 8: name -> dtype,
// shape and the begin and end of its bytes after the header; the arrays without gaps.
func writeSafetensors(path string, all []namedTensor) (err error) {
	type entry struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header, at := map[string]entry{}, 0
	for _, t := range all {
		header[t.name] = entry{t.dtype, t.shape, [2]int{at, at + len(t.data)}}
		at += len(t.data)
	}
	raw, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(raw)%8 != 0 {
		raw = append(raw, ' ')
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	parts := [][]byte{binary.LittleEndian.AppendUint64(nil, uint64(len(raw))), raw}
	for _, t := range all {
		parts = append(parts, t.data)
	}
	for _, p := range parts {
		if _, werr := w.Write(p); werr != nil {
			err = werr
			break
		}
	}
	if err = errors.Join(err, w.Flush(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
