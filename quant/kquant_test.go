package quant

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var kFormats = []struct {
	*Format
	*grid
	pack func([]byte, *superblock)
}{
	{Q2_K, gridQ2_K, packQ2_K}, {Q3_K, gridQ3_K, packQ3_K}, {Q4_K, gridQ4_K, packQ4_K},
	{Q5_K, gridQ5_K, packQ5_K}, {Q6_K, gridQ6_K, packQ6_K},
}

// restore is what a superblock means.
func (g *grid) restore(b *superblock) []float32 {
	out := make([]float32, 256)
	for i, c := range b.code {
		s := F16ToF32(b.d) * float32(b.scale[i/g.sub])
		m := F16ToF32(b.dmin) * float32(b.minimum[i/g.sub])
		out[i] = float32(s*float32(int(c)-g.zero)) - m
	}
	return out
}

func TestKQuantPacking(t *testing.T) {
	const seed = 3
	r := rand.New(rand.NewPCG(seed, 0))
	for _, f := range kFormats {
		for range 50 {
			b := superblock{d: F32ToF16(r.Float32() - 0.5)}
			if f.minimumHi > 0 {
				b.dmin = F32ToF16(r.Float32() - 0.5)
			}
			for j := range 256 / f.sub {
				b.scale[j], b.minimum[j] = f.scaleLo+r.IntN(f.scaleHi-f.scaleLo+1), r.IntN(f.minimumHi+1)
			}
			for i := range b.code {
				b.code[i] = byte(r.IntN(f.top + 1))
			}
			raw, got := bytes.Repeat([]byte{0xff}, f.Bytes), make([]float32, 256)
			f.pack(raw, &b)
			f.Decode(got, raw)
			for i, want := range f.restore(&b) {
				if got[i] != want {
					t.Fatalf("%s (seed %d): value %d comes back as %v, want %v", f.Name, seed, i, got[i], want)
				}
			}
		}
	}
}

// plain is the encoding without a fit: codes evenly spaced between the extremes of each sub-block, or with its value of
// largest magnitude on the lowest code, and everything rounded to the nearest.
func (g *grid) plain(src []float32) superblock {
	f := fitting{grid: g}
	b := f.begin(src)
	var steepest, lowest float64
	for j := range 256 / g.sub {
		lo, hi := 0.0, 0.0
		for _, v := range f.of(j) {
			lo, hi = min(lo, v), max(hi, v)
		}
		switch {
		case g.minimumHi > 0:
			f.line[j] = line{(hi - lo) / float64(g.top), -lo}
		case hi > -lo:
			f.line[j] = line{scale: hi / -float64(g.zero)}
		default:
			f.line[j] = line{scale: lo / -float64(g.zero)}
		}
		if s := f.line[j].scale; math.Abs(s) > math.Abs(steepest) {
			steepest = s
		}
		lowest = max(lowest, f.line[j].minimum)
	}
	b.d, b.dmin = scale(float32(steepest/float64(g.scaleHi))), scale(float32(lowest/float64(max(1, g.minimumHi))))
	if g.scaleLo < 0 {
		b.d = scale(float32(steepest / float64(g.scaleLo)))
	}
	for j := range 256 / g.sub {
		b.scale[j], _ = window(f.line[j].scale/float64(F16ToF32(b.d)), 0, g.scaleLo, g.scaleHi)
		b.minimum[j], _ = window(f.line[j].minimum/float64(F16ToF32(b.dmin)), 0, 0, g.minimumHi)
	}
	f.encode(&b)
	return b
}

// kRows are blocks of weights as they occur: of one size, heavy-tailed, with outliers, and of a size that differs between
// sub-blocks.
func kRows(kind string, count int) []float32 {
	r := rand.New(rand.NewPCG(20261, uint64(len(kind))))
	out := make([]float32, 256*count)
	for i := range out {
		v := 0.02 * r.NormFloat64()
		switch kind {
		case "laplace":
			v *= math.Sqrt(2 * r.ExpFloat64())
		case "outlier":
			if r.IntN(50) == 0 {
				v *= 8
			}
		case "uneven":
			v *= math.Exp(math.Sin(float64(i / 16)))
		}
		out[i] = float32(v)
	}
	return out
}

