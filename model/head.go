package model

import (
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// LoadHead loads the layer of the checkpoint that foretells a token further (multi-token prediction: DeepSeek-V3, arXiv:2412.19437, section 2.2, as MiMo has
// it, arXiv:2505.07608, section 2.2) beside a model, as a network of its own whose tables of embeddings and outputs are the model's. It must not step once the
// model is closed.
//
// Row by row it reads a token, and of the model's Residual behind all layers the row of the token before that one. What its logits foretell is the token that
// follows. Going on from there, a row's hidden state is what Normed has of the row before. Positions count from the first row's own.
func (m *Model) LoadHead(opt Options) (*Model, error) {
	s, err := m.spec.Head()
	if err != nil {
		return nil, inFile(m.loader.c, err)
	}
	opt.DType = m.opt.DType
	l := &loader{c: m.loader.c, arch: m.loader.arch, opt: opt, device: m.device, rows: opt.Limits.Rows, blocks: "mtp"}
	h := l.head(s, m)
	l.fail(h.queue.Sync())
	if l.err != nil {
		h.Close()
		return nil, inFile(l.c, l.err)
	}
	return h, nil
}

// Head is the network that LoadHead makes: of one layer.
func (s *Spec) Head() (Spec, error) {
	if len(s.MTP) == 0 {
		return Spec{}, fmt.Errorf("%w: no layer foretells further tokens", ErrAssumption)
	}
	out := *s
	out.Arch, out.Layers, out.MTP = s.Arch+".mtp", s.MTP[:1], nil
	return out, nil
}

// HeadBytes is what LoadHead takes beside weights.
func (s *Spec) HeadBytes(opt Options) (int64, error) {
	h, err := s.Head()
	if err != nil {
		return 0, err
	}
	n, err := h.BufferBytes(opt)
	return n + 4*int64(opt.Limits.Rows)*int64(s.Dim), err
}

// HeadTensors are a checkpoint's tensors of layers that foretell further tokens, which Load leaves out.
func HeadTensors(c *store.Checkpoint) (names []string) {
	a, err := find(c)
	if err != nil || c.Kind == store.GGUF || a.mtp == "" {
		return nil
	}
	for _, name := range c.Names() {
		if strings.HasPrefix(name, a.mtp) {
			names = append(names, name)
		}
	}
	return names
}

// head prepares the network of a head.
func (l *loader) head(s Spec, target *Model) *Model {
	l.queue = l.device.Queue()
	h := &Model{spec: s, opt: l.opt, device: l.device, queue: l.queue, loader: l, selectors: map[int]*attention.Selector{}, table: target.table}
	width, ls := s.Dim, &s.Layers[0]
	l.host("mtp.0.attn_q.weight", ls.Heads*ls.HeadDim, width) // before buffers are made of these sizes
	l.host("mtp.0.attn_k.weight", ls.KVHeads*ls.HeadDim, width)
	l.host("mtp.0.ffn_gate.weight", ls.Width, width)
	if l.err != nil {
		return h
	}
	h.batch, l.err = newBatch(l.device, &l.opt, &s)
	h.scratch = l.scratch(&s)
	if l.err != nil {
		return h
	}
	if h.caches = l.caches(&s); l.err != nil {
		return h
	}
	b, sc := h.batch, &h.scratch
	b.Hidden = l.alloc(quant.F32, l.rows, width)
	norm := func(part string, x tensor.Mat) tensor.Op {
		return &tensor.Norm{X: x, W: l.vector("mtp.0."+part+".weight", width), Y: sc.h, N: b.Layout.Rows, Groups: 1, Eps: s.Eps}
	}
	ofHidden, ofToken := l.halves("mtp.0.mtp_input.weight", width)
	h.enter = []tensor.Op{
		&tensor.Embed{IDs: b.IDs, Table: h.table, Y: sc.h, N: b.Layout.Rows}, norm("mtp_token_norm", sc.h),
		&tensor.Linear{X: sc.h, W: ofToken, Y: sc.x, N: b.Layout.Rows},
		norm("mtp_hidden_norm", b.Hidden), &tensor.Linear{X: sc.h, W: ofHidden, Y: sc.y, N: b.Layout.Rows},
		&tensor.Add{X: sc.y, Y: sc.x, N: b.Layout.Rows},
	}
	h.layers = append(h.layers, l.layer(0, ls, h))
	l.leave(h, l.vector("mtp.0.mtp_norm.weight", width), target.output.W)
	return h
}

// halves loads the left and the right half of a matrix of rows outputs by twice as many inputs.
func (l *loader) halves(name string, rows int) (left, right tensor.Mat) {
	m := l.host(name, rows, 2*rows)
	if l.err != nil {
		return left, right
	}
	if !m.Format.Fits(rows) {
		m = widened(m)
	}
	half, raw := m.Format.RowBytes(rows), m.Raw()
	parts := [2][]byte{make([]byte, 0, rows*half), make([]byte, 0, rows*half)}
	for row := range rows {
		for i := range parts {
			parts[i] = append(parts[i], raw[(2*row+i)*half:][:half]...)
		}
	}
	mat := func(part []byte) tensor.Mat { return l.load(tensor.HostMat(name, m.Format, rows, rows, aligned(part))) }
	return mat(parts[0]), mat(parts[1])
}

// IsHead says whether a model is a head, whose steps need hidden states.
func (m *Model) IsHead() bool { return m.batch.Hidden.Present() }

// Normed is what the output matrix read for the wanted rows of the last step: rows x dim, F32.
func (m *Model) Normed(rows int) tensor.Mat { return m.norm.Y.Slice(0, rows) }

// Absorb takes the rows of a head's batch into its cache and computes nothing else: since keys and values of its one layer follow from what it is given,
// those of tokens whose outcome is known cost a fraction of a step.
func (m *Model) Absorb() {
	q, l := m.queue, &m.layers[0]
	each(q, m.enter)
	for _, a := range m.angles {
		q.Run(a)
	}
	q.Run(&l.attnNorm)
	q.Run(&l.k)
	q.Run(&l.v)
	each(q, l.turn)
	each(q, l.keep)
}
