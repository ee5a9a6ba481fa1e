package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/httpapi"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

func serveVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve [MODEL...]",
		Short: "Serve models over an OpenAI-compatible API",
		Long: `serve answers at addr until SIGTERM or SIGINT, then lets running requests end. The first MODEL answers requests that name none.
Models that are named here, and pinned ones, are loaded at once and stay, as far as memory has room for all of them. Those of the store
are loaded when they are first asked for and unloaded when nobody has asked for keep_alive, or when another one needs the room. Where
nothing is named and the store is empty, the demo is served.

--expert-overlay NAME=FILE, which may be given several times, serves the first MODEL once more as NAME, with the experts that the overlay
in FILE leaves. Weights that several of them have are in memory once.`,
		RunE: runServe,
	}
	configs.Flags(c.Flags(), configs.Keys()...)
	return c
}

func runServe(c *cobra.Command, names []string) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	out, err := openExports(ctx, cfg.Telemetry, log)
	if err != nil {
		return err
	}
	defer out.close()
	log = out.log
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if m.policy, err = expertPolicy(&cfg); err != nil {
		return err
	}
	if err := m.keepPrefixes(); err != nil {
		return err
	}
	library, called, err := m.library(names, log)
	if err != nil {
		return err
	}
	if err := m.belong(library, called); err != nil {
		return err
	}
	if err := m.profile(cfg.ExpertProfiles, library, called); err != nil {
		return err
	}
	var keys *httpapi.Keys
	if cfg.Keys != "" {
		if keys, err = httpapi.OpenKeys(cfg.Keys, log); err != nil {
			return err
		}
	}
	opt := m.poolOptions(ranked{library, called})
	first := pin(&opt, called, cfg.Pinned, log)
	pool := serve.NewPool(opt)
	defer func() { err = errors.Join(err, pool.Close()) }()

	readers, err := out.readers(ctx, pool)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		if err := preload(ctx, pool, first, log); err != nil {
			fail(err)
		}
	}()
	if _, err := fmt.Fprintf(c.OutOrStdout(), "winnow serves on http://%s\n", ln.Addr()); err != nil {
		return errors.Join(err, ln.Close())
	}
	err = httpapi.New(pool, httpapi.Options{
		Version: version, Hosts: cfg.Hosts, Origins: cfg.Origins, Keys: keys, Requests: cfg.Requests, BodyLimit: int64(cfg.BodyBytes),
		BodyTimeout: cfg.BodyTimeout, WriteTimeout: cfg.WriteTimeout, DrainTimeout: cfg.DrainTimeout, Ping: cfg.Ping,
		Library: library, Tracer: out.tracer, Metrics: readers, Log: log,
	}).Serve(ctx, ln)
	out.close() // while the engines can be asked
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// poolOptions are those of the models that this machine serves.
func (m *machine) poolOptions(models serve.Catalogue) serve.PoolOptions {
	c := m.config
	opt := serve.PoolOptions{
		Models: models, Memory: m.most(), MaxLoaded: c.MaxLoaded, LoadWait: c.LoadWait, Check: c.Check, Cache: m.cache, Prefixes: m.pages,
		KeepAlive: cmp.Or(c.KeepAlive, time.Nanosecond), // 0 is not at all here, and for ever there
	}
	return opt
}

// pin decides what stays loaded: pinned models always, those of the command line where there is room for all of them beside each other;
// else that is said, and they come and go. first are those to load at the start.
func pin(opt *serve.PoolOptions, called, pinned []string, log *slog.Logger) (first []string) {
	counted, total := map[string]bool{}, int64(0)
	fits := func() bool {
		return (opt.Memory == 0 || total <= opt.Memory) && (opt.MaxLoaded == 0 || len(counted) <= opt.MaxLoaded)
	}
	for i, name := range slices.Concat(pinned, called) {
		s, err := opt.Models.Find(name)
		if key := cmp.Or(s.Weights, s.Name); err == nil && !counted[key] { // loading it tells why, if not
			counted[key], total = true, total+need(&s)
		}
		if fits() || i < len(pinned) || i == 0 {
			first = append(first, name)
		}
	}
	if opt.Pinned = first; !fits() {
		opt.Pinned = pinned
		log.Warn("not all models can stay loaded: they come and go", "need", size(total), "memory", size(opt.Memory), "models", len(counted))
	}
	return first
}

// ranked is a library whose first models are those of a command line: the very first answers requests that name none.
type ranked struct {
	*serve.Library
	first []string
}

// Find implements serve.Catalogue.
func (r ranked) Find(name string) (serve.Source, error) {
	if name == "" && len(r.first) > 0 {
		name = r.first[0]
	}
	return r.Library.Find(name)
}

