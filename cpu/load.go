//go:build linux && cgo && (amd64 || arm64)

package cpu

// #include "pack.h"
import "C"

import (
	"fmt"
	"time"
	"unsafe"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// packing is how the kernels store weights of a format. Its own Format describes the result, which no codec reads; 16 rows of it are a
// tile, so it takes no more bytes than the file unless codes are widened.
type packing struct {
	kind   C.int64_t
	format *quant.Format
	from   C.int  // the layout of the source
	note   string // what is slower than it could be
}

// tileRows is how many rows a tile has.
const tileRows = 16

var (
	q6       = tiled(quant.Q6_K, 210)
	packings = map[*quant.Format]packing{ // by the file's format; layouts are in pack.h
		quant.F32:    {kind: C.WN_F32, format: tiled(quant.F32, 4)},
		quant.F16:    {kind: C.WN_F16, format: tiled(quant.F16, 2)},
		quant.BF16:   {kind: C.WN_BF16, format: tiled(quant.BF16, 2)},
		quant.Q4_0:   {kind: C.WN_Q4_0, format: tiled(quant.Q4_0, 18)},
		quant.Q4_1:   {kind: C.WN_Q4_1, format: tiled(quant.Q4_1, 20)},
		quant.Q5_0:   {kind: C.WN_Q5_0, format: tiled(quant.Q5_0, 22)},
		quant.Q5_1:   {kind: C.WN_Q5_1, format: tiled(quant.Q5_1, 24)},
		quant.Q8_0:   {kind: C.WN_Q8_0, format: tiled(quant.Q8_0, 34)},
		quant.IQ4_NL: {kind: C.WN_IQ4_NL, format: tiled(quant.IQ4_NL, 18)},
		quant.MXFP4:  {kind: C.WN_MXFP4, format: tiled(quant.MXFP4, 18)},
		quant.Q3_K:   {kind: C.WN_Q6_K, format: q6, from: C.WN_FROM_Q3_K, note: "codes of 6 bits: 6.6 bits a weight instead of 3.4"},
		quant.Q4_K:   {kind: C.WN_Q4_K, format: tiled(quant.Q4_K, 148)},
		quant.Q5_K:   {kind: C.WN_Q5_K, format: tiled(quant.Q5_K, 180)},
		quant.Q6_K:   {kind: C.WN_Q6_K, format: q6},
		quant.IQ4_XS: {kind: C.WN_IQ4_XS, format: tiled(quant.IQ4_XS, 138)},
	}
	kinds = func() map[*quant.Format]C.int64_t { // by the format of a loaded weight
		m := map[*quant.Format]C.int64_t{quant.F32: C.WN_ROW}
		for _, p := range packings {
			m[p.format] = p.kind
		}
		return m
	}()
)

func tiled(f *quant.Format, bytes int) *quant.Format {
	return &quant.Format{Name: f.Name + " in tiles", Block: f.Block, Bytes: bytes}
}

// Load packs a weight into tiles of 16 rows, and does not need w afterwards. Integers and single rows of F32 are copied as they are:
// a norm, a bias. Formats without kernels are decoded to F32.
func (d *device) Load(w tensor.Mat) (tensor.Mat, error) {
	if w.Format == quant.I32 || w.Format == quant.F32 && w.Rows == 1 {
		return d.copied(w)
	}
	m, err := d.room(w, w.Rows)
	if err == nil {
		d.fill(m, w)
	}
	return m, err
}

// Stack gives room for weights whose rows are whole tiles.
func (d *device) Stack(w tensor.Mat, n int) (tensor.Mat, error) {
	if w.Format == quant.I32 || w.Rows%tileRows != 0 || w.Rows == 0 {
		return tensor.Mat{}, fmt.Errorf("cpu: %w: %s, want rows in multiples of %d", tensor.ErrStack, w, tileRows)
	}
	return d.room(w, n*w.Rows)
}

// room is where so many rows like those of w have space.
func (d *device) room(w tensor.Mat, rows int) (tensor.Mat, error) {
	p, ok := packings[w.Format]
	if !ok {
		d.once(fmt.Sprintf("cpu: %s has no kernel and is widened to F32", w.Format))
		p = packings[quant.F32]
	} else if p.note != "" {
		d.once(fmt.Sprintf("cpu: %s is widened to %s", w.Format, p.note))
	}
	m := tensor.Mat{Rows: rows, Cols: w.Cols, Format: p.format, Name: w.Name}
	c := C.wn_weights{kind: p.kind, rows: C.int64_t(rows), cols: C.int64_t(w.Cols)}
	buf, err := d.place(int(C.wn_tiles(&c) * C.wn_tile_bytes(&c)))
	if err != nil {
		return tensor.Mat{}, fmt.Errorf("load %s: %w", w, err)
	}
	m.Buf = buf
	return m, nil
}

// Reload packs a weight into the tiles of dst.
func (d *device) Reload(dst, w tensor.Mat) error {
	d.keeper.let(dst.Buf.(*memory))
	d.pack(dst, w)
	return nil
}

// pack says how long it took, without waiting for others who use the device's threads.
func (d *device) pack(dst, w tensor.Mat) time.Duration {
	if w.Rows == 0 || w.Cols == 0 {
		return 0
	}
	start := time.Now()
	if _, ok := packings[w.Format]; !ok {
		w = decoded(w)
	}
	p, c := packings[w.Format], weights(&dst)
	if p.format != dst.Format || w.Rows != dst.Rows || w.Cols != dst.Cols {
		panic(fmt.Sprintf("winnow: bug: cpu: %s into %s", w, dst))
	}
	before := time.Since(start)
	d.mu.Lock()
	defer d.mu.Unlock()
	start = time.Now()
	C.wn_pack(d.ctx, &c, p.from, unsafe.Pointer(&w.Raw()[0]))
	return before + time.Since(start)
}

func (d *device) copied(w tensor.Mat) (tensor.Mat, error) {
	m, err := tensor.NewMat(d, w.Format, w.Rows, w.Cols)
	if err != nil {
		return tensor.Mat{}, err
	}
	copy(m.Raw(), w.Raw())
	m.Name = w.Name
	return m, nil
}

func decoded(w tensor.Mat) tensor.Mat {
	v := make([]float32, w.Rows*w.Cols)
	for i := range w.Rows {
		w.RowF32(v[i*w.Cols:(i+1)*w.Cols], i)
	}
	m := tensor.FromF32(w.Rows, w.Cols, v)
	m.Name = w.Name
	return m
}

// weights describes a loaded weight, or a slice of one that starts at a whole tile.
func weights(m *tensor.Mat) C.wn_weights {
	kind, ok := kinds[m.Format]
	w := C.wn_weights{kind: kind, rows: C.int64_t(m.Rows), cols: C.int64_t(m.Cols)}
	if !ok || kind == C.WN_ROW && m.Rows != 1 {
		panic(fmt.Sprintf("winnow: bug: cpu: %s is no weight that this device has loaded", m))
	}
	if m.Off != 0 && (kind == C.WN_ROW || m.Off%int(C.wn_tile_bytes(&w)) != 0) {
		panic(fmt.Sprintf("winnow: bug: cpu: %s starts inside a tile", m))
	}
	w.tiles = (*C.uint8_t)(address(m))
	return w
}
