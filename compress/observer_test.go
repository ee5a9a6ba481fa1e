package compress

import (
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// network is one layer of experts, as loose ops on the reference device.
type network struct {
	route    moe.Route
	dispatch moe.Dispatch
	ffn      moe.FFN
	spec     model.Spec
}

const rows, dim, width = 40, 6, 5

// newNetwork makes random weights for a router. Router rows lead where to says.
func newNetwork(t *testing.T, s moe.RouterSpec, to []int32) *network {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	random := func(rows, cols int) tensor.Mat {
		v := make([]float32, rows*cols)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return tensor.FromF32(rows, cols, v)
	}
	empty := func(f *quant.Format, rows, cols int) tensor.Mat {
		m, err := tensor.NewMat(tensor.Reference(), f, rows, cols)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	experts := moe.ExpertMap{Phys: to}.Physical()
	plan, err := moe.NewDispatchPlan(tensor.Reference(), moe.Extent{Rows: rows, K: s.K, Experts: experts})
	if err != nil {
		t.Fatal(err)
	}
	x, n, phys := random(rows, dim), tensor.FromI32(1, 1, []int32{rows}), tensor.FromI32(1, s.Experts, to)
	ids, weights := empty(quant.I32, rows, s.K), empty(quant.F32, rows, s.K)
	bank := moe.Bank{Gate: random(experts*width, dim), Up: random(experts*width, dim), Down: random(experts*dim, width), Slot: moe.EveryExpert(experts).Phys}
	bank.Gate.Name = "blk.0.ffn_gate_exps.weight"
	return &network{
		route: moe.Route{X: x, W: random(s.Experts, dim), Select: random(1, s.Experts), Phys: phys, Logits: empty(quant.F32, rows, s.Experts),
			IDs: ids, Weights: weights, N: n, Spec: s},
		dispatch: moe.Dispatch{IDs: ids, Weights: weights, Phys: phys, Plan: plan, N: n, Experts: experts},
		ffn: moe.FFN{X: x, Y: empty(quant.F32, rows, dim), Hidden: empty(quant.F32, rows*s.K, width), Out: empty(quant.F32, rows*s.K, dim),
			Plan: plan, Banks: []moe.Bank{bank}, N: n},
		spec: model.Spec{Dim: dim, Layers: []model.LayerSpec{{Router: &s, ExpertWidth: width}}},
	}
}

// observe runs the network once and gives what was seen.
func (n *network) observe(t *testing.T) (*LayerProfile, error) {
	t.Helper()
	o := newObserver(&n.spec, true)
	q := tensor.Observed(tensor.Reference(), o.see).Queue()
	for _, op := range []tensor.Op{&n.route, &n.dispatch, &n.ffn} {
		q.Run(op)
	}
	if err := q.Sync(); err != nil {
		t.Fatal(err)
	}
	return &o.layers[0], o.err
}

// norms are those of what each physical expert would give for each row.
func (n *network) norms() [][]float64 {
	out := matrix[float64](rows, n.dispatch.Experts)
	multiply := func(w tensor.Mat, from, to int, x []float32) []float32 {
		y := make([]float32, to-from)
		op := tensor.Linear{X: tensor.FromF32(1, len(x), x), W: w.Slice(from, to), Y: tensor.FromF32(1, to-from, y)}
		op.Reference()
		return y
	}
	for row := range rows {
		x := n.ffn.X.F32()[row*dim : (row+1)*dim]
		for e := range out[row] {
			gate, up := multiply(n.ffn.Banks[0].Gate, e*width, (e+1)*width, x), multiply(n.ffn.Banks[0].Up, e*width, (e+1)*width, x)
			for j := range gate {
				gate[j] = tensor.SwiGLU(gate[j], up[j])
			}
			for _, y := range multiply(n.ffn.Banks[0].Down, e*dim, (e+1)*dim, gate) {
				out[row][e] += float64(y) * float64(y)
			}
			out[row][e] = math.Sqrt(out[row][e])
		}
	}
	return out
}

// skips are those of the weights that the router gave, and whether these do not fall with each row.
func (n *network) skips() (skips [64]int64, unsorted bool) {
	for row := range slices.Chunk(n.route.Weights.F32(), n.route.Spec.K) {
		w := slices.Clone(row)
		slices.Sort(w)
		slices.Reverse(w)
		unsorted = unsorted || !slices.Equal(w, row)
		skips[min(63, int(64*float64(w[1])/float64(w[0])))]++
	}
	return skips, unsorted
}

// A router with sigmoids and a bias for the choice sends tokens elsewhere than softmax and the largest logits: the saliencies are those of
// the experts that ran, by the weights that they had.
func TestSaliencyIsOfTheRealRouter(t *testing.T) {
	s := moe.RouterSpec{Experts: 6, K: 2, Score: moe.Sigmoid, Weight: moe.FromScore, Norm: true, NormMinK: 1, Scale: 2.5}
	n := newNetwork(t, s, moe.EveryExpert(6).Phys)
	got, err := n.observe(t)
	if err != nil {
		t.Fatal(err)
	}
	norms := n.norms()
	saliency := func(spec moe.RouterSpec, bias []float32) []float64 {
		out := make([]float64, s.Experts)
		for row := range rows {
			c := moe.Choice{IDs: make([]int32, s.K), Weights: make([]float32, s.K)}
			spec.Choose(n.route.Logits.F32()[row*s.Experts:(row+1)*s.Experts], bias, n.route.Phys.I32(), c)
			for i, e := range c.IDs {
				out[e] += float64(c.Weights[i]) * norms[row][e]
			}
		}
		return out
	}
	shortcut := s
	shortcut.Score, shortcut.Scale = moe.Softmax, 1
	real, wrong := saliency(s, n.route.Select.F32()), saliency(shortcut, nil)
	apart := 0.0
	for e := range real {
		if math.Abs(got.Saliency[e]-real[e]) > 1e-5*(1+real[e]) {
			t.Errorf("expert %d: %v, want %v", e, got.Saliency[e], real[e])
		}
		apart = max(apart, math.Abs(got.Saliency[e]/2.5-wrong[e]))
	}
	if apart < 1 {
		t.Errorf("the saliencies are those of a softmax over raw logits: %v", wrong)
	}
	if want, unsorted := n.skips(); got.Skips != want || !unsorted {
		t.Errorf("skips %v, want %v", got.Skips, want)
	}
}

// Rows that share an expert count each for itself, with the output that it gave; a row that leads nowhere counts for nothing.
func TestMergedAndPrunedRows(t *testing.T) {
	s := moe.RouterSpec{Experts: 5, K: 3, Score: moe.Softmax, Weight: moe.FromScore, NormMinK: 1, Scale: 1}
	n := newNetwork(t, s, []int32{0, 1, 0, -1, 0})
	n.route.Select = tensor.Mat{}
	got, err := n.observe(t)
	if err != nil {
		t.Fatal(err)
	}
	want, norms := make([]float64, s.Experts), n.norms()
	var choices int64
	for i, e := range n.route.IDs.I32() {
		if e >= 0 {
			want[e] += float64(n.route.Weights.F32()[i]) * norms[i/s.K][n.route.Phys.I32()[e]]
			choices++
		}
	}
	for e := range want {
		if math.Abs(got.Saliency[e]-want[e]) > 1e-6*(1+want[e]) {
			t.Errorf("row %d: %v, want %v", e, got.Saliency[e], want[e])
		}
	}
	total := int64(0)
	for _, v := range got.Usage {
		total += v
	}
	if total != choices || got.Usage[3] != 0 || got.Tokens != rows || got.Together[0][2] == 0 || got.Together[0][3] != 0 {
		t.Errorf("%d of %d choices: %+v", total, choices, got)
	}
	if want, _ := n.skips(); got.Skips != want {
		t.Errorf("skips %v, want %v", got.Skips, want)
	}
	if err := got.check(0); err != nil {
		t.Error(err)
	}
}

func TestNumbersThatAreNone(t *testing.T) {
	s := moe.RouterSpec{Experts: 3, K: 1, Score: moe.Softmax, Weight: moe.FromScore, NormMinK: 1, Scale: 1}
	for _, v := range []float64{math.NaN(), math.Inf(1)} {
		n := newNetwork(t, s, moe.EveryExpert(3).Phys)
		n.ffn.Banks[0].Down.F32()[0] = float32(v)
		if _, err := n.observe(t); !errors.Is(err, ErrNumber) {
			t.Errorf("an expert that gives %v: %v", v, err)
		}
	}
}

func TestCosine(t *testing.T) {
	for _, c := range []struct {
		a, b []float32
		want float64
	}{
		{[]float32{1, 0}, []float32{0, 2}, 0}, {[]float32{1, 2}, []float32{2, 4}, 1}, {[]float32{3, 4}, []float32{-3, -4}, -1},
		{[]float32{0, 0}, []float32{0, 0}, 1}, {[]float32{0, 0}, []float32{1, 0}, 0}, {[]float32{1e30, 1e30}, []float32{1e30, 0}, math.Sqrt2 / 2},
	} {
		if got := cosine(c.a, c.b); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%v and %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestLayerOf(t *testing.T) {
	for _, c := range []struct {
		name, part string
		layer      int
		ok         bool
	}{
		{"blk.12.attn_norm.weight", "attn_norm.weight", 12, true}, {"blk.12.ffn_gate_exps.weight", "", 12, true},
		{"blk.1.ffn_norm.weight", "attn_norm.weight", 0, false}, {"output_norm.weight", "", 0, false}, {"blk.x.attn_norm.weight", "attn_norm.weight", 0, false},
		{"blk.-1.attn_norm.weight", "", 0, false}, {"blk.3", "", 0, false},
	} {
		if layer, ok := layerOf(c.name, c.part); ok != c.ok || ok && layer != c.layer {
			t.Errorf("%s: %d %v", c.name, layer, ok)
		}
	}
}

// Experts of two models are the same where they were the same originally, whatever rows of the routers they have now.
func TestRoutingIsComparedByOriginalExperts(t *testing.T) {
	c, err := store.Open(filepath.Join("..", "model", "testdata", "qwen3_moe"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v := &trial{chosen: make([]int64, 1), agreed: make([]int64, 1)}
	for range 2 {
		m, err := model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{Limits: walkLimits(model.Limits{Rows: 4, Context: 4})})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		v.walk.models = append(v.walk.models, m)
	}
	v.walk.models[1].Spec().Layers[0].Map.Orig = []int32{7, 6, 5, 4, 3, 2, 1, 0}
	v.seen[0].layers = map[int][]int32{0: {0, 1, 2, 3, 4, -1}}
	v.seen[1].layers = map[int][]int32{0: {6, 7, 2, 5, -1, -1}} // originally 1 and 0, 5 and 2, none
	v.route(0, 3)
	if v.chosen[0] != 5 || v.agreed[0] != 3 {
		t.Errorf("%d of %d", v.agreed[0], v.chosen[0])
	}
}
