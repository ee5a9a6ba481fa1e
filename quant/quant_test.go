package quant

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/blocks.json from ../../shared/models/formats")

const (
	shared = "../../shared/models/formats"
	golden = "testdata/blocks.json"
)

// goldenBlocks is a few blocks of one format: stored bytes, and the bits of the values they decode to.
type goldenBlocks struct {
	Bytes  []byte // in JSON: base64, as Values, which are little-endian float32
	Values []byte
}

// fileTensors reads a safetensors file: the bytes of each tensor by name.
func fileTensors(t testing.TB, name string) map[string][]byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(shared, name+".safetensors"))
	if err != nil {
		t.Skip("golden blocks are not here: ", err)
	}
	size := binary.LittleEndian.Uint64(raw)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(raw[8:8+size], &header); err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for n, m := range header {
		var e struct {
			DataOffsets [2]int `json:"data_offsets"`
		}
		if n == "__metadata__" {
			continue
		}
		if err := json.Unmarshal(m, &e); err != nil {
			t.Fatal(err)
		}
		out[n] = raw[8+size:][e.DataOffsets[0]:e.DataOffsets[1]]
	}
	return out
}

func floats(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	decodeF32(out, b)
	return out
}

// ours are the formats that no other program has: their golden blocks come from their own decoders, which
// TestGroupFormula checks.
var ours = []*Format{W2G32, W3G32, W4G32}

// decodable are the formats with golden blocks.
func decodable() []*Format {
	var out []*Format
	for _, n := range Names() {
		if f := ByName(n); f.Decode != nil && f != F32 {
			out = append(out, f)
		}
	}
	return out
}

func checkDecode(t *testing.T, f *Format, stored, values []byte) {
	t.Helper()
	want := floats(values)
	if f.RowBytes(len(want)) != len(stored) {
		t.Fatalf("%d values are not %d bytes", len(want), len(stored))
	}
	got := make([]float32, len(want))
	f.Decode(got, stored)
	for i := range want {
		if g, w := math.Float32bits(got[i]), math.Float32bits(want[i]); g != w {
			t.Fatalf("block %d value %d: %x (%v), want %x (%v)", i/f.Block, i%f.Block, g, got[i], w, want[i])
		}
	}
}

func TestDecodeShared(t *testing.T) {
	for _, f := range decodable() {
		if slices.Contains(ours, f) {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			ts := fileTensors(t, f.Name)
			checkDecode(t, f, ts["bytes"], ts["values"])
			if src := ts["encode.bytes"]; src != nil {
				checkDecode(t, f, src, ts["encode.values"])
			}
		})
	}
}

func TestDecodeGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	raw, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]goldenBlocks
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	for _, f := range decodable() {
		t.Run(f.Name, func(t *testing.T) {
			g, ok := all[f.Name]
			if !ok {
				t.Fatal("no golden blocks: run with -update")
			}
			checkDecode(t, f, g.Bytes, g.Values)
		})
	}
}

