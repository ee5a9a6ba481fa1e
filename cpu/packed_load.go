//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/winnow-llm/winnow/tensor"
)

// longPacking is how long packing must take for its result to be kept.
const longPacking = 2 * time.Second

// keeper is a device's folder of packed weights with what is being loaded from it and written to it.
type keeper struct {
	packed Packed
	after  time.Duration // longPacking, but for tests
	say    func(line string)
	mu     sync.Mutex
	live   []*packedModel
}

// packedModel is the weights of one model, from the beginning of loading until they are kept, if they are. Fields that change are guarded by the
// keeper's mu.
type packedModel struct {
	files Files
	key   packedKey
	old   *packedFile // what is there; nil = nothing
	file  *os.File    // that old reads

	open    bool // weights are still being loaded
	weights map[packedKey]*memory
	order   []packedKey // in which they were loaded
	packing time.Duration
	reading time.Duration
	read    int64 // bytes taken from the file
	damaged bool  // the file, or a part of it
	stopped bool  // a weight has gone or was changed: these can no longer be kept
	written chan struct{}
}

// loading begins to load; see Loading.
func (d *device) loading(f Files) (done func()) {
	k := &d.keeper
	if k.packed.Dir == "" || len(f.Mapped) == 0 {
		return func() {}
	}
	l := &packedModel{files: f, key: keyOf(f.Key), open: true, weights: map[packedKey]*memory{}, written: make(chan struct{})}
	var err error
	if l.old, l.file, err = k.packed.open(l.key); err != nil {
		l.damaged = errors.Is(err, errPacked)
		k.say(fmt.Sprintf("cpu: %s: packed weights are not used: %v", f.Name, err))
	}
	k.mu.Lock()
	k.live = append(k.live, l)
	k.mu.Unlock()
	return func() { k.done(l) }
}

// of finds the model that a weight is loaded for, and what the weight is known by. A keeper that keeps nothing finds none.
func (k *keeper) of(w tensor.Mat) (*packedModel, packedKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.live) == 0 || w.Bytes() == 0 {
		return nil, packedKey{}
	}
	at := uintptr(unsafe.Pointer(&w.Raw()[0]))
	for _, l := range k.live {
		for i, m := range l.files.Mapped {
			if !l.open || len(m) == 0 {
				continue
			}
			if off := at - uintptr(unsafe.Pointer(&m[0])); off < uintptr(len(m)) && uintptr(w.Bytes()) <= uintptr(len(m))-off {
				return l, keyOf(fmt.Sprintf("%s\n%d %d %d x %d %s", w.Name, i, off, w.Rows, w.Cols, w.Format.Name))
			}
		}
	}
	return nil, packedKey{}
}

// fill makes dst the packed weight w, from the folder where it is there.
func (d *device) fill(dst, w tensor.Mat) {
	l, id := d.keeper.of(w)
	if l == nil {
		d.pack(dst, w)
		return
	}
	m := dst.Buf.(*memory)
	if !d.keeper.take(l, id, m, d.options.Threads) {
		d.keeper.note(l, id, m, d.pack(dst, w))
	}
}

// take reads a weight, and says whether it was there, whole.
func (k *keeper) take(l *packedModel, id packedKey, m *memory, threads int) bool {
	k.mu.Lock()
	old := l.old
	k.mu.Unlock()
	if old == nil {
		return false
	}
	w, ok := old.weights[id]
	if !ok || w.bytes != int64(len(m.bytes)) {
		return false
	}
	start := time.Now()
	err := old.read(w, m.bytes, threads)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.say(fmt.Sprintf("cpu: %s: %s: weights are packed anew: %v", l.files.Name, k.packed.path(l.key), err))
		l.old, l.damaged = nil, true // and no other weight of it is trusted
		return false
	}
	l.reading += time.Since(start)
	l.read += w.bytes
	l.add(id, m)
	return true
}

// note remembers a weight that was packed.
func (k *keeper) note(l *packedModel, id packedKey, m *memory, took time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l.packing += took
	l.add(id, m)
}

func (l *packedModel) add(id packedKey, m *memory) {
	if _, again := l.weights[id]; !again {
		l.order = append(l.order, id)
	}
	l.weights[id] = m
}

// done ends loading, and keeps the weights if it is worth it.
func (k *keeper) done(l *packedModel) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.open = false; l.file != nil {
		l.file.Close()
	}
	path := k.packed.path(l.key)
	if l.read > 0 {
		k.say(fmt.Sprintf("cpu: %s: %d MB of packed weights read from %s in %.1f s", l.files.Name, l.read/1e6, path, l.reading.Seconds()))
	}
	if l.stopped || len(l.order) == 0 || l.packing <= k.after && !l.damaged {
		k.drop(l)
		return
	}
	weights := make([]keptWeight, len(l.order))
	for i, id := range l.order {
		weights[i] = keptWeight{id, l.weights[id].bytes}
	}
	go func() {
		start := time.Now()
		err := k.packed.write(l.key, weights, func() bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return l.stopped
		})
		k.mu.Lock()
		defer k.mu.Unlock()
		switch {
		case err == nil:
			k.say(fmt.Sprintf("cpu: %s: packing took %.1f s: its result is kept in %s, after %.1f s", l.files.Name, l.packing.Seconds(), path, time.Since(start).Seconds()))
		case !errors.Is(err, errStopped):
			k.say(fmt.Sprintf("cpu: %s: packing took %.1f s, and its result is not kept: %v", l.files.Name, l.packing.Seconds(), err))
		}
		k.drop(l)
	}()
}

// drop ends what is known of a model's weights.
func (k *keeper) drop(l *packedModel) {
	k.live = slices.DeleteFunc(k.live, func(other *packedModel) bool { return other == l })
	close(l.written)
}

// let sees to it that nobody reads a weight that is about to go or to be changed.
func (k *keeper) let(m *memory) {
	k.stop(func(l *packedModel) bool {
		for _, other := range l.weights {
			if other == m {
				return true
			}
		}
		return false
	})
}

// stop gives up keeping the weights of some models, and waits until nobody writes them.
func (k *keeper) stop(which func(*packedModel) bool) {
	k.mu.Lock()
	var writing []*packedModel
	for _, l := range k.live {
		if which(l) {
			if l.stopped = true; !l.open {
				writing = append(writing, l)
			}
		}
	}
	k.mu.Unlock()
	for _, l := range writing {
		<-l.written
	}
}
