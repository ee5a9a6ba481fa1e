// Package serve is a model ready to talk: its engine, tokenizer and chat template as one thing, and a pool of several. What every
// wire format shares is here: messages become ids, ids become pieces of text with their log-probabilities and counts.
package serve

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/text"
)

// MostAlternatives is how many alternatives can be reported beside a token.
const MostAlternatives = model.MostAlternatives

// MostBiases is how many tokens of a request can have a bias.
const MostBiases = engine.MostBiases

// Options are what a server decides about the models it opens.
type Options struct {
	Device     tensor.Device   // where the model is
	Loop       *engine.Loop    // steps all engines of that device in turn
	DType      model.DType     // "" = model.Native
	KVType     string          // how keys and values are cached, see model.Options
	Context    int             // tokens a sequence; 0 = what the model was made for, at most 8192 and what CacheBytes holds
	CacheBytes int64           // most memory for keys and values; 0 = 1 GiB
	Sequences  int             // most requests that run together; 0 = 16
	Rows       int             // most tokens a step; 0 = model.Spec.StepRows
	Queue      int             // most requests that wait; 0 = 256
	Draft      engine.Drafting // whether steps compute tokens that are foretold, see engine.Options
	DraftModel *DraftModel     // what else foretells them; nil = a head of the model, where it has one
	DraftMost  int             // tokens that such a head foretells at once; 0 = engine.MostDraft
	DraftMinP  float32         // what it thinks less likely is not drafted
	MaxUnique  int             // different experts of a layer that a step is meant to run, see engine.Options; 0 = any number
	Check      bool            // the engine checks its own state after every step, slowly
	Cache      *Cache          // of what prompts were made of; shared by models, closed after them; nil = none

	Prefixes *store.Prefixes // keep what a model computed of prompts; shared by models; nil = nothing does
	Build    string          // of this program: pages are exchanged with the same one only

	Rope         model.RopeScaling // by which sequences may be longer
	Overlay      *model.Overlay    // which experts there are; nil = those of the checkpoint
	ForceOverlay bool              // take one that was made for other tensors
	Apart        bool              // load each expert by itself, so that models share those that they have in common
	ExpertBytes  int64             // of memory for experts, of which others are read when tokens choose them; 0 = all are loaded
	Experts      ExpertPolicy      // of requests
	Sparse       SparsePolicy      // likewise
	Profiles     []ExpertProfile   // of this model and of others
}

// network are the options of the network alone.
func (o *Options) network(limits model.Limits) model.Options {
	opt := model.Options{
		DType: o.DType, KVType: o.KVType, Limits: limits, Rope: o.Rope, Overlay: o.Overlay, ForceOverlay: o.ForceOverlay, Apart: o.Apart,
		ExpertBytes: o.ExpertBytes,
	}
	o.Sparse.Load(&opt)
	return opt
}

func (o Options) filled() Options {
	for _, f := range []struct {
		v   *int
		def int
	}{{&o.Sequences, 16}, {&o.Queue, 256}} {
		if *f.v <= 0 {
			*f.v = f.def
		}
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = 1 << 30
	}
	if o.DType == "" {
		o.DType = model.Native
	}
	return o
}

// rows is how many tokens a step of a model has at most.
func (o *Options) rows(spec *model.Spec) int {
	n := o.Rows
	if n <= 0 {
		n = spec.StepRows()
	}
	return max(n, o.Sequences)
}

// Model is a loaded model. Its methods may be called from any goroutine until Close.
type Model struct {
	name        string
	spec        model.Spec
	context     int
	created     time.Time
	tok         text.Tokenizer
	vocab       *text.Vocab
	ends        []int32 // ids that end an answer
	template    *text.Template
	templateErr error // why there is no template
	tags        tags  // around thoughts, as the template has them
	own         own   // what its source says beside the weights
	recommended sampling
	variants    *variants // the same weights under other names
	cache       *Cache
	identity    uint64 // no two models have the same
	policy      ExpertPolicy
	sparse      SparsePolicy
	usual       *model.Experts // of answers whose request does not say; nil = the model's own
	profile     *ExpertProfile // what Drift compares with; nil = nothing
	pooling     Pooling        // as the files say; "" where they do not
	engine      *engine.Engine
	net         *model.Model
	checkpoint  *store.Checkpoint
	memory      int64
	shareable   int64      // bytes of it that models of the same mapping hold too
	second      *companion // the draft model, or the model's own head; nil where there is none
}

