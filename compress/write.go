package compress

import (
	"context"
	"errors"
	"fmt"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
)

// ErrInterop is wrapped where a model that other programs are to run would be one that they cannot.
var ErrInterop = errors.New("compress: other programs cannot run it")

// Merging says what becomes of experts that an overlay merges.
type Merging string

const (
	// Share keeps the router's rows, and has them lead to the weights of the first. A GGUF file stores those once.
	Share Merging = "share"
	// Average makes one expert of them, with one router row: the means. It moves the router's decisions, which pays only where a layer is left
	// with very few experts.
	Average Merging = "average"
)

// Audience says who is to run a model.
type Audience string

const (
	Winnow Audience = "winnow" // only Winnow: layers may differ, and experts be shared
	Anyone Audience = "anyone" // programs that know nothing of Winnow: layers are equally large, each router row has its own weights
)

// Writing says how a smaller model is written.
type Writing struct {
	Out     string               // path of the GGUF file, or of the folder of a Hugging Face model; nothing may be there
	For     Audience             // "" = Winnow
	Merging Merging              // "" = Share
	See     func(store.Progress) // told how it goes on, in turn; nil = nobody
}

func (w *Writing) check() error {
	switch {
	case w.For == "":
		w.For = Winnow
	case w.For != Winnow && w.For != Anyone:
		return fmt.Errorf("compress: audience %q", w.For)
	}
	switch {
	case w.Merging == "":
		w.Merging = Share
	case w.Merging != Share && w.Merging != Average:
		return fmt.Errorf("compress: merging %q, want %s or %s", w.Merging, Share, Average)
	}
	return nil
}

// Apply writes a copy of a model that has only the experts an overlay leaves, as the container that it came in. Weights that stay are copied as
// they are; a model is never held in memory. An overlay that changes nothing makes an equal copy.
//
// moe.ErrOverlay: the overlay does not fit the model. ErrInterop: w.For cannot be served. store.ErrUnsupported: the model holds what is not
// understood well enough to be cut. store.ErrExists: w.Out is taken. What fails or is cancelled leaves nothing at w.Out.
func Apply(ctx context.Context, c *store.Checkpoint, o moe.Overlay, w Writing) error {
	err := w.check()
	switch made, is := o.Model, c.Fingerprint(); {
	case err != nil:
	case o.Format != 1:
		err = fmt.Errorf("%w: format %d, want 1", moe.ErrOverlay, o.Format)
	case made != "" && made != is:
		err = fmt.Errorf("%w: model: made for tensors that are known by %.12s, these are known by %.12s", moe.ErrOverlay, made, is)
	case len(o.Bits) > 0:
		err = fmt.Errorf("%w: bits: formats are not changed here", moe.ErrOverlay)
	case c.Kind == store.GGUF:
		err = applyGGUF(ctx, c, &o, &w)
	default:
		err = applyFolder(ctx, c, &o, &w)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", w.Out, err)
	}
	return nil
}

// unfit refuses a tensor that the experts of a layer cannot be taken out of.
func unfit(c *store.Checkpoint, name, limit string, args ...any) error {
	return &store.FileError{File: c.Path, Part: fmt.Sprintf("tensor %.100q", name), Limit: fmt.Sprintf(limit, args...), Err: store.ErrUnsupported}
}

// Limits of what is cut, above every published model.
const (
	layerLimit = 1024
	bankLimit  = 4
)
