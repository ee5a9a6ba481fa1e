package model_test

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/modeltest"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// plainly computes MiMo as its paper and its published code have it, row by row in float64: nothing of it is the package's own.
type plainly struct {
	c                    *store.Checkpoint
	dim, heads, kv, size int
}

func (p plainly) matrix(name string) (m [][]float64) {
	t := p.c.Tensors[name]
	cols := t.Shape[len(t.Shape)-1]
	v := make([]float32, len(t.Data)/4)
	t.Format.Decode(v, t.Data)
	for row := range slices.Chunk(v, cols) {
		line := make([]float64, cols)
		for i, x := range row {
			line[i] = float64(x)
		}
		m = append(m, line)
	}
	return m
}

func (p plainly) vector(name string) []float64 { return p.matrix(name)[0] }

func times(m [][]float64, x []float64) []float64 {
	y := make([]float64, len(m))
	for i, row := range m {
		for j, w := range row {
			y[i] += w * x[j]
		}
	}
	return y
}

func plus(a, b []float64) []float64 {
	out := slices.Clone(a)
	for i, v := range b {
		out[i] += v
	}
	return out
}

func rms(x, w []float64) []float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = v / math.Sqrt(sum/float64(len(x))+1e-5) * w[i]
	}
	return out
}

// turned is a head of queries or keys at a position.
func turned(x []float64, pos int) []float64 {
	out, half := slices.Clone(x), len(x)/2
	for i := range half {
		angle := float64(pos) * math.Pow(640000, -2*float64(i)/float64(len(x)))
		sin, cos := math.Sincos(angle)
		out[i], out[half+i] = x[i]*cos-x[half+i]*sin, x[half+i]*cos+x[i]*sin
	}
	return out
}

// layer is one of decoders, whose rows are at positions 0, 1, ...
func (p plainly) layer(b string, xs [][]float64) (out [][]float64) {
	var keys, values [][]float64
	for pos, x := range xs {
		h := rms(x, p.vector(b+"input_layernorm.weight"))
		part := func(name string) []float64 {
			return plus(times(p.matrix(b+"self_attn."+name+"_proj.weight"), h), p.vector(b+"self_attn."+name+"_proj.bias"))
		}
		q, k := part("q"), part("k")
		values = append(values, part("v"))
		for g := range p.kv {
			copy(k[g*p.size:], turned(k[g*p.size:(g+1)*p.size], pos))
		}
		keys = append(keys, k)
		att := make([]float64, p.heads*p.size)
		for head := range p.heads {
			at := head / (p.heads / p.kv) * p.size
			own := turned(q[head*p.size:(head+1)*p.size], pos)
			scores, sum := make([]float64, pos+1), 0.0
			for i := range scores {
				for j, v := range own {
					scores[i] += v * keys[i][at+j]
				}
				scores[i] = math.Exp(scores[i] / math.Sqrt(float64(p.size)))
				sum += scores[i]
			}
			for i, s := range scores {
				for j := range p.size {
					att[head*p.size+j] += s / sum * values[i][at+j]
				}
			}
		}
		x = plus(x, times(p.matrix(b+"self_attn.o_proj.weight"), att))
		h = rms(x, p.vector(b+"post_attention_layernorm.weight"))
		gate, up := times(p.matrix(b+"mlp.gate_proj.weight"), h), times(p.matrix(b+"mlp.up_proj.weight"), h)
		for i, g := range gate {
			gate[i] = g / (1 + math.Exp(-g)) * up[i]
		}
		out = append(out, plus(x, times(p.matrix(b+"mlp.down_proj.weight"), gate)))
	}
	return out
}

// hidden are the states behind all layers of the network, before its last norm.
func (p plainly) hidden(ids []int32, layers int) (xs [][]float64) {
	table := p.matrix("model.embed_tokens.weight")
	for _, id := range ids {
		xs = append(xs, table[id])
	}
	for i := range layers {
		xs = p.layer("model.layers."+strconv.Itoa(i)+".", xs)
	}
	return xs
}