// Open makes a model of a checkpoint, which it then owns: it is closed with the model, or at once when Open fails.
func Open(name string, c *store.Checkpoint, opt Options) (*Model, error) {
	m := &Model{
		name: name, created: time.Now(), checkpoint: c,
		variants: &variants{of: map[string]variant{}}, cache: opt.Cache, identity: identities.Add(1),
	}
	if err := m.open(opt.filled()); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), c.Close())
	}
	return m, nil
}

func (m *Model) open(opt Options) error {
	var err error
	if m.vocab, err = vocabulary(m.checkpoint); err != nil {
		return err
	}
	if m.tok, err = text.NewTokenizer(m.vocab); err != nil {
		return err
	}
	m.tok = m.cache.remembering(m.tok, m.identity)
	if m.recommended, err = recommended(m.checkpoint); err != nil {
		return err
	}
	if m.template, m.templateErr = chatTemplate(m.checkpoint); m.templateErr == nil {
		source, err := templateSource(m.checkpoint)
		if err != nil {
			return err
		}
		m.tags = mentioned(source)
	}
	if m.spec, err = opt.network(model.Limits{}).Describe(m.checkpoint); err != nil {
		return err
	}
	if opt.Sparse, err = opt.Sparse.Of(m.checkpoint); err != nil {
		return err
	}
	m.policy, m.sparse = opt.Experts, opt.Sparse
	if m.usual, err = opt.Experts.usual(&m.spec); err != nil {
		return fmt.Errorf("the server's default for experts: %w", err)
	}
	if len(opt.Profiles) > 0 && m.spec.ExpertLayers() > 0 {
		if m.profile, err = profileOf(opt.Profiles, m.checkpoint.Fingerprint(), &m.spec); err != nil {
			return err
		}
	}
	if m.pooling, err = declaredPooling(m.checkpoint, m.spec.Arch); err != nil {
		return err
	}
	if n := len(m.vocab.Tokens); n > m.spec.Vocab {
		return fmt.Errorf("%w: the tokenizer has %d tokens, the model %d", model.ErrSpec, n, m.spec.Vocab)
	}
	m.ends = slices.DeleteFunc(m.vocab.EndIDs(), func(id int32) bool { return int(id) >= m.spec.Vocab }) // files name ids that are not there
	if m.second, err = opt.companion(&m.spec); err != nil {
		return err
	}
	if err := m.load(&opt); err != nil {
		return errors.Join(err, m.second.close())
	}
	return nil
}

// load brings the network onto its device, and the draft model beside it, and opens the engine.
func (m *Model) load(opt *Options) error {
	limits, err := fit(&m.spec, *opt)
	if err != nil {
		return err
	}
	m.context = limits.Context
	device := &meter{Device: opt.Device, sizes: map[tensor.Buffer]int64{}}
	m.net, err = model.Load(m.checkpoint, model.Placement{Device: device}, opt.network(limits))
	if err != nil {
		return err
	}
	m.memory, m.shareable = device.total(m.checkpoint), device.mapped
	if err = m.readable(); err == nil {
		err = m.second.load(m, opt.Device)
	}
	if m.second != nil && m.second.head {
		m.memory = device.total(m.checkpoint)
	}
	if err == nil {
		err = m.start(opt)
	}
	if err != nil {
		m.net.Close()
	}
	return err
}

// start opens the engine of a loaded network.
func (m *Model) start(opt *Options) error {
	o := engine.Options{Queue: opt.Queue, Check: opt.Check, MaxUnique: opt.MaxUnique, Draft: opt.Draft}
	if opt.Prefixes != nil {
		identity, err := m.net.PageIdentity()
		if err != nil {
			return err
		}
		o.Prefixes, o.Identity = opt.Prefixes, identity+" "+opt.Build
	}
	o.Drafter = m.second.drafter()
	m.engine = opt.Loop.Open(m.net, o)
	if m.engine.Context() >= m.context {
		return nil
	}
	r, err := m.sparse.Default.Reading(m.context - 1)
	if most := 0; err == nil {
		if most = m.engine.ContextOf(r, m.context-1); most < m.context {
			err = fmt.Errorf("a context of %d tokens takes more than the cache of %d bytes, where at most %d fit that are read by %s", m.context, opt.CacheBytes, most, &m.sparse.Default)
		}
	}
	if err != nil {
		m.engine.Close()
		m.net.Close()
	}
	return err
}

