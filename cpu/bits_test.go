//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/attention/attentiontest"
	"github.com/winnow-llm/winnow/moe/moetest"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// sums are what ops computed on one machine; every variant on every machine computes the same. Operands are drawn, so that a change to
// the lists of cases changes them too.
var sums = map[string]string{
	"anchor":             "59264bc1d129edb5",
	"append":             "bd5cbaf39c2b7f4f",
	"append Q8_0":        "1ffab94dbdcd5e69",
	"attend Q8_0":        "624c6928dee9192f",
	"attend F16":         "70d0421d779db322",
	"attend F32":         "25889d5c3dcf5284",
	"ffn":                "6c0967ca8e3b937d",
	"glu":                "7e9927d98831f80a",
	"linear BF16":        "0e0a9f6ca360c044",
	"linear F16":         "d78ee680eb21295c",
	"linear F32":         "1fc9cb5ae3eeb94a",
	"linear IQ4_NL":      "26a769ffef486cf1",
	"linear IQ4_XS":      "583a19d78ee3c38b",
	"linear MXFP4":       "2d4dce1e17681366",
	"linear Q3_K":        "0f00a795219f1a13",
	"linear Q5_0":        "222fb50225bb17dd",
	"linear Q5_1":        "01e8ca69f425fa41",
	"linear Q4_0":        "bd36c698c2c51528",
	"linear Q4_1":        "74fc80d9f16e5205",
	"linear Q4_K":        "fbf502cc741cc48c",
	"linear Q5_K":        "792de1102c849968",
	"linear Q6_K":        "0e8d935068fdd3eb",
	"linear Q8_0":        "ab4af7f746a8def2",
	"norm":               "da2fba9b96770055",
	"probe":              "239aa6f6c2b50b2f",
	"rope":               "9aeea00a69fe0f1e",
	"sample":             "e7d6d3e12ec5e025",
	"route":              "eb07ebdef84a91b5",
	"tree":               "85b31ad36f571a60",
	"xattention":         "119fad3eb48e3c59",
	"select flexprefill": "f3dccc44d6f7ec48",
	"select minference":  "f9c3f6a14e3a3578",
	"bounds":             "541725528637228c",
}

// The variants of all machines agree to the bit, although no machine runs them all.
func TestBitsAreThoseOfOtherMachines(t *testing.T) {
	heads := attentiontest.Heads{Query: 6, KV: 2, Dim: 40, Format: quant.F32}
	half := heads
	half.Format = quant.F16
	packed := attentiontest.Heads{Query: 6, KV: 2, Dim: 96, Format: quant.Q8_0}
	ragged := attentiontest.Batch{Past: []int{700, 0, 90}, Rows: []int{3, 20, 1}}
	cases := map[string]tensortest.Case{
		"norm":        tensortest.Norm(5, 2, 777),
		"rope":        tensortest.Rope(tensor.Halves, 5, 4, 33),
		"glu":         tensortest.GLU(9, 100),
		"sample":      tensortest.Sample(20, 9001),
		"append":      attentiontest.Append(ragged, half),
		"append Q8_0": attentiontest.Append(ragged, packed),
		"bounds":      attentiontest.KeyBounds(ragged, half, 16),
		"attend F32":  attentiontest.Attend(ragged, heads, attentiontest.Mixed(2)),
		"attend Q8_0": attentiontest.Attend(ragged, packed, attentiontest.Mixed(1)),
		"probe":       attentiontest.Probe(ragged, half, attentiontest.Mixed(2)),
		"attend F16":  attentiontest.Attend(ragged, half, attentiontest.Mixed(1)),
	}
	keys := attentiontest.Grouped{Heads: attentiontest.Heads{Query: 4, KV: 2, Dim: 24, Format: quant.F16}, Size: 256,
		Spans: []attentiontest.Span{{First: 512, Rows: 256, Policy: 1, Knob: attentiontest.Own}}, Room: attentiontest.Room{Groups: 4, Blocks: 16, Keys: 100}}
	cases["select minference"] = attentiontest.SelectMInference(keys, 40, 101)
	cases["select flexprefill"] = attentiontest.SelectFlexPrefill(keys, 1, 0, 0.3)
	for _, c := range moetest.Cases() {
		if strings.HasPrefix(c.Name, "ffn/[Q4_K Q6_K BF16] 20 ") {
			cases["ffn"] = c
		}
		if strings.HasPrefix(c.Name, "tree/") && strings.Contains(c.Name, "gamma:10 ") && strings.HasSuffix(c.Name, "128 trees 8") {
			cases["tree"] = c
		}
		if c.Name == "route/mixtral 17 x 33 experts 128 k 8 wishing" {
			cases["route"] = c
		}
	}
	for _, c := range attentiontest.Cases() {
		switch c.Name {
		case "anchor/F16 7 on 2 x 24 block 16 group 64 unit 1 single 4 theta 0.5 room 256":
			cases["anchor"] = c
		case "xattention/F16 7 on 2 x 24 block 128 stride 4 mean 8 unit 128 cut 4 gamma 0.5":
			cases["xattention"] = c
		}
	}
	for _, v := range variants(t) {
		d := open(t, v, 2)
		have := map[string]string{}
		for name, c := range cases {
			trial := c.Make(c.NewWorld(tensortest.Seed, c.All()))
			p, err := tensortest.Place(d, trial.Op)
			if err != nil {
				t.Fatal(err)
			}
			p.Queue.Run(trial.Op)
			finish(t, p.Queue)
			var out []byte
			_, results := trial.Op.Operands()
			for _, m := range results {
				if m.Present() {
					out = append(out, p.Read(*m)...)
				}
			}
			have[name] = sum(out)
			p.Free()
		}
		for _, f := range allFormats {
			have["linear "+f.Name] = sum(product(t, d, f))
		}
		if len(have) != len(sums) {
			t.Errorf("%s: %d of %d were computed", v, len(have), len(sums))
		}
		for name, s := range have {
			if s != sums[name] {
				t.Errorf("%s, %s: %q, elsewhere %q", v, name, s, sums[name])
			}
		}
	}
}

func sum(b []byte) string {
	h := fnv.New64a()
	h.Write(b)
	return fmt.Sprintf("%016x", h.Sum64())
}

// product multiplies 7 rows with a matrix of a format.
func product(t *testing.T, d *device, f *quant.Format) []byte {
	const rows, n = 21, 7
	r, cols := rand.New(rand.NewPCG(7, 8)), max(3*f.Block, 520)/f.Block*f.Block
	w := randomWeight(r, f, rows, cols)
	op := tensor.Linear{X: f32(t, d, n, cols, normal(r, n*cols)), W: loaded(t, d, w), Y: f32(t, d, n, rows, nil)}
	q := d.Queue()
	q.Run(&op)
	finish(t, q)
	return slices.Clone(op.Y.Raw())
}
