package serve

import (
	"fmt"
	"slices"
	"sync"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Weigh says about how many bytes a checkpoint's model will take once Open has loaded it: its weights as the device holds them, its
// cache and its buffers. It reads no weights. Left out are the tokenizer's tables, and what loading takes for a moment.
func Weigh(c *store.Checkpoint, opt Options) (int64, error) {
	buffers, s, err := weigh(c, opt)
	if err != nil {
		return 0, err
	}
	return buffers + s.copied + max(s.shared, c.Resident()), nil
}

// Fit is opt with as many bytes for experts as leave a checkpoint's model within so many bytes of memory: 0 where all of it fits, and what opt
// says where that is something. A model that does not fit even so stays as it is.
func Fit(c *store.Checkpoint, opt Options, memory int64) (Options, error) {
	if opt.ExpertBytes != 0 || memory <= 0 {
		return opt, nil
	}
	whole := opt.filled()
	var err error
	if whole.Sparse, err = whole.Sparse.Of(c); err != nil {
		return opt, err
	}
	limits, draft, err := whole.limits(c)
	if err != nil {
		return opt, err
	}
	if memory -= draft; memory <= 0 {
		return opt, nil
	}
	network, err := FitNetwork(c, opt.Device, whole.network(limits), memory)
	opt.ExpertBytes = network.ExpertBytes
	return opt, err
}

// FitNetwork is Fit for the network alone.
func FitNetwork(c *store.Checkpoint, d tensor.Device, opt model.Options, memory int64) (model.Options, error) {
	if opt.ExpertBytes != 0 || memory <= 0 {
		return opt, nil
	}
	buffers, s, err := weighNetwork(c, d, opt)
	if err != nil {
		return opt, err
	}
	all := buffers + s.copied + max(s.shared, c.Resident())
	if left := memory - (all - s.experts); all > memory && left > 0 {
		opt.ExpertBytes = left
	}
	return opt, nil
}

// Shareable says about how many of those bytes are weights that models of one mapping hold together.
func Shareable(c *store.Checkpoint, opt Options) (int64, error) {
	_, s, err := weigh(c, opt)
	if err != nil || opt.DType == model.Float32 { // widened weights are of no mapping
		return 0, err
	}
	if opt.ExpertBytes > 0 && opt.ExpertBytes < s.experts { // each model has slots of its own
		return s.copied - opt.ExpertBytes, nil
	}
	return s.copied, nil
}

// weigh gives the bytes of cache and buffers, with all that a draft model takes, and those of weights.
func weigh(c *store.Checkpoint, opt Options) (buffers int64, s *sampler, err error) {
	opt = opt.filled()
	if opt.Sparse, err = opt.Sparse.Of(c); err != nil {
		return 0, nil, err
	}
	limits, draft, err := opt.limits(c)
	if err != nil {
		return 0, nil, err
	}
	buffers, s, err = weighNetwork(c, opt.Device, opt.network(limits))
	return buffers + draft, s, err
}

// limits are those that a model of the checkpoint is opened with, beside a draft model of so many bytes.
func (o *Options) limits(c *store.Checkpoint) (limits model.Limits, draft int64, err error) {
	spec, err := o.network(model.Limits{}).Describe(c)
	if err != nil {
		return limits, 0, err
	}
	if draft, err = o.weighDraft(c, &spec); err != nil {
		return limits, 0, err
	}
	if limits, err = fit(&spec, *o); err != nil {
		return limits, 0, fmt.Errorf("%s: %w", c.Path, err)
	}
	return limits, draft, nil
}

func weighNetwork(c *store.Checkpoint, d tensor.Device, opt model.Options) (buffers int64, s *sampler, err error) {
	spec, err := opt.Describe(c)
	if err != nil {
		return 0, nil, err
	}
	left, err := spec.Left(c)
	if err != nil {
		return 0, nil, err
	}
	if buffers, err = spec.BufferBytes(opt); err != nil {
		return 0, nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	s = &sampler{device: d, seen: map[sample]float64{}}
	heads := model.HeadTensors(c) // see weighHead
	for _, t := range c.Tensors {
		if slices.Contains(heads, t.Name) {
			continue
		}
		share, some := left[t.Name]
		if !some {
			share = 1
		}
		if err := s.add(&t, opt.DType, share, some); err != nil {
			return 0, nil, fmt.Errorf("%s: weigh %s: %w", c.Path, t.Name, err)
		}
	}
	if opt.ExpertBytes > 0 && opt.ExpertBytes < s.experts {
		s.copied, s.shared = s.copied-s.copiedExperts+opt.ExpertBytes, s.shared-(s.experts-s.copiedExperts)
	}
	return buffers, s, nil
}

// sampler finds what weights take in a device's own layout: it has the device load a few rows of zeros of each kind, and looks.
type sampler struct {
	device tensor.Device
	seen   map[sample]float64 // bytes a row; below 0 where the device uses the host's memory
	copied int64              // bytes on the device
	shared int64              // bytes that the device uses where they are

	experts       int64 // of both, those of experts
	copiedExperts int64 // of copied
}

// sample is a kind of weight.
type sample struct {
	format *quant.Format
	cols   int
	few    int // rows, where it has fewer than a sample
}

// sampleRows is a multiple of the rows that devices pack together.
const sampleRows = 64

// add adds a share of a tensor, which may be one of experts.
func (s *sampler) add(t *store.Tensor, dtype model.DType, share float64, expert bool) error {
	rows, cols, format := 1, 1, t.Format
	if n := len(t.Shape); n > 0 {
		cols = t.Shape[n-1]
		for _, d := range t.Shape[:n-1] {
			rows *= d
		}
	}
	switch {
	case format.Decode == nil:
		return nil // no network reads it
	case len(t.Shape) < 2: // a norm or a bias
		s.copied += 4 * int64(cols)
		return nil
	case dtype == model.Float32:
		format = quant.F32
	}
	kind := sample{format: format, cols: cols}
	if rows < sampleRows {
		kind.few = rows
	}
	per, ok := s.seen[kind]
	if !ok {
		var err error
		if per, err = s.rowBytes(kind); err != nil {
			return err
		}
		s.seen[kind] = per
	}
	per *= share * float64(rows)
	copied, shared := int64(max(per, 0)), int64(max(-per, 0))
	s.copied, s.shared = s.copied+copied, s.shared+shared
	if expert {
		s.experts, s.copiedExperts = s.experts+copied+shared, s.copiedExperts+copied
	}
	return nil
}

// rowBytes loads a sample.
func (s *sampler) rowBytes(k sample) (float64, error) {
	rows := sampleRows
	if k.few > 0 {
		rows = k.few
	}
	w := tensor.HostMat("", k.format, rows, k.cols, make([]byte, rows*k.format.RowBytes(k.cols)))
	m, err := s.device.Load(w)
	if err != nil {
		return 0, err
	}
	per := float64(m.Buf.Len()) / float64(rows)
	if m.Buf == w.Buf {
		return -per, nil
	}
	s.device.Free(m.Buf)
	return per, nil
}

// meter is a device that counts what it gives.
type meter struct {
	tensor.Device

	mu     sync.Mutex
	sizes  map[tensor.Buffer]int64 // what is given and not freed
	copied int64                   // bytes of it
	shared int64                   // bytes of host memory that the device uses as weights
	mapped int64                   // bytes that it has made of mapped weights, which other models may hold too
}

// Alloc counts the bytes.
func (d *meter) Alloc(bytes int) (tensor.Buffer, error) {
	b, err := d.Device.Alloc(bytes)
	if err == nil {
		d.count(b)
	}
	return b, err
}

// Load counts what the device made of the weight.
func (d *meter) Load(w tensor.Mat) (tensor.Mat, error) {
	m, err := d.Device.Load(w)
	switch {
	case err != nil:
	case m.Buf == w.Buf:
		d.mu.Lock()
		d.shared += int64(w.Bytes())
		d.mu.Unlock()
	default:
		d.count(m.Buf)
		if host, ok := w.Buf.(*tensor.Memory); ok && host.Mapped() {
			d.mu.Lock()
			d.mapped += int64(m.Buf.Len())
			d.mu.Unlock()
		}
	}
	return m, err
}

// Stack counts the bytes.
func (d *meter) Stack(w tensor.Mat, n int) (tensor.Mat, error) {
	m, err := d.Device.Stack(w, n)
	if err == nil {
		d.count(m.Buf)
	}
	return m, err
}

// Free takes the bytes off.
func (d *meter) Free(b tensor.Buffer) {
	d.mu.Lock()
	d.copied -= d.sizes[b]
	delete(d.sizes, b)
	d.mu.Unlock()
	d.Device.Free(b)
}

func (d *meter) count(b tensor.Buffer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sizes[b] = int64(b.Len())
	d.copied += d.sizes[b]
}

// total is what a checkpoint's model takes. Weights that are used in place are the checkpoint's own bytes, which count once.
func (d *meter) total(c *store.Checkpoint) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.copied + max(d.shared, c.Resident())
}