func writeGolden(t *testing.T) {
	all := map[string]goldenBlocks{}
	for _, f := range decodable() {
		n := 4 * max(1, 16/f.Block)
		if slices.Contains(ours, f) {
			all[f.Name] = ownGolden(f, n)
			continue
		}
		ts := fileTensors(t, f.Name)
		all[f.Name] = goldenBlocks{ts["bytes"][:n*f.Bytes], ts["values"][:n*f.Block*4]}
	}
	raw, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(golden, append(raw, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ownGolden is n blocks of random codes with scales from 2^-10 to 2^4.
func ownGolden(f *Format, n int) goldenBlocks {
	r := rand.New(rand.NewPCG(20261, uint64(f.Bytes)))
	g := goldenBlocks{Bytes: make([]byte, n*f.Bytes), Values: make([]byte, 4*n*f.Block)}
	for i := range g.Bytes {
		g.Bytes[i] = byte(r.Uint32())
		if i%f.Bytes == 1 { // the exponent of the scale
			g.Bytes[i] = byte(5+r.IntN(15))<<3 | g.Bytes[i]&7
		}
	}
	values := make([]float32, n*f.Block)
	f.Decode(values, g.Bytes)
	encodeF32(g.Values, values)
	return g
}

func TestRoundingShared(t *testing.T) {
	ts := fileTensors(t, "rounding")
	for i, v := range floats(ts["src"]) {
		if got, want := F32ToF16(v), binary.LittleEndian.Uint16(ts["f16"][2*i:]); got != want {
			t.Errorf("F16 of %v (%x): %04x, want %04x", v, math.Float32bits(v), got, want)
		}
		if got, want := F32ToBF16(v), binary.LittleEndian.Uint16(ts["bf16"][2*i:]); got != want {
			t.Errorf("BF16 of %v (%x): %04x, want %04x", v, math.Float32bits(v), got, want)
		}
	}
}

// TestRoundingExhaustive looks at all 16-bit values: each comes back, and so do the ties between neighbours, to even.
func TestRoundingExhaustive(t *testing.T) {
	for _, c := range []struct {
		name    string
		widen   func(uint16) float32
		narrow  func(float32) uint16
		inf     uint16 // bits of +Inf
		quieted uint16
	}{
		{"F16", F16ToF32, F32ToF16, 0x7c00, 0x200},
		{"BF16", BF16ToF32, F32ToBF16, 0x7f80, 0x40},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range 1 << 16 {
				b := uint16(i)
				want := b
				if b&0x7fff > c.inf {
					want |= c.quieted
				}
				v := c.widen(b)
				if got := c.narrow(v); got != want {
					t.Fatalf("%04x comes back as %04x", b, got)
				}
				if b&0x7fff+1 >= c.inf {
					continue
				}
				mid := float32((float64(v) + float64(c.widen(b+1))) / 2)
				if got := c.narrow(mid); got != (b+1)&^1 {
					t.Fatalf("tie above %04x becomes %04x", b, got)
				}
				if got := c.narrow(math.Nextafter32(mid, v)); got != b {
					t.Fatalf("below the tie above %04x becomes %04x", b, got)
				}
			}
		})
	}
}

func TestF16Range(t *testing.T) {
	for v, want := range map[float32]uint16{
		65504: 0x7bff, 65519.996: 0x7bff, 65520: 0x7c00, 1e30: 0x7c00, -65520: 0xfc00,
		0x1p-25: 0, 0x1.000002p-25: 1, 0x1p-149: 0, float32(math.Inf(-1)): 0xfc00,
	} {
		if got := F32ToF16(v); got != want {
			t.Errorf("F16 of %v: %04x, want %04x", v, got, want)
		}
	}
}

// TestEncodeShared holds the encoders to the error of the reference encoder on the same values.
func TestEncodeShared(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(shared, "index.json"))
	if err != nil {
		t.Skip("golden blocks are not here: ", err)
	}
	var index struct {
		Formats map[string]struct {
			RMSE float64 `json:"encode_relative_rmse"`
		}
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	for _, f := range decodable() {
		if f.Encode == nil || index.Formats[f.Name].RMSE == 0 {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			src := floats(fileTensors(t, f.Name)["encode.src"])
			got := reencode(f, src)
			var diff, norm float64
			for i, v := range src {
				d := float64(v) - float64(got[i])
				diff, norm = diff+d*d, norm+float64(v)*float64(v)
			}
			rmse := math.Sqrt(diff / norm)
			if limit := index.Formats[f.Name].RMSE; rmse > limit {
				t.Errorf("relative rmse %v, the reference encoder has %v", rmse, limit)
			}
		})
	}
}

func reencode(f *Format, src []float32) []float32 {
	b := make([]byte, f.RowBytes(len(src)))
	f.Encode(b, src)
	out := make([]float32, len(src))
	f.Decode(out, b)
	return out
}

