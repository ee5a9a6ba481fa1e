package main

import (
	"fmt"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

// profile reads the profiles that served models are compared with. Each must be of one of the models of the command line, or of the library
// where these are none, else the error wraps serve.ErrProfile.
func (m *machine) profile(files []string, library *serve.Library, called []string) error {
	if len(files) == 0 {
		return nil
	}
	served, err := m.fingerprints(library, called)
	if err != nil {
		return err
	}
	for _, file := range files {
		p, err := compress.ReadProfile(file)
		if err != nil {
			return err
		}
		if served[p.Model] == "" {
			return fmt.Errorf("%s: %w: it is of one with fingerprint %.12s, which none of those that are served has", file, serve.ErrProfile, p.Model)
		}
		one := serve.ExpertProfile{Model: p.Model}
		for _, l := range p.Layers {
			one.Usage = append(one.Usage, l.Usage)
		}
		m.profiles = append(m.profiles, one)
	}
	return nil
}

// fingerprints are those of models that are served, with their names.
func (m *machine) fingerprints(library *serve.Library, called []string) (map[string]string, error) {
	sources, err := sourcesOf(library, called)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, s := range sources {
		err := m.look(&s, func(c *store.Checkpoint) { out[c.Fingerprint()] = s.Name })
		if err != nil && len(called) > 0 { // what else is in the store may be broken
			return nil, err
		}
	}
	return out, nil
}

// sourcesOf are the models of the command line, or all of the library where these are none.
func sourcesOf(library *serve.Library, called []string) (sources []serve.Source, err error) {
	if len(called) == 0 {
		return library.List()
	}
	for _, name := range called {
		s, err := library.Find(name)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// look opens the weights of a source for see.
func (m *machine) look(s *serve.Source, see func(c *store.Checkpoint)) error {
	c, err := m.describing(s.Weights)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.Name, err)
	}
	see(c)
	return c.Close()
}
