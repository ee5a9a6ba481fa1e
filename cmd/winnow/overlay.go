package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
)

// overlayFlag adds --expert-overlay to a verb that loads one model; settings reads it.
func overlayFlag(c *cobra.Command) {
	c.Flags().String("expert-overlay", "", "overlay that says which experts the model has, a file of JSON")
	configs.Flags(c.Flags(), "force_overlay", "expert_memory", "memory")
}

// readOverlay reads an overlay's file.
func readOverlay(file string) (*model.Overlay, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, model.MostOverlayBytes+1))
	if err != nil {
		return nil, err
	}
	o, err := model.ParseOverlay(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return o, nil
}

// overlaid is a served model under an overlay: where its weights are, and the overlay's file. The file is read whenever the model is loaded.
type overlaid struct{ path, file string }

// weights is what the model's weights are known by.
func (o overlaid) weights() string { return o.path + " with " + o.file }

// under serves base itself under an overlay.
func (m *machine) under(base serve.Source, file string) error {
	if before, twice := m.overlays[base.Weights]; twice {
		return fmt.Errorf("%s is to be served under two overlays, %s and %s: want NAME=FILE of one", base.Name, before.file, file)
	}
	m.overlays[base.Weights] = overlaid{base.Weights, file}
	part, err := m.weighed(base.Weights, serve.Shareable)
	if err != nil {
		return err
	}
	with := m.shared[base.Weights]
	with.Part = part
	m.shared[base.Weights] = with
	return nil
}

// beside gives a source for each NAME=FILE: the model of base under that overlay. FILE alone is the overlay of base itself. An overlay that does not fit is said and served all the
// same: who asks for it is told why.
func (m *machine) beside(base serve.Source, log *slog.Logger) (out serve.Sources, err error) {
	if len(m.config.ExpertOverlays) > 0 && base.Name == "" {
		return nil, errors.New("expert overlays are given, and no MODEL that they are of")
	}
	if len(m.config.ExpertOverlays) > 0 {
		m.shared[base.Weights] = serve.Sharing{} // so that experts are loaded apart
		whole, err := m.weighed(base.Weights, serve.Shareable)
		if err != nil {
			return nil, err
		}
		m.shared[base.Weights] = serve.Sharing{Mapping: base.Weights, Whole: whole, Part: whole}
	}
	for _, pair := range m.config.ExpertOverlays {
		name, file, ok := strings.Cut(pair, "=")
		if !ok && pair != "" {
			if err := m.under(base, pair); err != nil {
				return nil, err
			}
			continue
		}
		if name == "" || file == "" {
			return nil, fmt.Errorf("expert overlay %q: want FILE or NAME=FILE", pair)
		}
		o := overlaid{base.Weights, file}
		s := base
		s.Name, s.Digest, s.Weights = name, "", o.weights()
		s.Open = func() (*serve.Model, error) { return m.open(name, s.Weights) }
		s.Memory = func() (int64, error) { return m.memory(s.Weights) }
		m.overlays[s.Weights] = o
		s.Sharing = m.shared[o.path]
		if s.Sharing.Part, err = m.weighed(s.Weights, serve.Shareable); err != nil {
			log.Warn("the overlay does not fit the model", "name", name, "reason", err)
		}
		out = append(out, s)
	}
	return out, nil
}
