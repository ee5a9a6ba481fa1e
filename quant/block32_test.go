package quant

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// gaussian rows are what the encoders are compared on; the values do not depend on the machine.
func gaussian() []float32 {
	r := rand.New(rand.NewPCG(20261, 0))
	out := make([]float32, 256*256)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	return out
}

// peers are relative errors of ggml 0.25.3, without an importance matrix, on the gaussian rows. A format that ggml does
// not have is held to one of ggml's that takes about as many bits.
var peers = []struct {
	format *Format
	peer   string
	bits   float64 // a value of the peer
	rmse   float64
}{
	{Q4_0, "Q4_0", 4.5, 0.086352709},
	{Q4_1, "Q4_1", 5, 0.078599175},
	{Q5_0, "Q5_0", 5.5, 0.042820142},
	{Q5_1, "Q5_1", 6, 0.038048322},
	{Q8_0, "Q8_0", 8.5, 0.005376369},
	{IQ4_NL, "IQ4_NL", 4.5, 0.076201943},
	{IQ4_XS, "IQ4_XS", 4.25, 0.076792692},
	{MXFP4, "MXFP4", 4.25, 0.115078468},
	{W2G32, "Q2_K", 2.625, 0.298791005},
	{W3G32, "Q3_K", 3.4375, 0.151624715},
	{W4G32, "Q4_0", 4.5, 0.086352709},
	{W4G32, "Q4_K", 4.5, 0.071570475},
}

// rmse is the error of got relative to the size of want.
func rmse(got, want []float32) float64 {
	var diff, norm float64
	for i, v := range want {
		d := float64(v) - float64(got[i])
		diff, norm = diff+d*d, norm+float64(v)*float64(v)
	}
	return math.Sqrt(diff / norm)
}

func bitsPerValue(f *Format) float64 { return 8 * float64(f.Bytes) / float64(f.Block) }

func TestEncodeGaussian(t *testing.T) {
	src := gaussian()
	t.Log("format   bits    rmse      peer     bits    rmse      ratio")
	for _, p := range peers {
		got := rmse(reencode(p.format, src), src)
		t.Logf("%-7s  %.4f  %.6f  %-7s  %.4f  %.6f  %.4f", p.format, bitsPerValue(p.format), got, p.peer, p.bits, p.rmse, got/p.rmse)
		if !(got/p.rmse <= 1+1e-6) {
			t.Errorf("%s: relative rmse %v, %s of ggml has %v", p.format, got, p.peer, p.rmse)
		}
	}
}

// TestEncodeGoldenRows prints the errors on ggml's own rows, which have a block of zeros and an outlier, beside those of
// what ggml made of them.
func TestEncodeGoldenRows(t *testing.T) {
	t.Log("format   bits    rmse      ggml      ratio")
	for _, p := range peers {
		if p.format.Name != p.peer {
			continue
		}
		ts := fileTensors(t, p.peer)
		src := floats(ts["encode.src"])
		got, ggml := rmse(reencode(p.format, src), src), rmse(floats(ts["encode.values"]), src)
		t.Logf("%-7s  %.4f  %.6f  %.6f  %.4f", p.format, bitsPerValue(p.format), got, ggml, got/ggml)
		if !(got/ggml <= 1+1e-6) {
			t.Errorf("%s: relative rmse %v, ggml has %v", p.format, got, ggml)
		}
	}
}

// TestGroupFormula reads each code of random groups bit by bit from the words of the Layout paragraph.
func TestGroupFormula(t *testing.T) {
	const seed = 3
	r := rand.New(rand.NewPCG(seed, 0))
	code := map[*Format]func(b []byte, j int) byte{
		W2G32: func(b []byte, j int) byte { return b[2+j%8] >> (2 * (j / 8)) & 3 },
		W3G32: func(b []byte, j int) byte {
			return b[2+j%8]>>(2*(j/8))&3 | b[10+j/8]>>(j%8)&1<<2
		},
		W4G32: func(b []byte, j int) byte { return b[2+j%16] >> (4 * (j / 16)) & 15 },
	}
	for bits, f := range map[int]*Format{2: W2G32, 3: W3G32, 4: W4G32} {
		for range 200 {
			src, got := make([]byte, f.Bytes), make([]float32, 32)
			for i := range src {
				src[i] = byte(r.Uint32())
			}
			h := binary.LittleEndian.Uint16(src)
			if h>>11 == 31 {
				continue
			}
			exponent, fraction := float64(h>>11), float64(h>>6&31)
			d := math.Exp2(exponent-15) * (1 + fraction/32)
			if exponent == 0 {
				d = math.Exp2(-14) * fraction / 32
			}
			zero := float64(h&63) / 64 * math.Exp2(float64(bits))
			f.Decode(got, src)
			for j, v := range got {
				if want := (float64(code[f](src, j)) - zero) * d; float64(v) != want {
					t.Fatalf("%s (seed %d) % x: value %d is %v, want %v", f, seed, src, j, v, want)
				}
			}
		}
	}
}

