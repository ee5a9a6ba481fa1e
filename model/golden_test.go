package model_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"github.com/winnow-llm/winnow/attention"
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

// Every known checkpoint gives its golden logits, greedy continuations and router choices in float32 on the reference device.
func TestGoldens(t *testing.T) {
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
		t.Run(filepath.ToSlash(path), func(t *testing.T) {
			dir := path
			if !exists(dir, "goldens.json") {
				dir = filepath.Dir(path)
			}
			golden(t, c, readGoldens(t, dir))
		})
	}
	if known < 3 {
		t.Errorf("%d checkpoints with goldens, want at least the 3 of testdata", known)
	}
}

func golden(t *testing.T, c *store.Checkpoint, g *goldens) {
	var choices []*choice
	dev := watched{tensor.Reference(), func(op tensor.Op) {
		if r, ok := op.(*moe.Route); ok {
			n := int(r.N.I32()[0]) * r.Spec.K
			choices = append(choices, &choice{slices.Clone(r.IDs.I32()[:n]), slices.Clone(r.Weights.F32()[:n])})
		}
	}}
	lim := model.Limits{Rows: 512, Sequences: 1, Wanted: 512, Pages: 8, Context: 512}
	m, err := model.Load(c, model.Placement{Device: dev}, model.Options{DType: model.Float32, Limits: lim})
	if errors.Is(err, store.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, s := range g.Sequences {
		choices = nil
		got, want, vocab := run(m, s.IDs, 0), g.tensors[s.Logits], m.Spec().Vocab
		spread, worst := deviation(want), 0.0
		for i, p := range s.Positions {
			for j := range vocab {
				worst = max(worst, math.Abs(float64(got[p*vocab+j]-want[i*vocab+j])))
			}
		}
		if !(worst <= 1e-4*spread) {
			t.Errorf("%s: logits are off by %.2g of their spread", s.Name, worst/spread)
		}
		if g.Router != nil && g.Router.Sequence == s.Name && len(choices) != len(g.Router.Layers) {
			t.Errorf("%d layers routed, want %d", len(choices), len(g.Router.Layers))
		}
		for _, gr := range g.Greedy {
			if gr.Prompt == s.Name {
				if got := greedy(m, s.IDs, 16); !slices.Equal(got, gr.Tokens[:16]) {
					t.Errorf("%s: greedy %v, want %v", s.Name, got, gr.Tokens[:16])
				}
			}
		}
	}
}

type choice struct {
	ids     []int32
	weights []float32
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

// watched is a device that shows every op after it ran.
type watched struct {
	tensor.Device
	see func(tensor.Op)
}

func (w watched) Queue() tensor.Queue { return watchedQueue{w.Device.Queue(), w.see} }

type watchedQueue struct {
	tensor.Queue
	see func(tensor.Op)
}

func (q watchedQueue) Run(op tensor.Op) {
	q.Queue.Run(op)
	q.see(op)
}
