package model_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Experts of the demo, of which it has 6 layers of 8 and takes 2 a token.
const demoExpert = 3 * 256 * 128 / 32 * 34 // bytes, in Q8_0

// demoFile is the demo as a file.
func demoFile(t *testing.T) (*store.Checkpoint, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "demo.gguf")
	if err := os.WriteFile(path, demo.GGUF, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, path
}

func loaded(t *testing.T, c *store.Checkpoint, d tensor.Device, opt model.Options) *model.Model {
	t.Helper()
	opt.Limits = model.Limits{Rows: 32, Sequences: 1, Wanted: 32, Pages: 1, Context: 64}
	m, err := model.Load(c, model.Placement{Device: d}, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// stepped are the logits those of a prompt that touches most experts, and of tokens after it, one by one.
func stepped(m *model.Model) (out []float32) {
	out = run(m, []int32{1, 20, 300, 7, 7, 250, 9, 44, 31, 5}, 0)
	for i, id := range []int32{17, 300, 4, 99, 17, 1000, 5, 6, 301, 17, 2, 44, 17, 1023} {
		out = append(out, run(m, []int32{id}, 10+i)...)
	}
	return out
}

// However few experts are in memory, the logits are the same to the bit, on every device.
func TestResidentExperts(t *testing.T) {
	c, _ := demoFile(t)
	for _, d := range append(devices(t), tensor.Reference()) {
		for _, opt := range []model.Options{{}, {Overlay: ragged}} {
			if d == tensor.Reference() && opt.Overlay == nil {
				continue
			}
			want := stepped(loaded(t, c, d, opt))
			for _, slots := range []int64{22, 26, 47} {
				if d == tensor.Reference() && slots != 26 { // which is slow
					continue
				}
				opt.ExpertBytes = slots * demoExpert * 11 / 10 // tiles may take more than the file
				m := loaded(t, c, d, opt)
				if got := stepped(m); !slices.Equal(got, want) {
					t.Errorf("%s: room for some %d experts: the logits are off by %g", d.Name(), slots, apart(got, want))
				}
				if opt.Overlay == nil && slots < 47 {
					traffic(t, m)
				}
			}
		}
		if d == tensor.Reference() {
			continue
		}
		opt := model.Options{DType: model.Float32}
		want := stepped(loaded(t, c, d, opt))
		if opt.ExpertBytes = 26 * 3 * 256 * 128 * 4; !slices.Equal(stepped(loaded(t, c, d, opt)), want) {
			t.Errorf("%s: f32: the logits differ", d.Name())
		}
	}
}

// traffic checks what the model says it has read.
func traffic(t *testing.T, m *model.Model) {
	t.Helper()
	all := m.ExpertTraffic()
	if len(all) != 6 {
		t.Fatalf("traffic of %d layers", len(all))
	}
	var guessed int64
	for _, l := range all {
		guessed += l.Guessed
		if l.Slots < 2 || l.Slots > 8 || l.Hits+l.Misses < 14*2 || l.Misses < 2 || l.Bytes != l.Misses*demoExpert || l.Came > l.Guessed {
			t.Errorf("%+v", l)
		}
	}
	if guessed == 0 || all[0].Guessed != 0 {
		t.Errorf("%d experts are guessed, %d of them of the first layer, which nobody can guess", guessed, all[0].Guessed)
	}
}

// Where all experts fit, they are loaded; where not even a token's do, that is said.
func TestResidentExpertsByRoom(t *testing.T) {
	c, _ := demoFile(t)
	m := loaded(t, c, tensor.Reference(), model.Options{ExpertBytes: 48 * demoExpert})
	if m.ExpertTraffic() != nil {
		t.Error("experts are read though all of them fit")
	}
	limits := model.Limits{Rows: 32, Sequences: 1, Wanted: 32, Pages: 1, Context: 64}
	_, err := model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{ExpertBytes: 19 * demoExpert, Limits: limits})
	if !errors.Is(err, model.ErrExpertBytes) {
		t.Errorf("room for 19 experts: %v", err)
	}
}

// A file that becomes shorter while the model runs fails the step that misses it, and nothing else.
func TestResidentExpertsOfAFileThatShrinks(t *testing.T) {
	c, path := demoFile(t)
	all := devices(t)
	if len(all) == 0 {
		t.Skip("the reference device reads all weights where they are mapped")
	}
	m := loaded(t, c, all[0], model.Options{ExpertBytes: 22 * demoExpert})
	want := stepped(m)
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	failure := func() (err error) {
		defer func() { err, _ = recover().(error) }()
		stepped(m)
		return nil
	}()
	if failure == nil || !strings.Contains(failure.Error(), "expert") || !strings.Contains(failure.Error(), path) {
		t.Errorf("reading beyond the end: %v", failure)
	}
	if err := os.WriteFile(path, demo.GGUF, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := stepped(m); !slices.Equal(got, want) {
		t.Error("after the file is whole again the logits differ")
	}
}

// Experts of several formats cannot share slots, and a layer of them is refused.
func TestResidentExpertsInBanks(t *testing.T) {
	c := banked(t, openDemo(t), &moe.Overlay{})
	want := stepped(loaded(t, c, tensor.Reference(), model.Options{}))
	if got := stepped(loaded(t, c, tensor.Reference(), model.Options{ExpertBytes: 30 * demoExpert})); !slices.Equal(got, want) {
		t.Error("experts of two banks: the logits differ")
	}
}

// slotted counts what a device has given for stacks and not got back, and has no memory for more than so much.
type slotted struct {
	tensor.Device
	sizes map[tensor.Buffer]int
	held  int
	most  int // 0 = any
}

func (d *slotted) Stack(w tensor.Mat, n int) (tensor.Mat, error) {
	m, err := d.Device.Stack(w, n)
	if err == nil && d.most > 0 && d.held+m.Buf.Len() > d.most {
		d.Device.Free(m.Buf)
		return tensor.Mat{}, errors.New("out of memory")
	}
	if err == nil {
		d.sizes[m.Buf] = m.Buf.Len()
		d.held += m.Buf.Len()
	}
	return m, err
}

func (d *slotted) Free(b tensor.Buffer) {
	d.held -= d.sizes[b]
	delete(d.sizes, b)
	d.Device.Free(b)
}

// Between two steps slots become fewer and more, and the logits are those of a model whose experts are all loaded.
func TestResizeExperts(t *testing.T) {
	c, _ := demoFile(t)
	for _, under := range append(devices(t), tensor.Reference()) {
		want := stepped(loaded(t, c, under, model.Options{}))
		d := &slotted{Device: under, sizes: map[tensor.Buffer]int{}}
		m := loaded(t, c, d, model.Options{ExpertBytes: 26 * demoExpert * 11 / 10})
		first := m.ExpertBytes()
		sizes := []int64{22, 47, 1000, 30}
		if under == tensor.Reference() {
			sizes = sizes[3:]
		}
		for _, slots := range sizes {
			took, err := m.ResizeExperts(slots * demoExpert * 11 / 10)
			if err != nil || took != m.ExpertBytes() || int64(d.held) != took || (took > first) != (slots > 26) {
				t.Errorf("%s: %d slots take %d bytes, the device gave %d: %v", d.Name(), slots, took, d.held, err)
			}
			if got := stepped(m); !slices.Equal(got, want) {
				t.Errorf("%s: with some %d slots the logits are off by %g", d.Name(), slots, apart(got, want))
			}
		}
		was := m.ExpertBytes()
		if took, err := m.ResizeExperts(19 * demoExpert); !errors.Is(err, model.ErrExpertBytes) || took != was || m.ExpertBytes() != was {
			t.Errorf("%s: room for 19 experts: %d bytes, %v", d.Name(), took, err)
		}
		d.most = int(was)
		if took, err := m.ResizeExperts(48 * demoExpert * 2); err == nil || took != was {
			t.Errorf("%s: more than the device has: %d bytes, %v", d.Name(), took, err)
		}
		if under != tensor.Reference() && !slices.Equal(stepped(m), want) {
			t.Errorf("%s: after the device had no more the logits differ", d.Name())
		}
		if m.Close(); d.held != 0 {
			t.Errorf("%s: %d bytes are not given back", d.Name(), d.held)
		}
	}
	if _, err := loaded(t, c, tensor.Reference(), model.Options{}).ResizeExperts(1 << 30); !errors.Is(err, model.ErrAllLoaded) {
		t.Errorf("a model without slots: %v", err)
	}
}

// Where a device gives no memory at all after some was given back, steps fail and say so, until it does again.
func TestResizeExpertsWithoutMemory(t *testing.T) {
	c, _ := demoFile(t)
	all := devices(t)
	if len(all) == 0 {
		t.Skip("slow")
	}
	want := stepped(loaded(t, c, all[0], model.Options{}))
	d := &slotted{Device: all[0], sizes: map[tensor.Buffer]int{}}
	m := loaded(t, c, d, model.Options{ExpertBytes: 26 * demoExpert * 11 / 10})
	d.most = 1
	if took, err := m.ResizeExperts(23 * demoExpert * 11 / 10); err == nil || took != 0 || d.held != 0 {
		t.Errorf("no memory: %d bytes, %v", took, err)
	}
	failure := func() (err error) {
		defer func() { err, _ = recover().(error) }()
		stepped(m)
		return nil
	}()
	if !errors.Is(failure, model.ErrExpertBytes) {
		t.Errorf("a step without slots: %v", failure)
	}
	d.most = 0
	if _, err := m.ResizeExperts(23 * demoExpert * 11 / 10); err != nil || !slices.Equal(stepped(m), want) {
		t.Errorf("memory is there again: %v", err)
	}
}
