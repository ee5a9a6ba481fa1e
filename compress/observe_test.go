package compress_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// longest is how many tokens the longest sequence of script has.
const longest = 70

// script is a text of random ids: sequences of several lengths, one of them the longest.
func script(vocab int) (all [][]int32) {
	r := rand.New(rand.NewPCG(5, 8))
	for _, n := range []int{9, 1, longest, 33, 2, 64, 5} {
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(r.IntN(vocab))
		}
		all = append(all, ids)
	}
	return all
}

// said is a text of sequences that fails at the end if err is not nil.
func said(all [][]int32, err error) compress.Text {
	return compress.Text{SHA256: strings.Repeat("ab", 32), Sequences: func(yield func([]int32, error) bool) {
		for _, ids := range all {
			if !yield(slices.Clone(ids), nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}}
}

// checkpoints are the small ones with experts.
func checkpoints(t *testing.T) iter.Seq2[string, *store.Checkpoint] {
	return func(yield func(string, *store.Checkpoint) bool) {
		tiny, err := store.Open(filepath.Join("..", "model", "testdata", "qwen3_moe"))
		if err != nil {
			t.Fatal(err)
		}
		defer tiny.Close()
		small, err := store.OpenBytes(demo.Name, demo.GGUF)
		if err != nil {
			t.Fatal(err)
		}
		defer small.Close()
		_ = yield("qwen3_moe", tiny) && yield("demo", small)
	}
}

func fast(t *testing.T) tensor.Device {
	t.Helper()
	d, err := cpu.New(cpu.Options{Threads: 1, Log: func(line string) { t.Log(line) }})
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := d.(io.Closer); ok {
		t.Cleanup(func() { c.Close() })
	}
	return d
}

// study is one in float32 of a checkpoint, with rows a step.
func study(t *testing.T, c *store.Checkpoint, d tensor.Device, rows int) compress.Study {
	t.Helper()
	spec, err := model.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	return compress.Study{
		Checkpoint: c, Device: d, Text: said(script(spec.Vocab), nil), Columns: true,
		Options: model.Options{DType: model.Float32, Limits: model.Limits{Rows: rows, Context: longest}},
	}
}

// The statistics are those that a plain computation in float64 gives, from what the layers' inputs are.
func TestObserveEqualsAPlainComputation(t *testing.T) {
	for name, c := range checkpoints(t) {
		want := plainly(t, c)
		for _, on := range []struct {
			device tensor.Device
			within float64
		}{{tensor.Reference(), 1e-5}, {fast(t), 1e-3}} {
			got, err := compress.Observe(t.Context(), study(t, c, on.device, 50))
			if err != nil {
				t.Fatal(err)
			}
			if err := got.Check(); err != nil || got.Model != c.Fingerprint() || got.Arch != "qwen3moe" || got.Calibration.Tokens != 184 {
				t.Errorf("%s: %v, %s %+v", name, err, got.Arch, got.Calibration)
			}
			if len(got.Layers) != len(want) {
				t.Fatalf("%s: %d layers, want %d", name, len(got.Layers), len(want))
			}
			for i := range want {
				at := fmt.Sprintf("%s on %s, layer %d", name, on.device.Name(), i)
				g, w := got.Layers[i], want[i]
				alikeSums(t, at, on.within, &g, &w)
				g.InputSums, g.HiddenSums, w.InputSums, w.HiddenSums = nil, nil, nil, nil
				alike(t, at, on.within, reflect.ValueOf(g), reflect.ValueOf(w))
			}
		}
	}
}

// alikeSums compares sums whose parts cancel, by how large these parts are at most.
func alikeSums(t *testing.T, name string, within float64, got, want *compress.LayerProfile) {
	t.Helper()
	for what, s := range map[string]struct{ got, want, squares [][]float64 }{
		"inputs": {got.InputSums, want.InputSums, want.Inputs}, "hidden": {got.HiddenSums, want.HiddenSums, want.Hidden},
	} {
		if len(s.got) != len(s.want) {
			t.Fatalf("%s: sums of %s of %d experts, want %d", name, what, len(s.got), len(s.want))
		}
		for e, row := range s.want {
			for j, w := range row {
				if most := math.Sqrt(float64(want.Usage[e]) * s.squares[e][j]); !(math.Abs(s.got[e][j]-w) <= within*(1e-3+most)) {
					t.Errorf("%s, expert %d, %s: sum %v, want %v", name, e, what, s.got[e][j], w)
				}
			}
		}
	}
}

// alike compares the numbers of two layers, whole ones exactly.
func alike(t *testing.T, name string, within float64, got, want reflect.Value) {
	t.Helper()
	switch {
	case got.Kind() == reflect.Struct:
		for i := range got.NumField() {
			alike(t, name+" "+got.Type().Field(i).Name, within, got.Field(i), want.Field(i))
		}
	case got.Kind() == reflect.Slice || got.Kind() == reflect.Array:
		if got.Len() != want.Len() {
			t.Fatalf("%s: %d, want %d", name, got.Len(), want.Len())
		}
		for i := range got.Len() {
			alike(t, name, within, got.Index(i), want.Index(i))
		}
	case got.CanFloat():
		if g, w := got.Float(), want.Float(); !(math.Abs(g-w) <= within*(1e-3+math.Abs(w))) {
			t.Errorf("%s: %v, want %v", name, g, w)
		}
	case got.Int() != want.Int():
		t.Errorf("%s: %d, want %d", name, got.Int(), want.Int())
	}
}

// plainly computes the layers of a profile, one sequence at a time, from the inputs of routers and from the residual stream.
func plainly(t *testing.T, c *store.Checkpoint) []compress.LayerProfile {
	t.Helper()
	var layers []compress.LayerProfile
	var router *moe.Route
	at := 0
	var stream []float32
	see := func(op tensor.Op, _ func(tensor.Mat) []byte) {
		switch op := op.(type) {
		case *tensor.Embed:
			stream = slices.Clone(op.Y.F32())
		case *moe.Route:
			router = op
		case *moe.FFN:
			plainExperts(&layers[at%len(layers)], router, op)
			at++
		}
	}
	m, err := model.Load(c, model.Placement{Device: tensor.Observed(tensor.Reference(), see)}, model.Options{
		DType: model.Float32, Limits: model.Limits{Rows: longest, Sequences: 1, Wanted: 1, Context: longest, Pages: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	spec := m.Spec()
	layers = make([]compress.LayerProfile, len(spec.Layers))
	cosines, tokens := make([]float64, len(layers)), 0
	for _, ids := range script(spec.Vocab) {
		n := len(ids)
		pages := []int32{0, 1}[:(n+attention.PageTokens-1)/attention.PageTokens]
		step := model.Step{IDs: ids, Start: []int32{0, int32(n)}, Past: []int32{0}, Pages: [][]int32{pages}}
		m.Batch().Fill(m.Queue(), &step)
		compare := func(next int) bool {
			if next%2 == 0 {
				now := slices.Clone(m.Residual(n).F32())
				for row := range n {
					cosines[next/2-1] += plainCosine(stream[row*spec.Dim:(row+1)*spec.Dim], now[row*spec.Dim:(row+1)*spec.Dim])
				}
				stream = now
			}
			return true
		}
		compare(m.Part(m.Batch(), 0, compare))
		tokens += n
	}
	for i := range layers {
		layers[i].Importance = 1 - cosines[i]/float64(tokens)
	}
	return layers
}

func plainCosine(a, b []float32) float64 {
	dot := func(a, b []float32) (sum float64) {
		for i := range a {
			sum += float64(a[i]) * float64(b[i])
		}
		return sum
	}
	return dot(a, b) / math.Sqrt(dot(a, a)*dot(b, b))
}

func plainExperts(p *compress.LayerProfile, r *moe.Route, f *moe.FFN) {
	n, k, dim, width, bank := r.Spec.Experts, r.Spec.K, f.X.Cols, f.Hidden.Cols, &f.Banks[0]
	if p.Usage == nil {
		p.K, p.Usage = k, make([]int64, n)
		p.Weight, p.Weight2, p.Saliency, p.Largest = make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
		for range n {
			p.Together = append(p.Together, make([]int64, n))
			p.Inputs, p.Hidden = append(p.Inputs, make([]float64, dim)), append(p.Hidden, make([]float64, width))
			p.InputSums, p.HiddenSums = append(p.InputSums, make([]float64, dim)), append(p.HiddenSums, make([]float64, width))
		}
	}
	for row := range tensor.Live(r.N, r.X.Rows) {
		x := r.X.F32()[row*dim : (row+1)*dim]
		score := make([]float64, n)
		order := make([]int, n)
		for e := range n {
			order[e] = e
			score[e] = math.Exp(plainRow(r.W, e, x))
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(score[b], score[a]) })
		total := 0.0
		for _, e := range order[:k] {
			total += score[e]
		}
		p.Tokens++
		for _, e := range order[:k] {
			w, hidden := score[e]/total, make([]float32, width)
			for j := range width {
				g := plainRow(bank.Gate, e*width+j, x)
				h := g / (1 + math.Exp(-g)) * plainRow(bank.Up, e*width+j, x)
				hidden[j] = float32(h)
				p.Hidden[e][j] += h * h
				p.HiddenSums[e][j] += h
			}
			norm := 0.0
			for j := range dim {
				y := plainRow(bank.Down, e*dim+j, hidden)
				norm += y * y
				p.Largest[e] = max(p.Largest[e], math.Abs(y))
				p.Inputs[e][j] += float64(x[j]) * float64(x[j])
				p.InputSums[e][j] += float64(x[j])
			}
			p.Usage[e]++
			p.Weight[e] += w
			p.Weight2[e] += w * w
			p.Saliency[e] += w * math.Sqrt(norm)
			for _, other := range order[:k] {
				p.Together[e][other]++
			}
		}
		p.Skips[min(63, int(64*score[order[1]]/score[order[0]]))]++
	}
}

func plainRow(w tensor.Mat, row int, x []float32) (sum float64) {
	values := make([]float32, w.Cols)
	w.RowF32(values, row)
	for i, v := range values {
		sum += float64(v) * float64(x[i])
	}
	return sum
}

// How a text is cut into steps does not show, in any bit.
func TestStepsDoNotShow(t *testing.T) {
	for name, c := range checkpoints(t) {
		for _, dtype := range []model.DType{model.Float32, model.Native} {
			var first compress.Profile
			for _, rows := range []int{0, 7, 64, 1} {
				s := study(t, c, fast(t), rows)
				s.Options.DType = dtype
				p, err := compress.Observe(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				if rows == 0 {
					first = p
				} else if !reflect.DeepEqual(p, first) {
					t.Errorf("%s, %s: steps of %d rows give another profile", name, dtype, rows)
				}
			}
		}
	}
}

var errText = errors.New("the text broke off")

// An observation that is interrupted time and again gives the same bits as one that is not.
func TestInterruptionsDoNotShow(t *testing.T) {
	for name, c := range checkpoints(t) {
		for _, rows := range []int{16, 100} {
			s := study(t, c, fast(t), rows)
			want, err := compress.Observe(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			s.Partial = filepath.Join(t.TempDir(), "p.partial")
			spec, _ := model.Describe(c)
			all := script(spec.Vocab)
			s.Text = said(all[:3], errText)
			if _, err := compress.Observe(t.Context(), s); !errors.Is(err, errText) {
				t.Fatalf("%v", err)
			}
			s.Text = said(all, nil)
			ctx, cancel := context.WithCancel(t.Context())
			begun, reached := int64(-1), int64(0)
			s.Progress = func(tokens int64) {
				if begun < 0 {
					begun = tokens
				}
				if reached = tokens; tokens > begun {
					cancel()
				}
			}
			if _, err := compress.Observe(ctx, s); !errors.Is(err, context.Canceled) {
				t.Fatalf("%v", err)
			}
			if begun == 0 && rows == 16 || reached <= begun {
				t.Errorf("%s: it began at %d tokens and came to %d", name, begun, reached)
			}
			s.Every, s.Progress = time.Nanosecond, nil
			if got, err := compress.Observe(t.Context(), s); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %d rows: interrupted, another profile (%v)", name, rows, err)
			}
			if got, err := compress.Observe(t.Context(), s); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %d rows: all was seen, another profile (%v)", name, rows, err)
			}
		}
	}
}

// An interruption within a sequence of several steps keeps nothing of that sequence, wherever it comes.
func TestInterruptionsWithinASequence(t *testing.T) {
	for name, c := range checkpoints(t) {
		if name != "qwen3_moe" {
			continue
		}
		s := study(t, c, tensor.Reference(), 16)
		steps := 0
		counted := func(after int, cancel func()) tensor.Device {
			steps = 0
			return tensor.Observed(tensor.Reference(), func(op tensor.Op, _ func(tensor.Mat) []byte) {
				if _, ok := op.(*tensor.Embed); ok {
					if steps++; steps == after {
						cancel()
					}
				}
			})
		}
		s.Device = counted(-1, nil)
		want, err := compress.Observe(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		all := steps
		if all < 12 {
			t.Fatalf("%d steps", all)
		}
		kept := 0
		for after := 1; after < all; after++ {
			ctx, cancel := context.WithCancel(t.Context())
			s.Partial, s.Device = filepath.Join(t.TempDir(), "p.partial"), counted(after, cancel)
			if _, err := compress.Observe(ctx, s); !errors.Is(err, context.Canceled) || steps != after {
				t.Fatalf("%v after %d steps of %d", err, steps, after)
			}
			if _, err := os.Stat(s.Partial); err == nil {
				kept++
			}
			s.Device = tensor.Reference()
			if got, err := compress.Observe(t.Context(), s); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("interrupted after %d steps, another profile (%v)", after, err)
			}
		}
		if kept == 0 || kept == all-1 {
			t.Errorf("something was kept at %d of %d interruptions", kept, all-1)
		}
	}
}

func TestAPartialOfAnotherStudyIsRefused(t *testing.T) {
	for _, c := range checkpoints(t) {
		s := study(t, c, fast(t), 16)
		s.Partial = filepath.Join(t.TempDir(), "p.partial")
		s.Every = time.Nanosecond
		whole, err := compress.Observe(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := os.ReadFile(s.Partial)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := compress.ReadProfile(s.Partial); !errors.Is(err, compress.ErrProfile) {
			t.Errorf("what is not finished was read: %v", err)
		}
		other := s
		other.Text.SHA256 = strings.Repeat("cd", 32)
		shorter, spec := s, model.Spec{}
		if spec, err = model.Describe(c); err != nil {
			t.Fatal(err)
		}
		all := script(spec.Vocab)
		shorter.Text = said(all[:3], nil)
		changed := s
		all[1][0] ^= 1
		changed.Text = said(all, nil)
		fewer := s
		fewer.Columns = false
		for _, other := range []compress.Study{other, shorter, changed, fewer} {
			if _, err := compress.Observe(t.Context(), other); !errors.Is(err, compress.ErrPartial) || !strings.Contains(err.Error(), s.Partial) {
				t.Errorf("%v", err)
			}
		}
		if again, err := os.ReadFile(s.Partial); err != nil || string(again) != string(kept) {
			t.Errorf("a refused partial was changed (%v)", err)
		}
		for _, raw := range []string{"", string(kept[:len(kept)/2]), strings.Replace(string(kept), whole.Model, strings.Repeat("ef", 32), 1)} {
			if err := os.WriteFile(s.Partial, []byte(raw), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := compress.Observe(t.Context(), s); !errors.Is(err, compress.ErrPartial) {
				t.Errorf("%.40q: %v", raw, err)
			}
		}
		if err := compress.WriteProfile(s.Partial, whole); err != nil {
			t.Fatal(err)
		}
		if _, err := compress.Observe(t.Context(), s); !errors.Is(err, compress.ErrPartial) {
			t.Errorf("a finished profile: %v", err)
		}
		return
	}
}

func TestTextsThatNoModelReads(t *testing.T) {
	for _, c := range checkpoints(t) {
		for what, change := range map[string]func(s *compress.Study){
			"no sequence":     func(s *compress.Study) { s.Text = said(nil, nil) },
			"an empty one":    func(s *compress.Study) { s.Text = said([][]int32{{}}, nil) },
			"a long one":      func(s *compress.Study) { s.Text = said([][]int32{make([]int32, longest+1)}, nil) },
			"a negative id":   func(s *compress.Study) { s.Text = said([][]int32{{1, -1}}, nil) },
			"an id too large": func(s *compress.Study) { s.Text = said([][]int32{{1 << 20}}, nil) },
			"no digest":       func(s *compress.Study) { s.Text.SHA256 = "" },
			"no context":      func(s *compress.Study) { s.Options.Limits.Context = 0 },
			"a long context":  func(s *compress.Study) { s.Options.Limits.Context = 1 << 30 },
		} {
			s := study(t, c, tensor.Reference(), 16)
			change(&s)
			if _, err := compress.Observe(t.Context(), s); !errors.Is(err, compress.ErrText) {
				t.Errorf("%s: %v", what, err)
			}
		}
		return
	}
}
