package model

import (
	"errors"
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// ErrExpertBytes refuses Options.ExpertBytes that have no room for the experts of one token.
var ErrExpertBytes = errors.New("model: too little memory for experts")

// resident runs a model whose experts do not all fit. Slots on the device hold some of them, and who is missing is read from the checkpoint when
// tokens choose it: see moe.Slots for which stay. What a model computes does not depend on it, not by a bit.
type resident struct {
	checkpoint *store.Checkpoint
	device     tensor.Device
	queue      *failing
	widen      bool // experts to F32
	rooms      []*room
	layers     []*waves
	buffers    chan []byte // for what is read, as many as may be read at once
}

// room is the slots of layers whose experts are alike.
type room struct {
	kind   string
	slots  *moe.Slots    // nil where memory was given back and none could be had again
	stacks [3]tensor.Mat // gate, up and down, of all slots
	count  int           // slots
	like   [3]tensor.Mat // an expert's matrices as they are brought to the device
	rows   [3]int        // of an expert

	experts, k []int // of its layers
	bytes      int64 // of an expert on the device
}

// expert is where a checkpoint has the three matrices of an expert.
type expert [3]tensor.Mat

// readers is how many experts are read at once: enough for a disk to be busy while one of them is packed.
const readers = 4

// reside prepares slots for the experts of a spec; nil where all of them fit or nobody asked.
func (l *loader) reside(s *Spec, m *Model) *resident {
	if l.opt.ExpertBytes <= 0 || l.err != nil || s.ExpertLayers() == 0 {
		return nil
	}
	r := &resident{checkpoint: l.c, device: l.device, queue: &failing{Queue: l.queue}, widen: l.opt.DType == Float32}
	most := 0
	for i := range s.Layers {
		ls := &s.Layers[i]
		if ls.Router == nil {
			continue
		}
		experts := l.sources(ls, s.Dim, func(part string) string { return fmt.Sprintf("blk.%d.%s", i, part) })
		if l.err != nil {
			return nil
		}
		rm, err := r.room(experts)
		if err != nil {
			l.fail(fmt.Errorf("layer %d: %w", i, err))
			return nil
		}
		r.layers = append(r.layers, &waves{
			resident: r, room: rm, at: len(rm.experts), experts: experts, phys: ls.Map.Phys, batch: m.batch,
			offset: make([]int32, len(experts)+1),
		})
		rm.experts, rm.k = append(rm.experts, len(experts)), append(rm.k, ls.Router.K)
		for _, e := range experts {
			most = max(most, e[0].Bytes(), e[1].Bytes(), e[2].Bytes())
		}
	}
	if fits, err := r.divide(l.opt.ExpertBytes); err != nil || fits {
		l.fail(err)
		return nil
	}
	r.buffers = make(chan []byte, readers)
	for range readers {
		r.buffers <- make([]byte, most)
	}
	return r
}

// sources are the physical experts of a layer, where the checkpoint has them. Nothing is read.
func (l *loader) sources(s *LayerSpec, dim int, name func(string) string) []expert {
	out := make([]expert, s.Map.Physical())
	for p := range out {
		at := s.Map.Place(p)
		for i, st := range s.stacks(dim, int(at.Bank), name) {
			sp := st.spans(int(at.Row), int(at.Row)+1)[0]
			if file := l.arch.inFile(l.c, sp.name); l.c.Packed(file) {
				l.fail(fmt.Errorf("%w: %q is packed in several tensors: its experts must all be loaded", ErrAssumption, file))
			}
			data, format := l.bytes(sp, st.cols)
			if l.err != nil {
				return nil
			}
			out[p][i] = tensor.HostMat(sp.name, format, st.rows, st.cols, data)
		}
	}
	return out
}

// room is the one for experts like these, of one layer.
func (r *resident) room(experts []expert) (*room, error) {
	kind := ""
	for i, w := range experts[0] {
		for p := range experts {
			if f := experts[p][i].Format; f != w.Format {
				return nil, fmt.Errorf("%w: experts of %s and of %s in one layer, when not all are loaded", ErrAssumption, w.Format, f)
			}
		}
		kind += fmt.Sprintf("%s %d x %d; ", w.Format, w.Rows, w.Cols)
	}
	if at := slices.IndexFunc(r.rooms, func(rm *room) bool { return rm.kind == kind }); at >= 0 {
		return r.rooms[at], nil
	}
	rm := &room{kind: kind}
	for i, w := range experts[0] {
		one, err := r.device.Stack(r.like(w), 1)
		if err != nil {
			return nil, err
		}
		rm.rows[i], rm.like[i] = w.Rows, r.like(w)
		rm.bytes += int64(one.Buf.Len())
		r.device.Free(one.Buf)
	}
	r.rooms = append(r.rooms, rm)
	return rm, nil
}

// like is a weight as it is brought to the device.
func (r *resident) like(w tensor.Mat) tensor.Mat {
	if r.widen {
		w.Format = quant.F32
	}
	return w
}

// divide gives each room its share of the bytes. It says so where all experts have room.
func (r *resident) divide(bytes int64) (fits bool, err error) {
	counts, fits, err := r.shares(bytes)
	if err != nil || fits {
		return fits, err
	}
	for i, rm := range r.rooms {
		if err := rm.furnish(r.device, counts[i]); err != nil {
			r.free()
			return false, err
		}
	}
	return false, nil
}

// shares is how many slots each room gets of so many bytes, by what its experts take, and whether all experts would fit.
func (r *resident) shares(bytes int64) (counts []int, fits bool, err error) {
	var all, least int64
	for _, rm := range r.rooms {
		least += rm.bytes * int64(moe.LeastSlots(rm.experts, rm.k))
		for _, n := range rm.experts {
			all += rm.bytes * int64(n)
		}
	}
	if fits = bytes >= all; bytes < least && !fits {
		return nil, false, fmt.Errorf("%w: %d bytes, want %d at least", ErrExpertBytes, bytes, least)
	}
	for _, rm := range r.rooms {
		most := 0
		for _, n := range rm.experts {
			most += n
		}
		more := max(0, min(bytes, all)-least)
		counts = append(counts, moe.LeastSlots(rm.experts, rm.k)+min(int(more*int64(most)/all), most))
	}
	return counts, fits, nil
}

// furnish makes so many slots, which hold nothing, where there are none.
func (rm *room) furnish(d tensor.Device, count int) error {
	slots, err := moe.NewSlots(rm.experts, rm.k, count)
	if err != nil {
		return err
	}
	for i := range rm.stacks {
		if rm.stacks[i], err = d.Stack(rm.like[i], count); err != nil {
			rm.clear(d)
			return err
		}
	}
	rm.slots, rm.count = slots, count
	return nil
}

// clear gives back what slots take.
func (rm *room) clear(d tensor.Device) {
	for i, stack := range rm.stacks {
		if stack.Buf != nil {
			d.Free(stack.Buf)
		}
		rm.stacks[i] = tensor.Mat{}
	}
	rm.slots, rm.count = nil, 0
}

// free gives back all slots.
func (r *resident) free() {
	for _, rm := range r.rooms {
		rm.clear(r.device)
	}
}

// failing is a queue whose Sync also says what failed beside it.
type failing struct {
	tensor.Queue
	err error // sticks until Sync
}

// Sync waits, and says what failed first.
func (q *failing) Sync() error {
	err := q.Queue.Sync()
	if q.err != nil {
		err, q.err = q.err, nil
	}
	return err
}
