package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// machine is a device with the loop that works on it.
type machine struct {
	device tensor.Device
	plain  tensor.Device // device without what wraps it
	loop   *engine.Loop
	cache  *serve.Cache    // of what prompts are made of
	pages  *store.Prefixes // of what models computed of them; nil = it is not kept
	config configs.Config
	log    *slog.Logger
	close  []func() error // in order

	rope     model.RopeScaling            // of all that is loaded
	overlay  *model.Overlay               // of all that is loaded; nil = none
	shelf    store.Shelf                  // what is open
	policy   serve.ExpertPolicy           // of requests
	sparse   serve.SparsePolicy           // likewise
	profiles []serve.ExpertProfile        // of models that are served
	overlays map[string]overlaid          // served ones, by what their weights are known by; not written once there are requests
	drafts   map[string]*serve.DraftModel // by what weights are known by: draft models; likewise
	shared   map[string]serve.Sharing     // by path: models that are served under several overlays; likewise
}

// cacheBytes is what each kind of thing that prompts are made of may take in the cache.
const cacheBytes = 32 << 20

// variant is which kernels the configuration asks for, in cpu's words.
func variant(cfg *configs.Config) string {
	if cfg.CPU == "auto" {
		return ""
	}
	return cfg.CPU
}

// openMachine opens the CPU device, wrapped as the debug switches say.
func openMachine(cfg configs.Config, log *slog.Logger) (*machine, error) {
	rope := ropeScaling(&cfg)
	if err := rope.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", configs.ErrConfig, err)
	}
	d, err := cpu.New(cpu.Options{Variant: variant(&cfg), Threads: cfg.Threads, OneNode: cfg.NUMA == configs.Off, Packed: packed(&cfg), Log: func(line string) { log.Info(line) }})
	if err != nil {
		return nil, err
	}
	m := &machine{device: d, plain: d, config: cfg, log: log, rope: rope, overlays: map[string]overlaid{}, drafts: map[string]*serve.DraftModel{}, shared: map[string]serve.Sharing{}}
	if c, ok := d.(io.Closer); ok {
		m.close = append(m.close, c.Close)
	}
	if cfg.Shadow {
		m.device = tensor.Shadowed(m.device, func(miss tensor.Mismatch) { panic("winnow: bug: shadow: " + miss.String()) })
	}
	if cfg.Trace != "" {
		t, err := newTracer(cfg.Trace)
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		m.device = tensor.Traced(m.device, t.span)
		m.close = append(m.close, t.Close)
	}
	m.device = tensor.Shared(m.device)
	if cfg.Overlay != "" {
		if m.overlay, err = readOverlay(cfg.Overlay); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	if m.sparse, err = sparsePolicy(&cfg); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if m.cache, err = serve.NewCache(serve.CacheOptions{Written: cacheBytes, Tokenised: cacheBytes}); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.loop = engine.NewLoop()
	return m, nil
}

