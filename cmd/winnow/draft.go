package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

// drafting is how tokens are foretold by a configuration.
func drafting(cfg *configs.Config) engine.Drafting {
	if cfg.Speculative != "auto" {
		return engine.Drafting(cfg.Speculative)
	}
	return engine.ByModel // where there is a draft model, or the model has a head
}

// foretells refuses a configuration that asks for drafts of a model that has neither a draft model nor a head.
func (m *machine) foretells(target serve.Source) (err error) {
	if m.config.Speculative != string(engine.ByModel) || len(m.config.DraftModel) > 0 || target.Name == "" {
		return nil
	}
	c, err := m.describing(cmp.Or(target.Weights, target.Name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	spec, err := model.Describe(c)
	if err == nil && len(spec.MTP) == 0 {
		err = fmt.Errorf("%w: speculative is draft, and there is no draft_model, nor has %s a layer that foretells tokens", configs.ErrConfig, target.Name)
	}
	return err
}

// draftModels finds the models that draft models are for: NAME=MODEL for one of the library, MODEL alone for base.
func (m *machine) draftModels(all *serve.Library, base serve.Source) error {
	for _, pair := range m.config.DraftModel {
		name, draft, named := strings.Cut(pair, "=")
		target := base
		if !named {
			draft = pair
		} else {
			var err error
			if target, err = all.Find(name); err != nil {
				return fmt.Errorf("draft model %q: %w", pair, err)
			}
		}
		if target.Name == "" {
			return fmt.Errorf("draft model %q: no MODEL is named that it is for", pair)
		}
		if err := m.draftOf(target, draft); err != nil {
			return fmt.Errorf("draft model %q: %w", pair, err)
		}
	}
	return m.foretells(base)
}

// draftFor is draftModels for a model that is there alone.
func (m *machine) draftFor(target serve.Source) error {
	for _, draft := range m.config.DraftModel {
		if err := m.draftOf(target, draft); err != nil {
			return fmt.Errorf("draft model %q: %w", draft, err)
		}
	}
	return m.foretells(target)
}

// draftOf lets a model draft for another one: a MODEL, or the other one itself under the overlay in a file.
func (m *machine) draftOf(target serve.Source, draft string) error {
	weights := cmp.Or(target.Weights, target.Name)
	if before := m.drafts[weights]; before != nil && before.Name != draft {
		return fmt.Errorf("%s has two draft models", target.Name)
	}
	d := &serve.DraftModel{Name: draft, Most: m.config.DraftMax, MinP: float32(m.config.DraftMinP)}
	path := weights
	if o, under := m.overlays[weights]; under {
		path = o.path
	}
	var err error
	if d.Within = strings.HasSuffix(draft, ".json"); d.Within {
		d.Overlay, err = readOverlay(draft)
	} else {
		path, err = modelPath(m.config.Models, draft)
	}
	if err != nil {
		return err
	}
	d.Open = func() (*store.Checkpoint, error) { return m.shelf.Open(path, openPath) }
	c, err := d.Open() // so that it is said at once where there is none
	if err != nil {
		return err
	}
	m.drafts[weights] = d
	return errors.Join(err, c.Close())
}
