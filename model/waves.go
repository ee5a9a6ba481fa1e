package model

import (
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
)

// waves runs a layer's experts when not all are loaded: those that a step needs and that are there first, then the others, as many at a time as
// there is room for.
type waves struct {
	resident *resident
	room     *room
	at       int // which layer of the room
	experts  []expert
	phys     []int32 // router row -> physical expert
	batch    *Batch
	ffn      moe.FFN
	offset   []int32 // scratch: the plan's
	need     []int32 // scratch: experts that the step needs
	stats    ExpertTraffic

	guess     guess  // of the next layer's experts
	guessedBy *guess // the guess of this layer's; nil = nobody
}

// ExpertTraffic is what a layer of a model has done whose experts are not all loaded, since it was.
type ExpertTraffic struct {
	Layer   int   // of the network
	Slots   int   // experts that it has room for
	Hits    int64 // experts that a step needed and that were there
	Misses  int64 // ... and that were read
	Bytes   int64 // read from the checkpoint
	Guessed int64 // missing experts that were asked for ahead
	Came    int64 // ... and were needed
}

// layer prepares the at-th layer of experts.
func (r *resident) layer(at int, ffn *moe.FFN, router tensor.Op) *waves {
	w := r.layers[at]
	w.ffn = *ffn
	w.ffn.Banks = []moe.Bank{w.room.bank()}
	if route, ok := router.(*moe.Route); ok && at > 0 {
		r.layers[at-1].guess.next(w, route)
	}
	return w
}

// run computes the experts of the step whose plan the queue makes. What fails is said by the queue's next Sync; what follows in the step is then
// of no use.
func (w *waves) run(q tensor.Queue) {
	if w.resident.queue.err != nil {
		return
	}
	if slices.ContainsFunc(w.resident.rooms, func(rm *room) bool { return rm.slots == nil }) {
		w.resident.queue.err = fmt.Errorf("%w: none could be had for slots", ErrExpertBytes)
		return
	}
	w.guess.ask(q)
	read(q, w.ffn.Plan.Offset.Slice(0, len(w.offset)), w.offset)
	w.guessedBy.judge()
	w.guess.fetch(q)
	w.need = w.need[:0]
	for e := range w.experts {
		if w.offset[e+1] > w.offset[e] {
			w.need = append(w.need, int32(e))
		}
	}
	all := w.room.slots.Resolve(w.at, w.need)
	w.stats.Hits += int64(all.Hits)
	w.stats.Misses += int64(len(w.need) - all.Hits)
	if len(all.Waves) == 0 { // no row has an expert
		all.Waves = []moe.Wave{{Slot: make([]int32, len(w.experts))}}
		for e := range all.Waves[0].Slot {
			all.Waves[0].Slot[e] = -1
		}
	}
	for i := range all.Waves {
		if err := w.wave(q, &all.Waves[i]); err != nil {
			for _, later := range all.Waves[i:] {
				w.forget(later.Fills)
			}
			w.resident.queue.err = err
			return
		}
		if i+1 < len(all.Waves) {
			w.ahead(all.Waves[i+1].Fills)
		}
	}
}

// wave brings the missing experts of a wave and runs it. Those of the wave before have run: their slots may be taken.
func (w *waves) wave(q tensor.Queue, wave *moe.Wave) error {
	if len(wave.Fills) > 0 {
		if err := w.resident.queue.Queue.Sync(); err != nil {
			return err
		}
		if err := w.fill(wave.Fills); err != nil {
			return err
		}
	}
	w.ffn.Banks[0].Slot = wave.Slot
	q.Run(&w.ffn)
	return nil
}

// fill reads experts and brings them to their slots.
func (w *waves) fill(fills []moe.Fill) error {
	var group errgroup.Group
	group.SetLimit(readers)
	for _, f := range fills {
		w.stats.Bytes += w.experts[f.Expert].bytes()
		group.Go(func() error {
			if err := w.bring(f); err != nil {
				return fmt.Errorf("expert %d of %s: %w", f.Expert, w.experts[f.Expert][0].Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// bring reads an expert and packs it into a slot.
func (w *waves) bring(f moe.Fill) error {
	r := w.resident
	buffer := <-r.buffers
	defer func() { r.buffers <- buffer }()
	for i, part := range w.experts[f.Expert] {
		raw := buffer[:part.Bytes()]
		if err := r.checkpoint.Read(raw, part.Raw()); err != nil {
			return err
		}
		m := tensor.HostMat(part.Name, part.Format, part.Rows, part.Cols, raw)
		if r.widen {
			m = widened(m)
		}
		rows := w.room.rows[i]
		if err := r.device.Reload(w.room.stacks[i].Slice(int(f.Slot)*rows, int(f.Slot+1)*rows), m); err != nil {
			return err
		}
	}
	return nil
}

// ahead has the system read experts while something else is computed.
func (w *waves) ahead(fills []moe.Fill) {
	for _, f := range fills {
		for _, part := range w.experts[f.Expert] {
			w.resident.checkpoint.Ahead(part.Raw())
		}
	}
}

func (w *waves) forget(fills []moe.Fill) {
	for _, f := range fills {
		w.room.slots.Forget(w.at, f)
	}
}

func (e *expert) bytes() (n int64) {
	for _, part := range e {
		n += int64(part.Bytes())
	}
	return n
}

// ReadsExperts says whether some experts are read when tokens choose them.
func (m *Model) ReadsExperts() bool { return m.loader.resident != nil }

// ExpertTraffic says what the layers of experts have read; none where all experts are loaded. Only who steps the model may call it.
func (m *Model) ExpertTraffic() (out []ExpertTraffic) {
	if m.loader.resident == nil {
		return nil
	}
	for i, w := range m.loader.resident.layers {
		w.stats.Layer, w.stats.Slots = m.scratch.routing.totals[i].Layer, 0
		if w.room.slots != nil {
			w.stats.Slots = w.room.slots.Share(w.at)
		}
		out = append(out, w.stats)
	}
	return out
}