// List implements serve.Catalogue.
func (r ranked) List() ([]serve.Source, error) {
	all, err := r.Library.List()
	all = slices.Clone(all)
	rank := func(s serve.Source) int {
		if i := slices.Index(r.first, s.Name); i >= 0 {
			return i
		}
		return len(r.first)
	}
	slices.SortStableFunc(all, func(a, b serve.Source) int { return rank(a) - rank(b) })
	return all, err
}

// need is about how many bytes a model will take.
func need(s *serve.Source) int64 {
	if s.Memory != nil {
		if n, err := s.Memory(); err == nil {
			return n
		}
	}
	return s.Size
}

// preload loads models at the start. Without them the server has no reason to go on.
func preload(ctx context.Context, pool *serve.Pool, names []string, log *slog.Logger) error {
	for _, name := range names {
		started := time.Now()
		m, err := pool.Acquire(ctx, name)
		for errors.Is(err, serve.ErrBusy) { // it is large, and no client is waiting
			m, err = pool.Acquire(ctx, name)
		}
		if ctx.Err() != nil {
			if err == nil {
				m.Release() // else the pool waits for it for ever
			}
			return nil
		}
		if err != nil {
			return err
		}
		log.Info("loaded", "model", m.Name(), "context", m.Context(), "memory", size(m.Memory()), "took", time.Since(started).Round(time.Millisecond))
		m.Release()
	}
	return nil
}

// library is what there is to serve: the models of the command line, which must be there and of a kind that Winnow knows, and those of the
// store; the demo where there are none. called is what requests call those of the command line. Where one model alone is wanted, without what
// is served beside it, log is nil.
func (m *machine) library(names []string, log *slog.Logger) (all *serve.Library, called []string, err error) {
	c := m.config
	opt := serve.LibraryOptions{
		Store:  store.Store{Root: c.Models},
		Remote: store.Remote{Identity: c.Identity, HuggingFace: c.HuggingFace, Token: c.HubToken},
		Open:   m.open, Memory: m.memory, Checkpoint: m.describing, Sharing: func(path string) serve.Sharing { return m.shared[path] },
	}
	var base serve.Source // of overlays: the first model
	if len(names) == 0 {
		entries, err := opt.Store.List()
		if err != nil {
			return nil, nil, err
		}
		if !slices.ContainsFunc(entries, func(e store.Entry) bool { return e.Err == nil }) {
			log.Info("no model in the store, so the demo is served", "store", c.Models)
			s, err := m.source(demo.Name)
			if err != nil {
				return nil, nil, err
			}
			opt.Named, base = serve.Sources{s}, s
		}
	}
	seen, stored := map[string]string{}, serve.NewLibrary(opt)
	for _, name := range names {
		s, err := m.source(name)
		if err != nil {
			return nil, nil, err
		}
		if other, twice := seen[s.Name]; twice {
			return nil, nil, fmt.Errorf("%s and %s are both served as %q", other, name, s.Name)
		}
		seen[s.Name] = name
		own, err := stored.Find(name)
		if isOwn := err == nil && s.Weights != name; isOwn { // it knows more of its own models, and when they change
			s = own
		} else {
			opt.Named = append(opt.Named, s)
		}
		if called = append(called, s.Name); base.Name == "" {
			base = s
		}
	}
	if log != nil {
		others, err := m.beside(base, log)
		if err != nil {
			return nil, nil, err
		}
		for _, s := range others {
			if other, twice := seen[s.Name]; twice || s.Name == base.Name {
				return nil, nil, fmt.Errorf("%s and an overlay of %s are both served as %q", cmp.Or(other, base.Name), base.Name, s.Name)
			}
			seen[s.Name] = "another overlay"
		}
		for i := range opt.Named {
			opt.Named[i].Sharing = m.shared[opt.Named[i].Weights]
		}
		opt.Named = append(opt.Named, others...)
	}
	all = serve.NewLibrary(opt)
	return all, called, m.draftModels(all, base)
}

// source looks at a model's description and says how to load it.
func (m *machine) source(name string) (serve.Source, error) {
	called, err := servedName(m.config.Models, name)
	if err != nil {
		return serve.Source{}, err
	}
	path, err := modelPath(m.config.Models, name)
	if err != nil {
		return serve.Source{}, err
	}
	c, err := openPath(path)
	if err != nil {
		return serve.Source{}, err
	}
	_, err = model.Describe(c)
	s := serve.Source{
		Name: called, Created: modified(c), Size: c.Size(), Weights: path,
		Open:   func() (*serve.Model, error) { return m.open(called, path) },
		Memory: func() (int64, error) { return m.memory(path) },
	}
	return s, errors.Join(err, c.Close())
}
