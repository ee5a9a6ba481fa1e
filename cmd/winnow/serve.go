package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
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
Models that are named here are loaded at once; without any, those of the store are served, each loaded when it is first asked for, or the
demo where the store is empty.`,
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
	tracer, flush, err := openTraces(ctx, cfg.Telemetry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flush()) }()
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	sources, err := m.sources(names, log)
	if err != nil {
		return err
	}
	var keys *httpapi.Keys
	if cfg.Keys != "" {
		if keys, err = httpapi.OpenKeys(cfg.Keys, log); err != nil {
			return err
		}
	}
	pool := serve.NewPool(serve.PoolOptions{Models: serve.Sources(sources)})
	defer func() { err = errors.Join(err, pool.Close()) }()

	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		if err := preload(ctx, pool, sources[:min(len(names), len(sources))], log); err != nil {
			fail(err)
		}
	}()
	if _, err := fmt.Fprintf(c.OutOrStdout(), "winnow serves on http://%s\n", ln.Addr()); err != nil {
		return errors.Join(err, ln.Close())
	}
	err = httpapi.New(pool, httpapi.Options{
		Version: version, Hosts: cfg.Hosts, Origins: cfg.Origins, Keys: keys, Requests: cfg.Requests, BodyLimit: int64(cfg.BodyBytes),
		BodyTimeout: cfg.BodyTimeout, WriteTimeout: cfg.WriteTimeout, DrainTimeout: cfg.DrainTimeout, Ping: cfg.Ping,
		Tracer: tracer, Log: log,
	}).Serve(ctx, ln)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// preload loads the models that the command line names. Without them the server has no reason to go on.
func preload(ctx context.Context, pool *serve.Pool, named []serve.Source, log *slog.Logger) error {
	for _, s := range named {
		started := time.Now()
		m, err := pool.Acquire(ctx, s.Name)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		log.Info("loaded", "model", s.Name, "context", m.Context(), "took", time.Since(started).Round(time.Millisecond))
		m.Release()
	}
	return nil
}

// sources are the models to serve. Those on the command line must be there and be of a kind that Winnow knows; of the store, what is
// not is passed over and said.
func (m *machine) sources(names []string, log *slog.Logger) (out []serve.Source, err error) {
	if len(names) > 0 {
		seen := map[string]string{}
		for _, name := range names {
			s, err := m.source(name)
			if err != nil {
				return nil, err
			}
			if other, twice := seen[s.Name]; twice {
				return nil, fmt.Errorf("%s and %s are both served as %q", other, name, s.Name)
			}
			seen[s.Name] = name
			out = append(out, s)
		}
		return out, nil
	}
	entries, err := store.Store{Root: m.config.Models}.List()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		s, err := m.source(e.Name)
		if err != nil {
			log.Warn("not served", "model", e.Name, "err", err)
			continue
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		log.Info("no model in the store, so the demo is served", "store", m.config.Models)
		s, err := m.source(demo.Name)
		return []serve.Source{s}, err
	}
	return out, nil
}

// source looks at a model's description and says how to load it.
func (m *machine) source(name string) (serve.Source, error) {
	called, err := servedName(m.config.Models, name)
	if err != nil {
		return serve.Source{}, err
	}
	c, err := openCheckpoint(m.config.Models, name)
	if err != nil {
		return serve.Source{}, err
	}
	_, err = model.Describe(c)
	s := serve.Source{
		Name: called, Created: modified(c), Size: c.Size(),
		Open: func() (*serve.Model, error) { return m.serve(name) },
	}
	return s, errors.Join(err, c.Close())
}
