package serve

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// headName is what the drafter is called that is a layer of the model itself.
const headName = "mtp"

// headed plans a head of the model itself as its drafter, and takes what its cache has out of the options: of one layer, with as many pages as the model's,
// and one more for each sequence, which goes on a little further there. nil where the model has no head.
func (o *Options) headed(target *model.Spec) (*companion, error) {
	if len(target.MTP) == 0 {
		return nil, nil
	}
	network := o.network(model.Limits{})
	kv, err := network.KV()
	if err != nil {
		return nil, err
	}
	spec, err := target.Head()
	if err != nil {
		return nil, err
	}
	plain := model.KV{Format: kv.Format} // to prune the pages of one layer saves little
	page, own, more := int64(target.PageBytes(kv)), int64(spec.PageBytes(plain)), int64(o.Sequences)
	room := o.CacheBytes - target.DenseBytes(kv, model.Limits{Rows: o.rows(target), Sequences: o.Sequences}) - more*own
	context := cmp.Or(o.Context, min(target.Context, mostContext))
	pages := min(room/(page+own), int64((context+pageTokens-1)/pageTokens*o.Sequences))
	if pages < 1 {
		return nil, fmt.Errorf("%s: the cache of %d bytes has no room for the layer that foretells tokens: --speculative ngram does without", headName, o.CacheBytes)
	}
	o.CacheBytes -= (pages + more) * own
	return &companion{head: true, DraftModel: &DraftModel{Name: headName, Most: o.DraftMost, MinP: o.DraftMinP}, opt: model.Options{
		DType: o.DType, KVType: strings.ToLower(plain.Format.Name), Limits: model.Limits{
			Rows:      max(min(o.rows(target), max(draftRows, 16*o.Sequences)), leastDraftRows),
			Sequences: o.Sequences, Wanted: o.Sequences, Pages: int(pages + more), Context: context,
		},
	}}, nil
}

// weighHead says about how many bytes the head of a checkpoint takes.
func (p *companion) weighHead(c *store.Checkpoint, d tensor.Device, target *model.Spec) (int64, error) {
	buffers, err := target.HeadBytes(p.opt)
	if err != nil {
		return 0, err
	}
	s := &sampler{device: d, seen: map[sample]float64{}}
	for _, name := range model.HeadTensors(c) {
		t, err := c.Tensor(name)
		if err == nil {
			err = s.add(&t, p.opt.DType, 1, false)
		}
		if err != nil {
			return 0, fmt.Errorf("%s: weigh %s: %w", c.Path, name, err)
		}
	}
	return buffers + s.copied + s.shared, nil
}
