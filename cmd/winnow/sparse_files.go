package main

import (
	"fmt"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

// belonging is a file of gates, a pattern of heads or a profile of selectors, which must be one of the models that are run.
type belonging struct {
	file  string
	check func(c *store.Checkpoint) error // says why it is not a model's own
	err   error                           // of the models seen so far; nil once it is found to be of one
	found bool
}

// belongings are the files that the configuration names.
func (m *machine) belongings() (all []*belonging) {
	for _, file := range m.config.Gates {
		all = append(all, &belonging{file: file, check: func(c *store.Checkpoint) error {
			_, err := model.DescribeGates(file, c)
			return err
		}})
	}
	for _, h := range m.sparse.Heads {
		all = append(all, &belonging{file: h.File, check: h.Fit})
	}
	for i, file := range m.config.SparseProfiles {
		all = append(all, &belonging{file: file, check: func(c *store.Checkpoint) error {
			if err := m.sparse.Profiles[i].Fit(c); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			return nil
		}})
	}
	return all
}

// see says of a model that it is run.
func (b *belonging) see(c *store.Checkpoint) {
	if b.found {
		return
	}
	if err := b.check(c); err == nil {
		b.found, b.err = true, nil
	} else if b.err == nil {
		b.err = err
	}
}

// own says which file is not one of a model that is run by itself, and why.
func (m *machine) own(c *store.Checkpoint) error {
	for _, b := range m.belongings() {
		if err := b.check(c); err != nil {
			return err
		}
	}
	return nil
}

// belong says which file is of none of the models of a command line, or of the library where these are none.
func (m *machine) belong(library *serve.Library, called []string) error {
	files := m.belongings()
	if len(files) == 0 {
		return nil
	}
	sources, err := sourcesOf(library, called)
	if err != nil {
		return err
	}
	for _, s := range sources {
		err := m.look(&s, func(c *store.Checkpoint) {
			for _, b := range files {
				b.see(c)
			}
		})
		if err != nil && len(called) > 0 { // what else is in the store may be broken
			return err
		}
	}
	for _, b := range files {
		switch {
		case b.found:
		case len(sources) == 1 && b.err != nil:
			return b.err
		default:
			return fmt.Errorf("%s: of none of the %d models that are served; of the first: %w", b.file, len(sources), b.err)
		}
	}
	return nil
}