// TestScaleOfE8M0 pins the ends of the range of MXFP4's scales, by what code 1, one half, decodes to.
func TestScaleOfE8M0(t *testing.T) {
	for e, want := range map[byte]float32{
		0: 0x1p-128, 1: 0x1p-127, 2: 0x1p-126, 127: 0.5, 128: 1, 254: 0x1p126, 255: float32(math.NaN()),
	} {
		src, got := bytes.Repeat([]byte{0x91}, 17), make([]float32, 32) // codes 1 and -1
		src[0] = e
		MXFP4.Decode(got, src)
		if math.Float32bits(got[0]) != math.Float32bits(want) && (want == want || got[0] == got[0]) || got[16] != -got[0] && want == want {
			t.Errorf("scale byte %d: %v and %v, want %v and its opposite", e, got[0], got[16], want)
		}
	}
	src, got := make([]byte, 17), make([]float32, 32)
	for i := range 16 {
		src[0], src[1+i] = 128, byte(i)
	}
	MXFP4.Decode(got, src)
	if want := []float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}; !slices.Equal(got[:16], want) {
		t.Errorf("codes decode to %v", got[:16])
	}
}

// TestNearestLevel holds the table of cells to a search over all levels.
func TestNearestLevel(t *testing.T) {
	for name, c := range map[string]*codebook{"Q4_0": q4, "Q5_0": q5, "IQ4": iq4, "FP4": fp4} {
		for x := c.lo - 3; x <= c.hi+3; x += 1. / 16 {
			in, b := [32]float32{x}, scaled{err: math.Inf(1)}
			b.try(c, &in, 1)
			got, want := abs(c.levels[b.codes[0]]-x), float32(math.Inf(1))
			for _, v := range c.levels {
				want = min(want, abs(v-x))
			}
			if got != want {
				t.Errorf("%s: %v goes to %v, %v away and not %v", name, x, c.levels[b.codes[0]], got, want)
			}
		}
	}
}

// exact are the formats whose encoders find the scale of values that are stored already.
var exact = []*Format{Q4_0, Q5_0, Q8_0, IQ4_NL, MXFP4}

// again encodes values, then what they decode to, and says what is wrong with that.
func again(f *Format, src []float32) string {
	once := reencode(f, src)
	twice := reencode(f, once)
	top := abs(extreme(once))
	if !allFinite(once) || !allFinite(twice) {
		return "not finite"
	}
	if top < 0x1p-5 || top > 65504 { // scales are subnormal, or clipped
		return ""
	}
	if slices.Contains(exact, f) {
		if !slices.Equal(once, twice) {
			return "values move when they are encoded again"
		}
	} else if rmse(twice, once) > 0.5 {
		return "values move far when they are encoded again"
	}
	return ""
}

// FuzzEncode gives the encoders of blocks arbitrary floats: no panic, finite values, the same bytes each time, and little
// change when the values are encoded again.
func FuzzEncode(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 0))
	for _, size := range []float64{1e-42, 1e-7, 1, 1e5, 1e38} {
		src := make([]float32, 256)
		for i := range src {
			src[i] = float32(size * r.NormFloat64())
		}
		raw := make([]byte, 4*len(src))
		encodeF32(raw, src)
		for which := range peers {
			f.Add(raw, uint8(which))
		}
	}
	f.Add(bytes.Repeat([]byte{0, 0, 0x80, 0x7f}, 256), uint8(0)) // infinities
	f.Add(bytes.Repeat([]byte{0xff}, 1024), uint8(1))            // NaN
	f.Fuzz(func(t *testing.T, raw []byte, which uint8) {
		format := peers[int(which)%len(peers)].format
		values := floats(raw[:len(raw)/4*4])
		src := values[:len(values)/format.Block*format.Block]
		a, b := make([]byte, format.RowBytes(len(src))), bytes.Repeat([]byte{0xff}, format.RowBytes(len(src)))
		format.Encode(a, src)
		format.Encode(b, src)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the bytes depend on what was there", format)
		}
		for at := 0; at < len(src); at += format.Block {
			if bad := again(format, src[at:][:format.Block]); bad != "" {
				t.Errorf("%s: %s", format, bad)
			}
		}
	})
}

// TestEncodeAnyValues is the part of FuzzEncode that always runs: blocks of random bits, of constants, of one outlier.
func TestEncodeAnyValues(t *testing.T) {
	const seed = 5
	r := rand.New(rand.NewPCG(seed, 0))
	for _, p := range peers {
		for range 200 {
			bits, constant, outlier := make([]float32, p.format.Block), make([]float32, p.format.Block), make([]float32, p.format.Block)
			v := math.Float32frombits(r.Uint32())
			for i := range bits {
				bits[i], constant[i], outlier[i] = math.Float32frombits(r.Uint32()), v, float32(r.NormFloat64())
			}
			outlier[r.IntN(len(outlier))] = v
			for name, src := range map[string][]float32{"bits": bits, "constant": constant, "outlier": outlier} {
				if bad := again(p.format, src); bad != "" {
					t.Errorf("%s (seed %d) %s: %s: %v", p.format, seed, name, bad, src)
				}
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	src := gaussian()[:1<<12]
	for _, p := range peers {
		b.Run(p.format.Name, func(b *testing.B) {
			dst := make([]byte, p.format.RowBytes(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				p.format.Encode(dst, src)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(src)), "ns/value")
		})
	}
}
