package model

import (
	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// BufferBytes is what a network takes on a device beside its weights: the cache, the batch and what layers share. It allocates nothing
// there: what Load would ask of the device is added up.
func (s *Spec) BufferBytes(opt Options) (int64, error) {
	d := &scale{}
	l := &loader{opt: opt, device: d, queue: d.Queue(), rows: opt.Limits.Rows}
	m := &Model{spec: *s, opt: opt, device: d, selectors: map[int]*attention.Selector{}}
	if m.batch, l.err = newBatch(d, &opt, s); l.err != nil {
		return 0, l.err
	}
	m.scratch = l.scratch(s)
	m.caches = l.caches(s)
	l.sparse(s, m)
	l.alloc(quant.F32, opt.Limits.Wanted, s.Dim)
	for i := range s.Layers {
		ls := &s.Layers[i]
		l.angles(ls.Rope, m)
		if !m.sparse.serves(i) {
			l.selector(ls.Window, m)
		}
		if ls.Router != nil {
			l.alloc(quant.I32, 1, ls.Router.Experts) // which expert is where
			if t := ls.Tree; t != nil {
				l.alloc(quant.I32, t.Trees*(2*t.Experts-1), 2) // which leaf is where
			}
			if ls.Shortlist > 0 {
				l.alloc(quant.I32, 1, 2*ls.Router.Experts-1) // likewise
			}
		}
	}
	return d.bytes, l.err
}

// scale is a device without memory, which adds up what is asked of it.
type scale struct{ bytes int64 }

func (*scale) Name() string { return "scale" }

func (d *scale) Alloc(bytes int) (tensor.Buffer, error) {
	d.bytes += int64(bytes)
	return weighed(bytes), nil
}

func (*scale) Free(tensor.Buffer) {}

func (d *scale) Load(w tensor.Mat) (tensor.Mat, error) {
	d.bytes += int64(w.Bytes())
	return w, nil
}

func (*scale) Reload(_, _ tensor.Mat) error { return nil }

func (*scale) Stack(w tensor.Mat, n int) (tensor.Mat, error) {
	w.Rows *= n
	return w, nil
}

func (*scale) Queue() tensor.Queue { return scaleQueue{tensor.Reference().Queue()} }

// weighed is a buffer of so many bytes that are nowhere.
type weighed int

func (w weighed) Len() int   { return int(w) }
func (weighed) Host() []byte { return nil }

// scaleQueue writes nothing, as there is nowhere to.
type scaleQueue struct{ tensor.Queue }

func (scaleQueue) Write(tensor.Buffer, int, []byte) {}