// foretold are the states of the head behind its last norm: of row i its token is ids[i], and what it stands behind hidden[i].
func (p plainly) foretold(hidden [][]float64, ids []int32) (out [][]float64) {
	const b = "model.mtp_layers.0."
	table, input := p.matrix("model.embed_tokens.weight"), p.matrix(b+"input_proj.weight")
	var xs [][]float64
	for i, id := range ids {
		h, e := rms(hidden[i], p.vector(b+"hidden_layernorm.weight")), rms(table[id], p.vector(b+"token_layernorm.weight"))
		xs = append(xs, times(input, slices.Concat(h, e)))
	}
	for _, x := range p.layer(b, xs) {
		out = append(out, rms(x, p.vector(b+"final_layernorm.weight")))
	}
	return out
}

func (p plainly) logits(rows [][]float64) (out []float32) {
	w := p.matrix("lm_head.weight")
	for _, x := range rows {
		for _, v := range times(w, x) {
			out = append(out, float32(v))
		}
	}
	return out
}

var tinyMiMo = modeltest.MiMo{Vocab: 97, Dim: 32, Layers: 2, Seed: 5}

// both loads a network and its head.
func both(t *testing.T, c *store.Checkpoint, d tensor.Device, opt model.Options) (m, head *model.Model) {
	t.Helper()
	opt.Limits = limits
	m, err := model.Load(c, model.Placement{Device: d}, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if head, err = m.LoadHead(model.Options{Limits: limits, KVType: opt.KVType}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(head.Close)
	return m, head
}

// rows is a step of one sequence that asks for all logits, of a head with hidden states.
func rows(ids []int32, past int, hidden []float32) *model.Step {
	s := &model.Step{}
	s.Reset()
	s.IDs, s.Start, s.Past, s.Prompts = ids, append(s.Start, int32(len(ids))), []int32{int32(past)}, []int32{int32(past + len(ids))}
	s.Pages, s.Hidden = [][]int32{{0, 1, 2, 3, 4, 5, 6, 7}}, hidden
	for i := range ids {
		s.Want = append(s.Want, int32(i))
	}
	return s
}

// Logits of MiMo and of its head agree with those computed plainly, on every device: the head's of what the network has, in one step and in
// several, of tokens that it only took in, and of what it goes on by from its own states.
func TestMiMo(t *testing.T) {
	c := tinyMiMo.Checkpoint()
	p := plainly{c: c, dim: 32, heads: 4, kv: 2, size: 8}
	var ids []int32
	for i := range 70 {
		ids = append(ids, int32(i*i*7+i)%97)
	}
	hidden := p.hidden(ids, 2)
	var normed [][]float64
	for _, x := range hidden {
		normed = append(normed, rms(x, p.vector("model.norm.weight")))
	}
	states := p.foretold(hidden[:69], ids[1:])
	onward := p.foretold(append(slices.Clone(hidden[:69]), states[68]), append(slices.Clone(ids[1:]), 42))
	for _, d := range devices(t) {
		m, head := both(t, c, d, model.Options{DType: model.Float32})
		q := head.Queue()
		read := func(from tensor.Mat, n int) []float32 {
			out := make([]float32, n*from.Cols)
			model.ReadF32(q, from, out)
			return out
		}
		m.Batch().Fill(m.Queue(), rows(ids, 0, nil))
		logits := make([]float32, 70*97)
		model.ReadF32(m.Queue(), m.Forward(m.Batch()), logits)
		checkLogits(t, d.Name(), logits, p.logits(normed))
		behind := make([]float32, 70*32)
		model.ReadF32(m.Queue(), m.Residual(70), behind)
		ask := func(from, to int, also bool) (logits []float32) {
			head.Batch().Fill(q, rows(ids[1+from:1+to], from, behind[from*32:to*32]))
			if !also {
				head.Absorb()
				return nil
			}
			return read(head.Forward(head.Batch()), to-from)
		}
		want := p.logits(states)
		whole := ask(0, 69, true)
		checkLogits(t, "head on "+d.Name(), whole, want)
		for _, cut := range []int{1, 5, 64} {
			ask(0, cut, false)
			if got := ask(cut, 69, true); !slices.Equal(got, whole[cut*97:]) {
				t.Errorf("%s: behind %d tokens that were taken in the head has other bits", d.Name(), cut)
			}
		}
		own := read(head.Normed(69-64), 69-64) // of the last step's five rows
		head.Batch().Fill(q, rows([]int32{42}, 69, own[4*32:]))
		checkLogits(t, "onward on "+d.Name(), read(head.Forward(head.Batch()), 1), p.logits(onward[69:]))
		if err := errors.Join(q.Sync(), m.Queue().Sync()); err != nil {
			t.Error(err)
		}
	}
}

// A checkpoint whose head is not whole is refused by the tensor's or the field's name, once the head is wanted; and one without a head has none.
func TestMiMoRefuses(t *testing.T) {
	field := func(key string, v any) func(c *store.Checkpoint) {
		return func(c *store.Checkpoint) {
			var all map[string]any
			if err := json.Unmarshal(c.Files["config.json"], &all); err != nil {
				t.Fatal(err)
			}
			all[key] = v
			b, err := json.Marshal(all)
			if err != nil {
				t.Fatal(err)
			}
			c.Files = map[string][]byte{"config.json": b}
		}
	}
	tensorOf := func(part string, shape ...int) func(c *store.Checkpoint) {
		return func(c *store.Checkpoint) {
			name := "model.mtp_layers.0." + part
			x := c.Tensors[name]
			if delete(c.Tensors, name); shape != nil {
				x.Shape = shape
				c.Tensors[name] = x
			}
		}
	}
	for name, test := range map[string]struct {
		change func(c *store.Checkpoint)
		is     error
		says   string
		loads  bool // as a model, and only the head is refused
	}{
		"no input_proj":       {tensorOf("input_proj.weight"), store.ErrNoTensor, "model.mtp_layers.0.input_proj.weight", true},
		"no final_layernorm":  {tensorOf("final_layernorm.weight"), store.ErrNoTensor, "model.mtp_layers.0.final_layernorm.weight", true},
		"no token_layernorm":  {tensorOf("token_layernorm.weight"), store.ErrNoTensor, "token_layernorm", true},
		"no hidden_layernorm": {tensorOf("hidden_layernorm.weight"), store.ErrNoTensor, "hidden_layernorm", true},
		"no bias":             {tensorOf("self_attn.k_proj.bias"), store.ErrNoTensor, "model.mtp_layers.0.self_attn.k_proj.bias", true},
		"input_proj turned":   {tensorOf("input_proj.weight", 64, 32), model.ErrSpec, "model.mtp_layers.0.input_proj.weight", true},
		"down_proj narrow":    {tensorOf("mlp.down_proj.weight", 16, 96), model.ErrSpec, "model.mtp_layers.0.mlp.down_proj.weight", true},
		"q_proj small":        {tensorOf("self_attn.q_proj.weight", 16, 64), model.ErrSpec, "model.mtp_layers.0.self_attn.q_proj.weight", true},
		"none":                {field("num_nextn_predict_layers", 0), model.ErrAssumption, "no layer foretells", true},
		"below 0":             {field("num_nextn_predict_layers", -1), model.ErrSpec, "num_nextn_predict_layers", false},
		"a billion":           {field("num_nextn_predict_layers", 1<<30), model.ErrSpec, "num_nextn_predict_layers", false},
		"three":               {field("num_nextn_predict_layers", 3), model.ErrAssumption, "num_nextn_predict_layers", false},
		"a word":              {field("num_nextn_predict_layers", "one"), model.ErrSpec, "num_nextn_predict_layers", false},
	} {
		c := tinyMiMo.Checkpoint()
		c.Tensors = maps.Clone(c.Tensors)
		test.change(c)
		m, err := model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{Limits: limits})
		if test.loads {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			_, err = m.LoadHead(model.Options{Limits: limits})
			m.Close()
		}
		if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %v that names %q", name, err, test.is, test.says)
		}
	}
}