// Close ends the loop and then the device. Models on it must be closed.
func (m *machine) Close() error {
	if m.loop != nil {
		m.loop.Close()
	}
	m.cache.Close()
	var errs []error
	for _, f := range m.close {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// options are those of a model served by this machine.
func (m *machine) options() serve.Options {
	c := m.config
	return serve.Options{
		Device: m.device, Loop: m.loop, DType: model.DType(c.DType), KVType: c.KVType, Context: c.Context, CacheBytes: int64(c.CacheBytes),
		Sequences: c.Sequences, Rows: c.Rows, Queue: c.Queue, Draft: drafting(&c), DraftMost: c.DraftMax, DraftMinP: float32(c.DraftMinP), MaxUnique: c.MoeMaxUnique, Check: c.Check, Cache: m.cache, Rope: m.rope, Overlay: m.overlay,
		ForceOverlay: c.ForceOverlay, ExpertBytes: int64(c.ExpertMemory), Experts: m.policy, Sparse: m.sparse, Profiles: m.profiles,
		Prefixes: m.pages, Build: version,
	}
}

// most is how many bytes the models of this machine may take; 0 = not known.
func (m *machine) most() int64 {
	return cmp.Or(int64(m.config.Memory), machineMemory(os.DirFS("/"))/4*3)
}

// loading says where weights are, and how to load them.
func (m *machine) loading(weights string) (path string, opt serve.Options, err error) {
	path, opt = weights, m.options()
	if o, ok := m.overlays[weights]; ok {
		path = o.path
		opt.Overlay, err = readOverlay(o.file)
	}
	_, opt.Apart = m.shared[path]
	if opt.DraftModel = m.drafts[weights]; opt.DraftModel != nil {
		opt.Apart = opt.Apart || opt.DraftModel.Within
	}
	return path, opt, err
}

// describing opens weights to look at what they are.
func (m *machine) describing(weights string) (*store.Checkpoint, error) {
	if o, ok := m.overlays[weights]; ok {
		weights = o.path
	}
	return openPath(weights)
}

// serve loads MODEL ready to talk, with what the store says of it.
func (m *machine) serve(name string) (*serve.Model, error) {
	library, called, err := m.library([]string{name}, nil)
	if err == nil {
		err = m.belong(library, called)
	}
	if err != nil {
		return nil, err
	}
	source, err := library.Find(called[0])
	if err != nil {
		return nil, err
	}
	plain, err := source.Open()
	if err != nil {
		return nil, err
	}
	whole, err := plain.As(&source)
	if err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	return whole, nil
}

// open loads weights ready to talk under a name.
func (m *machine) open(name, weights string) (*serve.Model, error) {
	path, opt, err := m.loading(weights)
	if err != nil {
		return nil, err
	}
	c, err := m.shelf.Open(path, openPath)
	if err != nil {
		return nil, err
	}
	if opt, err = serve.Fit(c, opt, m.most()); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	held, err := m.shelf.Open(path, openPath) // c is closed at once when it cannot be served
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	defer held.Close()
	defer m.packing(name, c, packedBy{opt.Overlay, opt.Apart})()
	return m.opened(serve.Open(name, c, opt))
}

// opened says of a model that has just been opened what was repaired in its description.
func (m *machine) opened(s *serve.Model, err error) (*serve.Model, error) {
	if err == nil {
		m.repaired(s.Name(), s.Spec().Repairs)
	}
	return s, err
}

func (m *machine) repaired(name string, repairs []string) {
	for _, line := range repairs {
		m.log.Warn("the model's description is repaired", "model", name, "by", line)
	}
}

// memory is about how many bytes weights will take when they are loaded.
func (m *machine) memory(weights string) (int64, error) { return m.weighed(weights, serve.Weigh) }

// weighed is what a way to weigh says of weights.
func (m *machine) weighed(weights string, weigh func(*store.Checkpoint, serve.Options) (int64, error)) (int64, error) {
	path, opt, err := m.loading(weights)
	if err != nil {
		return 0, err
	}
	c, err := openPath(path)
	if err != nil {
		return 0, err
	}
	if opt, err = serve.Fit(c, opt, m.most()); err != nil {
		return 0, errors.Join(err, c.Close())
	}
	need, err := weigh(c, opt)
	return need, errors.Join(err, c.Close())
}

// network loads a model's network alone, without tokenizer or template, behind an engine of its own.
func (m *machine) network(name string, limits model.Limits) (*network, error) {
	c, err := openCheckpoint(m.config.Models, name)
	if err != nil {
		return nil, err
	}
	opt := model.Options{
		DType: model.DType(m.config.DType), KVType: m.config.KVType, Limits: limits, Rope: m.rope, Overlay: m.overlay,
		ForceOverlay: m.config.ForceOverlay, ExpertBytes: int64(m.config.ExpertMemory),
	}
	err = m.own(c)
	reads := m.sparse
	if err == nil {
		reads, err = m.sparse.Of(c)
	}
	if err == nil {
		reads.Load(&opt)
		err = fillRows(c, &opt)
	}
	if err == nil {
		opt, err = serve.FitNetwork(c, m.device, opt, m.most())
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	done := m.packing(name, c, packedBy{opt.Overlay, opt.Apart})
	n, err := model.Load(c, model.Placement{Device: m.device}, opt)
	done()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load %s: %w", name, err), c.Close())
	}
	m.repaired(name, n.Spec().Repairs)
	out := &network{Model: n, sparse: reads.Default, engine: m.loop.Open(n, engine.Options{Check: m.config.Check})}
	out.close = func() error {
		out.engine.Close()
		n.Close()
		return c.Close()
	}
	return out, nil
}

// fillRows says how many tokens a step has, where nobody did.
func fillRows(c *store.Checkpoint, opt *model.Options) error {
	if opt.Limits.Rows == 0 {
		spec, err := opt.Describe(c)
		if err != nil {
			return err
		}
		opt.Limits.Rows = spec.StepRows()
	}
	opt.Limits.Rows = max(opt.Limits.Rows, opt.Limits.Sequences)
	return nil
}

// network is a loaded model that takes ids.
type network struct {
	*model.Model
	sparse model.Sparsity // by which its tokens read
	engine *engine.Engine
	close  func() error
}
