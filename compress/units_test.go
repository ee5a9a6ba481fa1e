package compress

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// openDemo opens the embedded model: 6 layers of 8 experts, rows of 256 and 128 values in Q8_0.
func openDemo(t *testing.T) *store.Checkpoint {
	t.Helper()
	c, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// random is a tensor of normally distributed values.
func random(r *rand.Rand, name string, f *quant.Format, shape ...int) store.NewTensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(r.NormFloat64())
	}
	raw := make([]byte, n/f.Block*f.Bytes)
	f.Encode(raw, values)
	return store.NewTensor{Name: name, Format: f, Shape: shape, Pieces: one(raw)}
}

// made is a checkpoint of tensors, of an architecture that uses 2 experts for a token.
func made(t *testing.T, tensors ...store.NewTensor) *store.Checkpoint {
	t.Helper()
	path := filepath.Join(t.TempDir(), "made.gguf")
	meta := store.Meta{"general.architecture": "x", "x.expert_used_count": uint32(2), "split.count": uint16(0), "general.name": "made"}
	if err := store.WriteGGUF(t.Context(), path, store.NewGGUF{Meta: meta, Tensors: tensors}, nil); err != nil {
		t.Fatal(err)
	}
	c, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// expertsOf is the stacks of a layer with 6 experts, or its shared expert, of 256 columns, and the 512 of down.
func expertsOf(r *rand.Rand, layer, kind string, f *quant.Format) []store.NewTensor {
	shape := []int{6}
	if kind == "_shexp" {
		shape = nil
	}
	name := func(part string) string { return "blk." + layer + ".ffn_" + part + kind + ".weight" }
	return []store.NewTensor{
		random(r, name("gate"), f, append(slices.Clone(shape), 512, 256)...), random(r, name("up"), f, append(slices.Clone(shape), 512, 256)...),
		random(r, name("down"), f, append(slices.Clone(shape), 256, 512)...),
	}
}

// smallExperts is the stacks of a layer with 6 experts of 32 x 64.
func smallExperts(r *rand.Rand) []store.NewTensor {
	return []store.NewTensor{
		random(r, "blk.0.ffn_gate_exps.weight", quant.F32, 6, 32, 64), random(r, "blk.0.ffn_up_exps.weight", quant.F32, 6, 32, 64),
		random(r, "blk.0.ffn_down_exps.weight", quant.F32, 6, 64, 32),
	}
}

func seenOf(layers, experts int) *Profile {
	p := &Profile{Layers: make([]LayerProfile, layers)}
	for l := range p.Layers {
		s := LayerProfile{Tokens: 10000}
		for e := range experts {
			s.Usage, s.Weight2 = append(s.Usage, int64(1000*e)), append(s.Weight2, float64(500*e))
		}
		p.Layers[l] = s
	}
	return p
}

func TestMeasure(t *testing.T) {
	c, seen := openDemo(t), 0
	units, err := Measure(t.Context(), c, nil, Measurement{Rows: 8, Threads: 2, See: func(done, total int) {
		if seen++; seen != done {
			t.Errorf("%d units of %d are done after %d", done, total, seen-1)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if want := 6 * (4 + 8); len(units) != want || seen != want {
		t.Fatalf("%d units, %d of them seen, want %d", len(units), seen, want)
	}
	for _, u := range units {
		formats, kind := []string{}, u.Kind
		for i, choice := range u.Choices {
			formats = append(formats, choice.Format)
			if i > 0 && (choice.Bytes <= u.Choices[i-1].Bytes || choice.Error >= u.Choices[i-1].Error) {
				t.Errorf("layer %d, %s %d: %v does not follow %v", u.Layer, kind, u.Expert, choice, u.Choices[i-1])
			}
		}
		if want := []string{"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0"}; !slices.Equal(formats, want) {
			t.Errorf("layer %d, %s %d: choices %v", u.Layer, kind, u.Expert, formats)
		}
		if last := u.Choices[len(u.Choices)-1]; last.Error != 0 {
			t.Errorf("layer %d, %s %d: error %v in the format that it has", u.Layer, kind, u.Expert, last.Error)
		}
		if u.Weight != 1 || u.Outlier <= 1 {
			t.Errorf("layer %d, %s %d: weight %v, outlier score %v", u.Layer, kind, u.Expert, u.Weight, u.Outlier)
		}
		floor := map[Kind]string{Attention: "Q4_K", Expert: "Q2_K"}[kind] // down of an expert has rows of 128, so its Q2_K takes 3.25 bits
		if kind == Expert && (u.Layer == 0 || u.Layer == 5) {
			floor = "Q4_K"
		}
		if got := u.Choices[u.Floor].Format; got != floor {
			t.Errorf("layer %d, %s %d: floor %s, want %s", u.Layer, kind, u.Expert, got, floor)
		}
	}
}

// TestMeasureFits: the formats of other blocks are named where all of a unit's rows need them, and no unit has a choice twice.
func TestMeasureFits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, tt := range []struct {
		cols int
		from *quant.Format
		want string
	}{
		{256, quant.F32, "Q2_K Q3_K Q4_K Q5_K Q6_K Q8_0"},
		{256, quant.Q5_K, "Q2_K Q3_K Q4_K Q5_K"},
		{256, quant.Q4_0, "Q2_K Q3_K Q4_K"}, // Q4_K takes no less than what it has, so it means that
		{64, quant.F32, "IQ4_NL Q5_0 Q5_1 Q8_0"},
		{48, quant.F32, "F16"},
	} {
		units, err := Measure(t.Context(), made(t, random(r, "blk.0.attn_q.weight", tt.from, 32, tt.cols)), nil, Measurement{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range units[0].Choices {
			names = append(names, c.Format)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s rows of %d: choices %s, want %s", tt.from, tt.cols, got, tt.want)
		}
	}
}

func TestMeasureWithProfile(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	tensors := append(expertsOf(r, "0", "_exps", quant.F32), expertsOf(r, "0", "_shexp", quant.F32)...)
	c, p := made(t, tensors...), seenOf(1, 6)
	plain, err := Measure(t.Context(), c, nil, Measurement{Rows: 4})
	if err != nil {
		t.Fatal(err)
	}
	one := make([]float64, 256) // only column 7 has inputs
	one[7] = 3
	p.Layers[0].Inputs = [][]float64{nil, nil, nil, one, nil, nil}
	units, err := Measure(t.Context(), c, p, Measurement{Rows: 4})
	if err != nil {
		t.Fatal(err)
	}
	var errs []float64 // of Q3_K, of the experts that were chosen
	for i, u := range units {
		if u.Kind != Expert {
			if u.Kind != Shared || u.Weight != 1 || u.Floor != 1 {
				t.Errorf("%s has weight %v and floor %d", u.Kind, u.Weight, u.Floor)
			}
			continue
		}
		if want := 0.05 * float64(u.Expert); math.Abs(u.Weight-want) > 1e-12 {
			t.Errorf("expert %d has weight %v, want %v", u.Expert, u.Weight, want)
		}
		if u.Expert > 0 {
			errs = append(errs, u.Choices[1].Error)
		}
		if same := u.Choices[1].Error == plain[i].Choices[1].Error; same != (u.Expert != 0 && u.Expert != 3) {
			t.Errorf("expert %d: error %v, without a profile %v", u.Expert, u.Choices[1].Error, plain[i].Choices[1].Error)
		}
	}
	slices.Sort(errs)
	if got := units[0].Choices[1].Error; units[0].Expert != 0 || got != errs[2] {
		t.Errorf("expert 0, never chosen: error %v, the median of the others is %v", got, errs[2])
	}
	if _, err := Measure(t.Context(), c, seenOf(1, 5), Measurement{}); !errors.Is(err, ErrProfile) {
		t.Errorf("a profile of 5 experts: %v, want ErrProfile", err)
	}
	never := seenOf(1, 6)
	clear(never.Layers[0].Usage)
	if units, err = Measure(t.Context(), c, never, Measurement{Rows: 4}); err != nil || !reflect.DeepEqual(units, plain) {
		t.Errorf("a profile in which no expert was chosen differs from none (%v)", err)
	}
}

func TestMeasureRefuses(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for name, tt := range map[string]struct {
		tensors []store.NewTensor
		want    error
	}{
		"no up":      {[]store.NewTensor{random(r, "blk.0.ffn_gate.weight", quant.F32, 8, 32)}, store.ErrNoTensor},
		"a matrix":   {[]store.NewTensor{random(r, "blk.0.ffn_gate_exps.weight", quant.F32, 8, 32)}, store.ErrFormat},
		"fewer ups":  {append(expertsOf(r, "0", "_exps", quant.F32)[:1], random(r, "blk.0.ffn_up_exps.weight", quant.F32, 5, 512, 256)), store.ErrFormat},
		"with banks": {[]store.NewTensor{random(r, "blk.0.ffn_gate_exps.q0.weight", quant.F32, 2, 8, 32)}, store.ErrUnsupported},
	} {
		if _, err := Measure(t.Context(), made(t, tt.tensors...), nil, Measurement{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestPolicyRoundTrip(t *testing.T) {
	units := someUnits(rand.New(rand.NewPCG(6, 6)), 3, 8)
	for i := range units {
		units[i].Names = []string{"tensor of unit " + string(rune('a'+i))}
	}
	least, most := span(units)
	chosen, err := Allocate(units, (least+most)/2, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := Policy(units, chosen, "ours")
	for i, u := range units {
		got := o.Tensors[u.Names[0]]
		if u.Kind == Expert {
			b := o.Bits[u.Layer]
			if got = b.Over[u.Expert]; got == "" {
				got = b.Default
			}
		}
		if want := u.Choices[chosen[i]].Format; got != want {
			t.Errorf("layer %d, %s %d: the policy says %s, allocated was %s", u.Layer, u.Kind, u.Expert, got, want)
		}
	}
	var file bytes.Buffer
	if err := WritePolicy(&file, o); err != nil {
		t.Fatal(err)
	}
	back, err := ReadPolicy(bytes.NewReader(file.Bytes()))
	if err != nil || !reflect.DeepEqual(back, o) {
		t.Errorf("%+v came back as %+v (%v)", o, back, err)
	}
}

func TestReadPolicyRefuses(t *testing.T) {
	for _, s := range []string{
		"", "{", "[]", `{"format":2}`, `{"format":1}{}`, `{"format":1,"bytes":{}}`, `{"format":1,"bits":{"x":{}}}`, `{"format":1,"bits":{"0":{}}}`,
		`{"format":1,"bits":{"0":{"default":"W5G32"}}}`, `{"format":1,"bits":{"0":{"default":"Q4_K","over":{"1":"I32"}}}}`,
		`{"format":1,"tensors":{"a":"Q9"}}`,
	} {
		if o, err := ReadPolicy(strings.NewReader(s)); !errors.Is(err, moe.ErrOverlay) {
			t.Errorf("%s: %+v, %v, want ErrOverlay", s, o, err)
		}
	}
}

func FuzzReadPolicy(f *testing.F) {
	f.Add(`{"format":1,"method":"ours","bits":{"3":{"default":"Q4_K","over":{"12":"Q6_K"}}},"tensors":{"a":"Q8_0"}}`)
	f.Add(`{"format":1,"layers":{"3":{"drop":[4,17],"merge":[[8,61]],"topk":8}}}`)
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ReadPolicy(strings.NewReader(s))
		if err != nil {
			if !errors.Is(err, moe.ErrOverlay) || o != nil {
				t.Fatalf("%+v with %v", o, err)
			}
			return
		}
		var file bytes.Buffer
		if err := WritePolicy(&file, o); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPolicy(&file); err != nil {
			t.Fatalf("what was read is not read again: %v", err)
		}
	})
}

// TestErrorsAddUp: an expert's error is that of its matrices together, so that it counts beside attention as each of them would.
func TestErrorsAddUp(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 1))
	c := made(t, smallExperts(r)...)
	units, err := Measure(t.Context(), c, nil, Measurement{Formats: []*quant.Format{quant.W2G32, quant.W4G32}, Floors: None})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		sum := 0.0
		for _, name := range u.Names {
			before := values(part(c.Tensors[name], u.Expert))
			after := make([]float32, len(before))
			quant.W2G32.Decode(after, encoded(quant.W2G32, before))
			var off, size float64
			for i, v := range before {
				d := float64(v) - float64(after[i])
				off, size = off+d*d, size+float64(v)*float64(v)
			}
			sum += off / size
		}
		if got := u.Choices[0]; got.Format != "W2G32" || math.Abs(got.Error-sum) > 1e-9*sum || u.Floor != 0 {
			t.Errorf("expert %d: floor %d, error of %s is %v, of its matrices together %v", u.Expert, u.Floor, got.Format, got.Error, sum)
		}
	}
}