// mostContext is the context of models made for more, where nobody asks for another.
const mostContext = 8192

// pageTokens is how many tokens a page of the cache holds, as package attention lays it out.
const pageTokens = 64

// fit plans the sizes of a model's buffers: pages for every sequence's whole context where memory allows, fewer where not, and
// a context that one sequence can always have, or can where it reads as the default has it.
func fit(spec *model.Spec, opt Options) (model.Limits, error) {
	network := opt.network(model.Limits{})
	cache, err := network.KV()
	if err != nil {
		return model.Limits{}, err
	}
	page := int64(spec.PageBytes(cache))
	rows := opt.rows(spec)
	whole := spec.DenseBytes(cache, model.Limits{Rows: rows, Sequences: opt.Sequences})
	most := int(min(max(opt.CacheBytes-whole, 0)/page, 1<<24)) // pages that fit
	context := opt.Context
	if context <= 0 {
		context = min(spec.Context, mostContext, most*pageTokens)
	}
	pages := (context + pageTokens - 1) / pageTokens
	switch {
	case context > spec.Context:
		return model.Limits{}, fmt.Errorf("a context of %d tokens is asked for, the model was made for %d", context, spec.Context)
	case context < 2 || most < 1 || pages > most && !opt.Sparse.Default.Frees():
		return model.Limits{}, fmt.Errorf("a context of %d tokens takes %d bytes of cache, %d are allowed", max(context, 2), int64(max(pages, 1))*page+whole, opt.CacheBytes)
	}
	wanted := opt.Sequences
	if opt.Draft.On() {
		wanted += engine.MostDraft
	}
	return model.Limits{
		Rows: rows, Sequences: opt.Sequences, Wanted: min(wanted, rows),
		Pages: min(most, pages*opt.Sequences), Context: context,
	}, nil
}

// Close stops the engine, which ends running requests with ErrClosed, and frees the model's memory.
func (m *Model) Close() error {
	m.engine.Close()
	m.net.Close()
	return errors.Join(m.second.close(), m.checkpoint.Close())
}

// Name is the name it was opened under.
func (m *Model) Name() string { return m.name }

// Spec is its architecture.
func (m *Model) Spec() model.Spec { return m.spec }

// Checkpoint is what it was opened from, open until Close.
func (m *Model) Checkpoint() *store.Checkpoint { return m.checkpoint }

// Context is the most tokens that a prompt and its answer have together, unless a request says otherwise.
func (m *Model) Context() int { return m.window(&Generation{}) }

// Memory is how many bytes its weights, cache and buffers took, as the device held them, when it was opened; see Pool.ResizeExperts.
func (m *Model) Memory() int64 { return m.memory }

// Created is when it was opened.
func (m *Model) Created() time.Time { return m.created }

// Usage is what its engine is busy with.
func (m *Model) Usage() engine.Usage { return m.engine.Usage() }

// Engine is the engine that runs it.
func (m *Model) Engine() *engine.Engine { return m.engine }

// Tokenizer is the model's own.
func (m *Model) Tokenizer() text.Tokenizer { return m.tok }

// Encode makes ids of a text that its writer vouches for: special tokens in it count. BOS is added as the file says.
func (m *Model) Encode(s string) []int32 { return m.begin(m.tok.Encode(nil, text.Span{Text: s})) }

// begin puts BOS before a prompt where the file wants it and the prompt has none.
func (m *Model) begin(ids []int32) []int32 {
	if bos := m.vocab.BOS; m.vocab.AddBOS && bos >= 0 && (len(ids) == 0 || ids[0] != bos) {
		return slices.Insert(ids, 0, bos)
	}
	return ids
}
