package model_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Models whose caches are stored in different ways share no cache, and take the memory that their formats say.
func TestKVTypes(t *testing.T) {
	prints := map[string]bool{}
	var sizes []int64
	for _, kv := range []string{"f32", "f16", "q8_0", "q4_0", "mustafar-50", "mustafar-70"} {
		opt := model.Options{KVType: kv, Limits: limits}
		m, err := model.Load(openDemo(t), model.Placement{Device: tensor.Reference()}, opt)
		if err != nil {
			t.Fatal(err)
		}
		prints[m.Fingerprint()] = true
		size, err := m.Spec().BufferBytes(opt)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, size)
		m.Close()
	}
	if len(prints) != 6 {
		t.Errorf("fingerprints %v", prints)
	}
	spec, err := model.Describe(openDemo(t))
	if err != nil {
		t.Fatal(err)
	}
	page := int64(spec.PageBytes(model.KV{Format: quant.F16})) * int64(limits.Pages)
	if sizes[0]-sizes[1] != page || sizes[1]-sizes[2] != page*15/32 || sizes[1]-sizes[3] != page*23/32 {
		t.Errorf("models take %d bytes where the cache takes %d as f16", sizes, page)
	}
}

// A format that does not exist, and one that has no room for the heads of the model, are refused by name.
func TestBadKVTypes(t *testing.T) {
	for want, kv := range map[string]string{`kv_type "q4"`: "q4", `kv_type "q8_0": layer 0: heads of 16 values`: "q8_0", `kv_type "mustafar-60"`: "mustafar-60"} {
		c, err := store.Open("testdata/llama_tied")
		if err != nil {
			t.Fatal(err)
		}
		_, err = model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{KVType: kv, Limits: limits})
		if !errors.Is(err, model.ErrAssumption) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", kv, err, want)
		}
	}
}

// counted is a device that knows which buffers of it are taken.
type counted struct {
	tensor.Device
	taken map[tensor.Buffer]int
}

func (d *counted) Alloc(bytes int) (tensor.Buffer, error) {
	b, err := d.Device.Alloc(bytes)
	d.taken[b] = bytes
	return b, err
}

func (d *counted) Free(b tensor.Buffer) {
	delete(d.taken, b)
	d.Device.Free(b)
}

// Selectors that score keys have one place for those of a layer's pruned pages, all of them together; it is counted and given back.
func TestSelectorsOfPrunedPages(t *testing.T) {
	d := &counted{tensor.Reference(), map[tensor.Buffer]int{}}
	taken := func(names ...string) int64 {
		opt := model.Options{KVType: "mustafar-50", Limits: limits}
		opt.Limits.Rows = 128
		for _, name := range names {
			s := model.Selection{Name: name}
			if name != "full" {
				s.Params = map[string]float64{"lead": 128}
			}
			opt.Sparse = append(opt.Sparse, s)
		}
		m, err := model.Load(openDemo(t), model.Placement{Device: d}, opt)
		if err != nil {
			t.Fatal(err)
		}
		said, err := m.Spec().BufferBytes(opt)
		if err != nil {
			t.Fatal(err)
		}
		if m.Close(); len(d.taken) > 0 {
			t.Errorf("%q: buffers are left: %v", names, slices.Collect(maps.Values(d.taken)))
		}
		return said
	}
	spec, err := model.Describe(openDemo(t))
	if err != nil {
		t.Fatal(err)
	}
	l := &spec.Layers[0]
	if got := taken("anchor") - taken("full"); got != int64(limits.Pages*l.KVHeads*l.HeadDim*64*2) {
		t.Errorf("keys to score take %d bytes", got)
	}
	if both, one := taken("anchor", "xattention"), taken("anchor", "full"); both != one {
		t.Errorf("two selectors that score take %d bytes, one %d", both, one)
	}
}
