package model_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// goldens is a folder's goldens.json with the tensors it names.
type goldens struct {
	Sequences []struct {
		Name      string
		IDs       []int32
		Positions []int
		Logits    string
	}
	Greedy []struct {
		Prompt string
		Tokens []int32
	}
	Router *struct {
		Sequence string
		Layers   []int
	}
	tensors map[string][]float32
}

func readGoldens(t *testing.T, dir string) *goldens {
	t.Helper()
	var g goldens
	b, err := os.ReadFile(filepath.Join(dir, "goldens.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(filepath.Join(dir, "goldens.safetensors")); err != nil {
		t.Fatal(err)
	}
	n := int(binary.LittleEndian.Uint64(b))
	var head map[string]struct {
		Offsets []int `json:"data_offsets"`
	}
	if err := json.Unmarshal(b[8:8+n], &head); err != nil {
		t.Fatal(err)
	}
	g.tensors = map[string][]float32{}
	for name, h := range head {
		if len(h.Offsets) == 2 {
			raw := slices.Clone(b[8+n+h.Offsets[0] : 8+n+h.Offsets[1]])
			g.tensors[name] = unsafe.Slice((*float32)(unsafe.Pointer(&raw[0])), len(raw)/4)
		}
	}
	return &g
}

// fixtures lists checkpoints with goldens: those in testdata, and the larger ones beside the repository.
func fixtures(t *testing.T) (paths []string) {
	for _, pattern := range []string{"testdata/*", "../../shared/models/tiny/*", "../../shared/models/tiny-gguf/*", "../../shared/models/demo-moe", "../../shared/models/stories260k"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(dirs) == 0 {
			t.Logf("%s: not there, skipped", pattern)
		}
		for _, dir := range dirs {
			for _, file := range []string{"", "model.gguf", "model-Q8_0.gguf"} {
				if _, err := os.Stat(filepath.Join(dir, file)); err == nil && (file != "" || exists(dir, "model.safetensors")) && file != "model-Q8_0.gguf" {
					paths = append(paths, filepath.Join(dir, file))
				}
			}
		}
	}
	return paths
}

func exists(dir, file string) bool {
	_, err := os.Stat(filepath.Join(dir, file))
	return err == nil
}

// Every known checkpoint gives its golden logits, greedy continuations and router choices in float32, and nearly so in its own formats:
// the small ones on every device that this machine has, the larger ones on the fastest.
func TestGoldens(t *testing.T) {
	all := devices(t)
	known := 0
	for _, path := range fixtures(t) {
		c, err := store.Open(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		defer c.Close()
		if _, err := model.Describe(c); err != nil {
			t.Logf("skipped: %v", err)
			continue
		}
		known++
		dir, on := path, all
		if !exists(dir, "goldens.json") {
			dir = filepath.Dir(path)
		}
		if !strings.HasPrefix(path, "testdata") {
			on = all[:1]
		}
		for _, d := range on {
			t.Run(filepath.ToSlash(path)+" on "+d.Name(), func(t *testing.T) { golden(t, d, c, readGoldens(t, dir)) })
		}
	}
	if known < 3 {
		t.Errorf("%d checkpoints with goldens, want at least the 3 of testdata", known)
	}
}

// devices are those that this machine can run, the fastest first, the reference last.
func devices(t *testing.T) (all []tensor.Device) {
	for _, variant := range []string{"amx", "avx512", "avx2", "dotprod", "neon"} {
		d, err := cpu.New(cpu.Options{Variant: variant, Log: func(line string) { t.Log(line) }})
		if err != nil {
			t.Logf("skipped: %v", err)
			continue
		}
		if c, ok := d.(io.Closer); ok {
			t.Cleanup(func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
			all = append(all, d)
		}
	}
	return append(all, tensor.Reference())
}

// limits fit the longest sequence of the goldens.
var limits = model.Limits{Rows: 512, Sequences: 1, Wanted: 512, Pages: 8, Context: 512}

func golden(t *testing.T, d tensor.Device, c *store.Checkpoint, g *goldens) {
	var choices []choice
	watched := tensor.Observed(d, func(op tensor.Op, read func(tensor.Mat) []byte) {
		if r, ok := op.(*moe.Route); ok {
			choices = append(choices, choice{read(r.IDs), read(r.Weights), r.Spec.K})
		}
	})
	m, err := model.Load(c, model.Placement{Device: watched}, model.Options{DType: model.Float32, Limits: limits})
	if errors.Is(err, store.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	native, err := model.Load(c, model.Placement{Device: d}, model.Options{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	defer native.Close()
	vocab := m.Spec().Vocab
	for _, s := range g.Sequences {
		choices = nil
		want, got := g.tensors[s.Logits], pick(run(m, s.IDs, 0), s.Positions, vocab)
		if off := apart(got, want) / deviation(want); !(off <= 1e-4) {
			t.Errorf("%s: logits are off by %.2g of their spread", s.Name, off)
		}
		if g.Router != nil && g.Router.Sequence == s.Name {
			g.routed(t, choices)
		}
		if kl := divergence(want, pick(run(native, s.IDs, 0), s.Positions, vocab), vocab); !(kl <= 0.01) {
			t.Errorf("%s: in the file's own formats the logits are %.2g nats off", s.Name, kl)
		}
		for _, gr := range g.Greedy {
			if gr.Prompt != s.Name {
				continue
			}
			if got := greedy(m, s.IDs, len(gr.Tokens)); !slices.Equal(got, gr.Tokens) {
				t.Errorf("%s: greedy %v, want %v", s.Name, got, gr.Tokens)
			}
		}
	}
}

// routed compares a sequence's choices, layer by layer.
func (g *goldens) routed(t *testing.T, got []choice) {
	if len(got) != len(g.Router.Layers) {
		t.Fatalf("%d layers routed, want %d", len(got), len(g.Router.Layers))
	}
	for i, layer := range g.Router.Layers {
		ids, weights := g.tensors[fmt.Sprintf("router.%d.experts", layer)], g.tensors[fmt.Sprintf("router.%d.weights", layer)]
		k := got[i].k
		for row := range len(ids) / k {
			want := map[int32]float32{}
			for j := row * k; j < (row+1)*k; j++ {
				want[int32(math.Float32bits(ids[j]))] = weights[j]
			}
			for j := row * k; j < (row+1)*k; j++ {
				id := int32(binary.LittleEndian.Uint32(got[i].ids[4*j:]))
				w := math.Float32frombits(binary.LittleEndian.Uint32(got[i].weights[4*j:]))
				if math.Abs(float64(w-want[id])) > 1e-4 {
					t.Fatalf("layer %d, token %d: expert %d has weight %v, want %v", layer, row, id, w, want[id])
				}
			}
		}
	}
}

// pick is the rows at positions.
func pick(logits []float32, positions []int, vocab int) (out []float32) {
	for _, p := range positions {
		out = append(out, logits[p*vocab:(p+1)*vocab]...)
	}
	return out
}

// apart is the largest difference.
func apart(a, b []float32) (worst float64) {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	for i := range a {
		worst = max(worst, math.Abs(float64(a[i]-b[i])))
	}
	return worst
}

// divergence is the mean over rows of the Kullback-Leibler divergence of got from want, in nats.
func divergence(want, got []float32, vocab int) (sum float64) {
	for at := 0; at < len(want); at += vocab {
		p, q := logSoftmax(want[at:at+vocab]), logSoftmax(got[at:at+vocab])
		for i := range p {
			sum += math.Exp(p[i]) * (p[i] - q[i])
		}
	}
	return sum * float64(vocab) / float64(len(want))
}

func logSoftmax(z []float32) []float64 {
	top, total := slices.Max(z), 0.0
	for _, v := range z {
		total += math.Exp(float64(v - top))
	}
	out := make([]float64, len(z))
	for i, v := range z {
		out[i] = float64(v-top) - math.Log(total)
	}
	return out
}

// choice is what a layer's router chose for every row, as the device wrote it: I32 ids and F32 weights, k a row.
type choice struct {
	ids, weights []byte
	k            int
}

func deviation(v []float32) float64 {
	var sum, squares float64
	for _, x := range v {
		sum += float64(x)
		squares += float64(x) * float64(x)
	}
	mean := sum / float64(len(v))
	return math.Sqrt(squares/float64(len(v)) - mean*mean)
}

// run steps one sequence past the tokens it has cached and returns the logits of every new row.
func run(m *model.Model, ids []int32, past int) []float32 {
	var s model.Step
	s.Reset()
	s.IDs, s.Past = ids, []int32{int32(past)}
	s.Start = append(s.Start, int32(len(ids)))
	var pages []int32
	for p := range (past + len(ids) + attention.PageTokens - 1) / attention.PageTokens {
		pages = append(pages, int32(m.Limits().Pages-1-p))
	}
	s.Pages = [][]int32{pages}
	for i := range ids {
		s.Want = append(s.Want, int32(i))
	}
	m.Batch().Fill(m.Queue(), &s)
	out := make([]float32, len(ids)*m.Spec().Vocab)
	model.ReadF32(m.Queue(), m.Forward(m.Batch()), out)
	if err := m.Queue().Sync(); err != nil {
		panic(err)
	}
	return out
}

func greedy(m *model.Model, ids []int32, n int) (out []int32) {
	vocab := m.Spec().Vocab
	logits := run(m, ids, 0)
	for i := range n {
		row := logits[len(logits)-vocab:]
		best := 0
		for j, v := range row {
			if v > row[best] {
				best = j
			}
		}
		out = append(out, int32(best))
		logits = run(m, out[i:], len(ids)+i)
	}
	return out
}
