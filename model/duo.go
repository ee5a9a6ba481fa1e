package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/store"
)

// ErrHeads is wrapped by what is wrong with a pattern of heads, which is damaged or another model's. The wrapping names the file.
var ErrHeads = errors.New("model: pattern of heads")

// Heads are a model's pattern of retrieval and streaming heads, as DuoAttention publishes them: which heads the selector duo has read everything.
type Heads struct {
	File    string
	Pattern attention.HeadPattern // layers x key-value heads
	Sink    *float64              // first keys that streaming heads read, where the selection says nothing; nil = nobody says
	Recent  *float32              // recent ones, likewise
}

// The files of a published pattern.
const (
	headsFile  = "full_attention_heads.tsv"
	headsSizes = "config.json"

	mostHeads = 1 << 20 // bytes of a file
	byHeads   = "duo"   // the selector
)

// ReadHeads reads a pattern: a file of numbers, or a folder that has such a file beside config.json, whose sink_size and recent_size then count.
func ReadHeads(path string) (*Heads, error) {
	h := &Heads{File: path}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		h.File = filepath.Join(path, headsFile)
		if err := h.sizes(filepath.Join(path, headsSizes)); err != nil {
			return nil, err
		}
	}
	raw, err := readSmall(h.File)
	if err == nil {
		h.Pattern, err = attention.ParseHeadPattern(string(raw))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrHeads, h.File, err)
	}
	return h, nil
}

// sizes reads the file beside a pattern that says with which sizes it was trained; there need be none.
func (h *Heads) sizes(path string) error {
	raw, err := readSmall(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		h.Sink, h.Recent, err = parseHeadSizes(raw)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrHeads, path, err)
	}
	return nil
}

// parseHeadSizes reads sink_size and recent_size, each of which may be absent.
func parseHeadSizes(raw []byte) (sink *float64, recent *float32, err error) {
	var sizes struct {
		Sink   *float64 `json:"sink_size"`
		Recent *float32 `json:"recent_size"`
	}
	if err := json.Unmarshal(raw, &sizes); err != nil {
		return nil, nil, err
	}
	s, k := attention.Setting{}, attention.KindOf(byHeads)
	if sizes.Sink != nil {
		s.Params = map[string]float64{"sink": *sizes.Sink}
	}
	if sizes.Recent != nil {
		s.Knobs = []float32{*sizes.Recent}
	}
	if err := k.Check(s); err != nil {
		return nil, nil, err
	}
	return sizes.Sink, sizes.Recent, nil
}

// readSmall reads a file that has no reason to be large.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, mostHeads+1))
	if err == nil && len(raw) > mostHeads {
		err = fmt.Errorf("more than %d bytes", mostHeads)
	}
	return raw, err
}

// Fit checks that a pattern can be a checkpoint's: ErrHeads says why it is not. Patterns name no model, so it is one of any of the same shape.
func (h *Heads) Fit(c *store.Checkpoint) error {
	spec, err := Describe(c)
	if err != nil {
		return err
	}
	return h.fits(&spec)
}

func (h *Heads) fits(s *Spec) error {
	full := s.FullLayers()
	if len(full) == 0 {
		return fmt.Errorf("%w: %s: no layer of the model reads everything", ErrHeads, h.File)
	}
	if err := h.Pattern.Fit(len(s.Layers), s.Layers[full[0]].KVHeads); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrHeads, h.File, err)
	}
	return nil
}

// of is the pattern of some layers.
func (h *Heads) of(layers []int) (p attention.HeadPattern) {
	for _, i := range layers {
		p = append(p, h.Pattern[i])
	}
	return p
}

// heads is the pattern that a selection goes by, with the sizes that come with it where the selection has none; none for selectors without.
func (l *loader) heads(want Selection, s *Spec, layers []int) (Selection, attention.HeadPattern) {
	h := l.opt.Heads
	if want.Name != byHeads {
		return want, nil
	}
	if h == nil {
		l.fail(fmt.Errorf("%w: %w: duo_heads names no file of a pattern of this model", ErrSparse, attention.ErrNoPattern))
		return want, nil
	}
	if err := h.fits(s); err != nil {
		l.fail(err)
		return want, nil
	}
	if len(want.Knobs) == 0 && h.Recent != nil {
		want.Knobs = []float32{*h.Recent}
	}
	if _, said := want.Params["sink"]; !said && h.Sink != nil {
		params := map[string]float64{"sink": *h.Sink}
		for name, v := range want.Params {
			params[name] = v
		}
		want.Params = params
	}
	return want, h.of(layers)
}