// TestRoundTrip encodes what was decoded: the second encoding stores the same values as the first, as long as the scales
// are not subnormal. Encoders that search, those of blocks of 256, do not promise that.
func TestRoundTrip(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, 0))
	for _, f := range decodable() {
		if f.Encode == nil || f.Block == 256 {
			continue
		}
		src := make([]float32, 64*f.Block)
		for i := range src {
			src[i] = float32(r.NormFloat64()) * float32(math.Exp2(float64(i/f.Block%12-6)))
		}
		once := reencode(f, src)
		if twice := reencode(f, once); !slices.Equal(once, twice) {
			t.Errorf("%s (seed %d): values move when they are encoded again", f.Name, seed)
		}
	}
}

// TestEncodeEdges asks for finite values from blocks that hold none, and exact zeros from zeros.
func TestEncodeEdges(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, f := range []*Format{Q4_0, Q5_0, Q8_0, MXFP4} {
		for _, v := range []float32{0, 1e-45, 1e-8, math.MaxFloat32, -math.MaxFloat32, inf, -inf, nan} {
			src := make([]float32, f.Block)
			src[3] = v
			got := reencode(f, src)
			for i, g := range got {
				if g-g != 0 || i != 3 && g != 0 {
					t.Errorf("%s with %v: value %d becomes %v", f.Name, v, i, g)
				}
			}
		}
	}
}

func TestManyBlocks(t *testing.T) {
	const seed = 11
	r := rand.New(rand.NewPCG(seed, 0))
	for _, f := range decodable() {
		src := make([]byte, 5*f.Bytes)
		for i := range src {
			src[i] = byte(r.Uint32())
		}
		all, one := make([]float32, 5*f.Block), make([]float32, 5*f.Block)
		f.Decode(all, src)
		for i := range 5 {
			f.Decode(one[i*f.Block:][:f.Block], src[i*f.Bytes:][:f.Bytes])
		}
		a, b := make([]byte, 4*len(all)), make([]byte, 4*len(all))
		encodeF32(a, all)
		encodeF32(b, one)
		if !bytes.Equal(a, b) {
			t.Errorf("%s (seed %d): a block decodes differently among others", f.Name, seed)
		}
	}
}

func TestFormat(t *testing.T) {
	if ByName("Q4_K") != Q4_K || ByName("q4_k") != nil {
		t.Error("ByName finds formats by their exact name")
	}
	if !slices.IsSorted(Names()) || !slices.Contains(Names(), "I32") {
		t.Errorf("Names: %v", Names())
	}
	if Q4_K.RowBytes(512) != 288 || Q4_K.Fits(257) || Q4_K.Fits(-256) || !F32.Fits(0) {
		t.Error("RowBytes and Fits count blocks")
	}
}

// FuzzDecode gives every decoder arbitrary bytes of the right length: no panic, whatever they say. What decodes to finite
// values is encoded as finite values again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 420))
	f.Add(bytes.Repeat([]byte{0x7c, 0x00}, 300))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, format := range decodable() {
			n := len(raw) / format.Bytes
			values := make([]float32, n*format.Block)
			format.Decode(values, raw[:n*format.Bytes])
			if format.Encode != nil && allFinite(values) && !allFinite(reencode(format, values)) {
				t.Errorf("%s: finite values become infinite or NaN", format)
			}
		}
	})
}

func allFinite(v []float32) bool {
	return !slices.ContainsFunc(v, func(x float32) bool { return x-x != 0 })
}

func BenchmarkDecode(b *testing.B) {
	for _, f := range decodable() {
		b.Run(f.Name, func(b *testing.B) {
			dst := make([]float32, 1<<14)
			src := make([]byte, f.RowBytes(len(dst)))
			for i := range src {
				src[i] = byte(i * 37 & 0x3f)
			}
			b.SetBytes(int64(4 * len(dst)))
			for b.Loop() {
				f.Decode(dst, src)
			}
		})
	}
}
