package serve

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/text"
)

// DraftModel is a smaller model of the same vocabulary, which foretells what a model will say; see engine.Drafter.
type DraftModel struct {
	Name    string // for errors
	Open    func() (*store.Checkpoint, error)
	Overlay *model.Overlay // which experts it has; nil = those of its checkpoint
	Within  bool           // it is the model itself under Overlay, of the same mapping and both loaded Apart: their weights are in memory once
	Most    int            // tokens foretold at once; 0 = engine.MostDraft
	MinP    float32        // what it thinks less likely is not drafted
}

// DraftCounts are what a draft model did.
type DraftCounts = engine.DraftCounts

// VocabError says that a draft model has other tokens than the model that it is to foretell.
type VocabError struct {
	Draft       string // its name
	ID          int32  // the first id that differs
	Want, Got   []byte // what it stands for in the model, and in the draft model; nil where there is no such id
	Model, Size int    // how many tokens each of them has
}

func (e *VocabError) Error() string {
	said := func(b []byte) string {
		if b == nil {
			return "nothing"
		}
		return fmt.Sprintf("%.60q", b)
	}
	return fmt.Sprintf("draft model %s has another vocabulary: id %d is %s and not %s (%d tokens, the model has %d)",
		e.Draft, e.ID, said(e.Got), said(e.Want), e.Size, e.Model)
}

// draftShare is the part of the memory for keys and values that a draft model's may have at most.
const draftShare = 4

// companion is a draft model that is open beside a model.
type companion struct {
	*DraftModel
	checkpoint *store.Checkpoint
	opt        model.Options
	net        *model.Model // nil until it is loaded
	shares     bool         // the device has its weights in any case
	head       bool         // it is of the model itself, and of its checkpoint: checkpoint is nil
}

// companion opens the checkpoint of the draft model and takes what its cache has out of the options; where there is none, the model's own head has its
// place, and nil says that nothing is drafted by either. The options are filled.
func (o *Options) companion(target *model.Spec) (p *companion, err error) {
	d := o.DraftModel
	switch {
	case o.Draft != engine.ByModel && o.Draft != engine.Always:
		return nil, nil
	case d == nil:
		return o.headed(target)
	}
	c, err := d.Open()
	if err != nil {
		return nil, fmt.Errorf("draft model: %w", err)
	}
	p = &companion{DraftModel: d, checkpoint: c}
	if err := p.fit(o, target); err != nil {
		return nil, errors.Join(fmt.Errorf("draft model %s: %w", d.Name, err), c.Close())
	}
	return p, nil
}

// fit plans the sizes of its buffers, for as many tokens as the model's where a part of the memory for keys and values has them.
func (p *companion) fit(o *Options, target *model.Spec) error {
	c, d := p.checkpoint, p.DraftModel
	p.shares = d.Within && o.ExpertBytes <= 0 && o.DType != model.Float32
	p.opt = model.Options{DType: o.DType, KVType: o.KVType, Rope: o.Rope, Overlay: d.Overlay, ForceOverlay: o.ForceOverlay, Apart: d.Within}
	spec, err := p.opt.Describe(c)
	if err != nil {
		return err
	}
	kv, err := p.opt.KV()
	if err != nil {
		return err
	}
	if kv.Pruned > 0 { // which saves little where there are few pages
		kv.Pruned, p.opt.KVType = 0, strings.ToLower(kv.Format.Name)
	}
	page := int64(spec.PageBytes(kv))
	context := min(cmp.Or(o.Context, min(target.Context, mostContext)), spec.Context)
	pages := min(o.CacheBytes/draftShare/page, int64((context+pageTokens-1)/pageTokens*o.Sequences))
	if pages < 1 {
		return fmt.Errorf("a page of its cache takes %d bytes, %d are allowed: one part in %d of the cache", page, o.CacheBytes/draftShare, draftShare)
	}
	p.opt.Limits = model.Limits{
		Rows: min(o.rows(target), max(draftRows, 16*o.Sequences)), Sequences: o.Sequences, Wanted: o.Sequences, Pages: int(pages), Context: context,
	}
	p.opt.Limits.Rows = max(p.opt.Limits.Rows, leastDraftRows)
	o.CacheBytes -= pages * page
	return nil
}

// Rows of a step of a draft model. It has a few of each sequence, or of those that catch up with a prompt what others need not wait long for.
const (
	draftRows      = 128
	leastDraftRows = 16
)

// weigh says about how many bytes it takes.
func (p *companion) weigh(d tensor.Device) (int64, error) {
	buffers, s, err := weighNetwork(p.checkpoint, d, p.opt)
	switch {
	case err != nil:
		return 0, err
	case p.shares:
		return buffers, nil
	}
	return buffers + s.copied + max(s.shared, p.checkpoint.Resident()), nil
}

// weighDraft says about how many bytes a draft model takes, and takes what its cache has out of the options.
func (o *Options) weighDraft(c *store.Checkpoint, target *model.Spec) (int64, error) {
	p, err := o.companion(target)
	switch {
	case p == nil || err != nil:
		return 0, err
	case p.head:
		return p.weighHead(c, o.Device, target)
	}
	n, err := p.weigh(o.Device)
	return n, errors.Join(err, p.checkpoint.Close())
}

// load brings the draft model onto the device, beside the model that it is to foretell.
func (p *companion) load(m *Model, d tensor.Device) (err error) {
	switch {
	case p == nil:
		return nil
	case p.head:
		p.net, err = m.net.LoadHead(p.opt)
		return err
	}
	named := func(err error) error { return fmt.Errorf("draft model %s: %w", p.Name, err) }
	v, err := vocabulary(p.checkpoint)
	if err != nil {
		return named(err)
	}
	tok, err := text.NewTokenizer(v)
	if err != nil {
		return named(err)
	}
	if id, ok := firstOther(m.tok, tok); !ok {
		return &VocabError{p.Name, id, m.tok.Piece(id), tok.Piece(id), len(m.tok.Vocab().Tokens), len(v.Tokens)}
	}
	device := &meter{Device: d, sizes: map[tensor.Buffer]int64{}}
	if p.net, err = model.Load(p.checkpoint, model.Placement{Device: device}, p.opt); err != nil {
		return named(err)
	}
	if p.shares { // what both have is in m.memory
		m.memory += device.copied - device.mapped
	} else {
		m.memory += device.total(p.checkpoint)
	}
	return nil
}

// firstOther is the first id that stands for something else in another vocabulary; ok says that there is none.
func firstOther(a, b text.Tokenizer) (id int32, ok bool) {
	n, m := len(a.Vocab().Tokens), len(b.Vocab().Tokens)
	for id := range int32(min(n, m)) {
		if !bytes.Equal(a.Piece(id), b.Piece(id)) {
			return id, false
		}
	}
	return int32(min(n, m)), n == m
}

// drafter is the draft model for an engine; nil where there is none.
func (p *companion) drafter() *engine.Drafter {
	if p == nil {
		return nil
	}
	return &engine.Drafter{Model: p.net, Most: p.Most, MinP: p.MinP}
}

// close gives back what it has. No engine steps it any more.
func (p *companion) close() error {
	if p == nil {
		return nil
	}
	if p.net != nil {
		p.net.Close()
	}
	if p.head {
		return nil
	}
	return p.checkpoint.Close()
}
