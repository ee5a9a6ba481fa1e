package compress

import (
	"errors"
	"fmt"
)

// ErrMemory: what a method has to keep is more than it is allowed.
var ErrMemory = errors.New("compress: memory")

// Seeing is how SparseGPT sees the inputs of experts: the model reads the text again, once for as many layers as there is memory for.
type Seeing struct {
	Study Study // of the text that the profile was made of; Columns, Partial, Every and Progress are ignored
	Bytes int64 // most that Hessians take at a time; 0 = 8 GiB. Beside them an expert's matrix is there in float64
	See   func(pass, passes int, tokens int64)
}

const hessianBytes = 8 << 30

// layerHessians are those of the experts of a layer that tokens chose.
type layerHessians struct {
	at  map[place]*expertHessians
	row []*expertHessians // by router row; nil = no token chose it
	all []*expertHessians
}

// expertHessians are those of an expert's gate and up, and of its down. Rows that were seen wait for add.
type expertHessians struct {
	inputs, hidden *Hessian
	waits          [2][][]float32 // inputs and hidden rows
}

// hessianSizes are the columns of a layer's inputs and of its hidden rows, as experts that tokens chose have them.
func (x *sparsifier) hessianSizes(layer int) (inputs, hidden int) {
	p := &x.profile.Layers[layer]
	for row, n := range p.Usage {
		if n > 0 {
			return len(p.Inputs[row]), len(p.Hidden[row])
		}
	}
	return 0, 0
}

// newHessians prepares those of a layer.
func (x *sparsifier) newHessians(layer int) *layerHessians {
	inputs, hidden := x.hessianSizes(layer)
	out := &layerHessians{at: map[place]*expertHessians{}}
	for row, at := range x.layers[layer].place {
		out.row = append(out.row, nil)
		if x.profile.Layers[layer].Usage[row] == 0 || at.bank < 0 {
			continue
		}
		if out.at[at] == nil {
			out.at[at] = &expertHessians{inputs: NewHessian(inputs), hidden: NewHessian(hidden)}
			out.all = append(out.all, out.at[at])
		}
		out.row[row] = out.at[at]
	}
	return out
}

// see takes the rows of a choice, which stay as they are until add.
func (l *layerHessians) see(row int32, x, hidden []float32) {
	h := l.row[row]
	if h == nil {
		return
	}
	h.waits[0], h.waits[1] = append(h.waits[0], x), append(h.waits[1], hidden)
}

// add adds what waits, experts in parallel.
func (l *layerHessians) add() {
	inParallel(2*len(l.all), func(i int) {
		h := l.all[i/2]
		sums := h.inputs
		if i%2 == 1 {
			sums = h.hidden
		}
		sums.Add(h.waits[i%2]...)
		h.waits[i%2] = h.waits[i%2][:0]
	})
}

// planHessians divides the layers, in the order in which their tensors come, into groups whose Hessians are there at a time.
func (x *sparsifier) planHessians(layers []int) error {
	limit, left := x.s.Seeing.Bytes, int64(0)
	if limit <= 0 {
		limit = hessianBytes
	}
	for _, layer := range layers {
		if p := &x.profile.Layers[layer]; len(p.Inputs) != len(p.Usage) || len(p.Hidden) != len(p.Usage) {
			return fmt.Errorf("%w: layer %d: columns of inputs and of hidden rows have to be observed", ErrCalibration, layer)
		}
		inputs, hidden := x.hessianSizes(layer)
		live := map[place]bool{}
		for row, at := range x.layers[layer].place {
			if at.bank >= 0 && x.profile.Layers[layer].Usage[row] > 0 {
				live[at] = true
			}
		}
		size := 8 * int64(len(live)) * int64(triangle(inputs)+triangle(hidden))
		if size > limit {
			return fmt.Errorf("%w: the Hessians of layer %d take %d bytes, more than the %d that are allowed", ErrMemory, layer, size, limit)
		}
		if size > left || len(x.groups) == 0 {
			x.groups, left = append(x.groups, nil), limit
		}
		last := len(x.groups) - 1
		x.groups[last], left = append(x.groups[last], layer), left-size
	}
	return nil
}

// hessian is that of what an expert's matrix multiplies. Where it is not there, the model reads the text for the layer's group.
func (x *sparsifier) hessian(m *matrices, e int) (*Hessian, error) {
	for pass, group := range x.groups {
		for _, layer := range group {
			if layer == m.layer && x.hessians[layer] == nil {
				if err := x.pass(pass); err != nil {
					return nil, err
				}
			}
		}
	}
	h := x.hessians[m.layer].at[m.place[e]]
	if m.hidden {
		return h.hidden, nil
	}
	return h.inputs, nil
}

// pass has the model read the text, and keeps the Hessians of a group of layers in place of those that were there.
func (x *sparsifier) pass(n int) error {
	x.hessians = map[int]*layerHessians{}
	for _, layer := range x.groups[n] {
		x.hessians[layer] = x.newHessians(layer)
	}
	s := x.s.Seeing.Study
	s.Checkpoint, s.Columns, s.Partial, s.hessians, s.Progress = x.c, false, "", x.hessians, nil
	if see := x.s.Seeing.See; see != nil {
		s.Progress = func(tokens int64) { see(n, len(x.groups), tokens) }
	}
	p, err := Observe(x.ctx, s)
	if err != nil {
		return err
	}
	for _, layer := range x.groups[n] {
		for row, was := range x.profile.Layers[layer].Usage {
			if now := p.Layers[layer].Usage[row]; now != was {
				return fmt.Errorf("%w: layer %d: expert %d was chosen by %d tokens of this text, of the profile's by %d", ErrCalibration, layer, row, now, was)
			}
		}
	}
	return nil
}

// order lists the layers of experts as their tensors come in the files.
func (x *sparsifier) order() (layers []int) {
	seen := map[int]bool{}
	for _, part := range x.c.Parts {
		for _, name := range part.Names {
			if layer, _, _, _, ok := x.parse(name); ok && !seen[layer] {
				seen[layer] = true
				layers = append(layers, layer)
			}
		}
	}
	return layers
}
