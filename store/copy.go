package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/ollama/ollama/types/model"
)

// Copy gives a model a second name, in place of the model that has it. ErrName, ErrNoModel; ErrUnsupported: the model is a file that the user
// placed; ErrExists: such a file has the name already.
func (s Store) Copy(ctx context.Context, from, to string) error {
	source, target := model.ParseName(from), model.ParseName(to)
	for _, n := range []struct {
		model.Name
		given string
	}{{source, from}, {target, to}} {
		if !n.IsValid() {
			return fmt.Errorf("%w: %.100q", ErrName, n.given)
		}
	}
	a, err := s.add(ctx)
	if err != nil {
		return err
	}
	defer a.Close()
	if _, _, err := s.stored(source); errors.Is(err, ErrNoModel) {
		return s.nothingStored(source)
	} else if err != nil {
		return fmt.Errorf("copy %s: %w", source.DisplayShortest(), err)
	}
	if source.EqualFold(target) {
		return nil
	}
	raw, err := readSmall(s.manifestPath(source), maxManifest)
	if err != nil {
		return fmt.Errorf("copy %s: %w", source.DisplayShortest(), err)
	}
	if err := a.replace(target); err != nil {
		return err
	}
	if err := a.writeRaw(target, raw); err != nil {
		return fmt.Errorf("copy %s to %s: %w", source.DisplayShortest(), target.DisplayShortest(), err)
	}
	a.Close()
	s.discard(ctx, a.replaced)
	return nil
}

// replace notes the digests of the model that a new one is about to take the place of, if any. ErrExists: the name is that of a file that the
// user placed, which a manifest would hide.
func (a *addition) replace(n model.Name) error {
	if path, ok := a.store.plain(n); ok {
		return fmt.Errorf("%w: %s is %s", ErrExists, n.DisplayShortest(), path)
	}
	m, err := a.store.readManifest(a.store.manifestPath(n))
	if err != nil {
		return nil // none, or one that is damaged, whose files nobody knows
	}
	a.replaced = append(a.replaced, m.digests()...)
	return nil
}