// TestKQuantError holds the encoders to the error of ggml's reference encoders on the golden rows, and to that of plain
// rounding on others.
func TestKQuantError(t *testing.T) {
	var index struct {
		Formats map[string]struct {
			RMSE float64 `json:"encode_relative_rmse"`
		}
	}
	if raw, err := os.ReadFile(filepath.Join(shared, "index.json")); err != nil {
		t.Log("without ggml's rows: ", err)
	} else if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	lines := []string{"format bits/value  rows     rmse      than  rmse      ratio"}
	for _, f := range kFormats {
		check := func(rows, than string, ours, theirs float64) {
			ratio := ours / theirs
			lines = append(lines, fmt.Sprintf("%s   %.4f     %-8s %.6f  %-5s %.6f  %.4f", f.Name, float64(8*f.Bytes)/256, rows, ours, than, theirs, ratio))
			if !(ratio <= 1+1e-6) {
				t.Errorf("%s, rows %s: relative rmse %v, %s has %v", f.Name, rows, ours, than, theirs)
			}
		}
		if ggml := index.Formats[f.Name].RMSE; ggml > 0 {
			src := floats(fileTensors(t, f.Name)["encode.src"])
			check("golden", "ggml", rmse(reencode(f.Format, src), src), ggml)
		}
		for _, kind := range []string{"gauss", "laplace", "outlier", "uneven"} {
			src := kRows(kind, 1000)
			var plain []float32
			for at := 0; at < len(src); at += 256 {
				b := f.plain(src[at:])
				plain = append(plain, f.restore(&b)...)
			}
			check(kind, "plain", rmse(reencode(f.Format, src), src), rmse(plain, src))
		}
	}
	t.Log("\n" + strings.Join(lines, "\n"))
}

// TestKQuantAgain encodes what was decoded. A search does not promise the same values; it loses less than a fifth of what
// the first encoding lost.
func TestKQuantAgain(t *testing.T) {
	for _, f := range kFormats {
		src := kRows("gauss", 100)
		once := reencode(f.Format, src)
		first, second := rmse(once, src), rmse(reencode(f.Format, once), once)
		if second > first/5 {
			t.Errorf("%s: relative rmse %v, and %v when encoded again", f.Name, first, second)
		}
	}
}

// TestKQuantEdges asks for finite values from blocks that hold none, for zeros from zeros, and for the same bytes from a
// block whatever stands before it.
func TestKQuantEdges(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, f := range kFormats {
		for _, v := range []float32{0, 1e-45, -1e-45, 3e-8, 1e-6, 65504, 1e9, math.MaxFloat32, -math.MaxFloat32, inf, -inf, nan} {
			spike, flat, both := make([]float32, 256), make([]float32, 256), kRows("gauss", 1)
			spike[3], both[17] = v, v
			for i := range flat {
				flat[i] = v
			}
			src := append(append(spike, flat...), both...)
			for i, g := range reencode(f.Format, src) {
				if g-g != 0 || src[i/256*256+3] == 0 && g != 0 {
					t.Errorf("%s with %v: value %d becomes %v", f.Name, v, i, g)
				}
			}
			all, alone := make([]byte, 3*f.Bytes), make([]byte, 3*f.Bytes)
			f.Encode(all, src)
			for i := range 3 {
				f.Encode(alone[i*f.Bytes:][:f.Bytes], src[256*i:][:256])
			}
			if !bytes.Equal(all, alone) {
				t.Errorf("%s with %v: a block is encoded differently among others", f.Name, v)
			}
		}
	}
}

func TestKQuantAllocatesNothing(t *testing.T) {
	src := kRows("gauss", 2)
	for _, f := range kFormats {
		dst := make([]byte, 2*f.Bytes)
		if n := testing.AllocsPerRun(10, func() { f.Encode(dst, src) }); n != 0 {
			t.Errorf("%s: %v allocations to encode two blocks", f.Name, n)
		}
	}
}

// FuzzEncodeK gives the encoders arbitrary floats. What they store decodes to finite values, and of finite values less is
// lost than by storing zeros.
func FuzzEncodeK(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff, 0x80, 0x7f, 0x7f}, 256))
	f.Add(bytes.Repeat([]byte{0, 0, 0x80, 0x33, 0, 0, 0, 0xb4}, 128))
	f.Fuzz(func(t *testing.T, raw []byte) {
		src := make([]float32, 256)
		copy(src, floats(raw[:min(len(raw), 1024)/4*4]))
		var norm float64
		for _, v := range src {
			norm += float64(v) * float64(v)
		}
		for _, k := range kFormats {
			var diff float64
			for i, g := range reencode(k.Format, src) {
				if g-g != 0 {
					t.Fatalf("%s: value %d, %v, becomes %v", k.Name, i, src[i], g)
				}
				d := float64(g) - float64(src[i])
				diff += d * d
			}
			if norm-norm == 0 && diff > norm*(1+1e-6) {
				t.Fatalf("%s: squared error %v of values whose squares add up to %v", k.Name, diff, norm)
			}
		}
	})
}

func BenchmarkEncodeK(b *testing.B) {
	src := kRows("gauss", 16)
	for _, f := range kFormats {
		b.Run(f.Name, func(b *testing.B) {
			dst := make([]byte, f.RowBytes(len(src)))
			for b.Loop() {
				f.Encode(dst, src)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(src)), "ns/value")
		})
	}
}
