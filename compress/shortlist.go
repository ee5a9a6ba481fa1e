package compress

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// ShortlistError says of which layer a router cannot be converted. Err is a *moe.LowRecall, or wraps moe.ErrConvert.
type ShortlistError struct {
	Layer int
	Err   error
}

func (e *ShortlistError) Error() string { return fmt.Sprintf("layer %d: %v", e.Layer, e.Err) }
func (e *ShortlistError) Unwrap() error { return e.Err }

// WorseError says that a changed model's perplexity is too far above the whole one's.
type WorseError struct {
	Whole, Changed float64
	Most           float64 // share that it may grow by
}

func (e *WorseError) Error() string {
	return fmt.Sprintf("perplexity %.4f becomes %.4f (%+.3f %%), at most %+.3f %% is allowed", e.Whole, e.Changed, 100*(e.Changed/e.Whole-1), 100*e.Most)
}

// Worse refuses a comparison whose perplexity grows by more than a share.
func (c Comparison) Worse(most float64) error {
	if c.Changed <= c.Whole*(1+most) {
		return nil
	}
	return &WorseError{c.Whole, c.Changed, most}
}

// HeldOut is whether a sequence is held out of a fit: every fifth is.
func HeldOut(seq int) bool { return seq%5 == 4 }

// Only is a text of those sequences that are counted so.
func (t Text) Only(take func(seq int) bool) Text {
	all := t.Sequences
	t.Sequences = func(yield func([]int32, error) bool) {
		seq := 0
		for ids, err := range all {
			if (err != nil || take(seq)) && !yield(ids, err) {
				return
			}
			seq++
		}
	}
	return t
}

// LayerShortlist is what became of a layer's router. Of one that could not be fitted Shortlist is nil.
type LayerShortlist struct {
	Layer     int
	Gate      moe.Gate
	Shortlist *moe.Shortlist
	Err       error // a *ShortlistError; nil = it is fitted
}

// FitShortlists fits a shortlist to the router of every layer of experts, some layers at a time; see is told how many are done. Without sizes the
// fewest experts are taken of some that are fewer than all. Every layer is tried, whatever becomes of others. ErrPlan: there is no layer of experts,
// or one whose router is of another kind already.
func FitShortlists(ctx context.Context, c *store.Checkpoint, seen map[int]*Captured, ask moe.Fitting, see func(done, total int)) ([]LayerShortlist, error) {
	spec, err := model.Describe(c)
	if err != nil {
		return nil, err
	}
	var out []LayerShortlist
	weights := NewWeights(c, spec)
	for i := range spec.Layers {
		ls := &spec.Layers[i]
		if ls.Router == nil {
			continue
		}
		if !plain(ls) || seen[i] == nil {
			return nil, fmt.Errorf("%w: layer %d chooses its experts by another router than top-k already", ErrPlan, i)
		}
		router, err := weights.Router(i)
		if err != nil {
			return nil, err
		}
		out = append(out, LayerShortlist{Layer: i, Gate: moe.Gate{
			Spec: *ls.Router, W: tensor.FromF32(ls.Router.Experts, spec.Dim, router), Bias: seen[i].Bias, Select: seen[i].Select,
		}})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: a %s model without experts", ErrPlan, spec.Arch)
	}
	var group sync.WaitGroup
	var next, done atomic.Int64
	var told sync.Mutex
	for range min(runtime.GOMAXPROCS(0), len(out)) {
		group.Go(func() {
			for at := int(next.Add(1)) - 1; at < len(out) && ctx.Err() == nil; at = int(next.Add(1)) - 1 {
				out[at].fit(seen[out[at].Layer], ask)
				told.Lock()
				see(int(done.Add(1)), len(out))
				told.Unlock()
			}
		})
	}
	group.Wait()
	return out, ctx.Err()
}

func (l *LayerShortlist) fit(seen *Captured, ask moe.Fitting) {
	dim := l.Gate.W.Cols
	if len(ask.Sizes) == 0 {
		ask.Sizes = shortSizes(l.Gate.Spec)
	}
	x, held := tensor.FromF32(len(seen.Rows)/dim, dim, seen.Rows), tensor.FromF32(len(seen.Held)/dim, dim, seen.Held)
	var err error
	if l.Shortlist, err = l.Gate.Shortlist(x, held, ask); err != nil {
		l.Err = &ShortlistError{l.Layer, err}
	}
}

// shortSizes are from twice as many experts as a row takes on, each about half again as large, below all.
func shortSizes(s moe.RouterSpec) (sizes []int) {
	for n := 2 * s.K; n < s.Experts; n += (n + 1) / 2 {
		sizes = append(sizes, n)
	}
	return sizes
}

// WithShortlists is a checkpoint as a file with shortlists would have it, and the keys of that file in order. It ends with c.
func WithShortlists(c *store.Checkpoint, layers []LayerShortlist) (*store.Checkpoint, error) {
	if c.Kind != store.GGUF {
		return nil, fmt.Errorf("%s: only a GGUF can hold shortlists: %w", c.Path, store.ErrUnsupported)
	}
	spec, err := model.Describe(c)
	if err != nil {
		return nil, err
	}
	sizes := make([]int32, len(spec.Layers))
	var tensors []store.Tensor
	for _, l := range layers {
		sizes[l.Layer] = int32(l.Shortlist.Size)
		tensors = append(tensors, model.ShortlistTensors(l.Layer, l.Shortlist)...)
	}
	return c.With(model.ShortlistKeys(spec.Arch, sizes), tensors), nil
}

// WriteCopy writes a GGUF checkpoint, as it is with all that was added to it, to a file of its own. store.ErrExists: path is taken. What fails or is
// cancelled leaves nothing.
func WriteCopy(ctx context.Context, c *store.Checkpoint, path string, see func(store.Progress)) error {
	g, listed := store.NewGGUF{Meta: withoutSplit(c.Meta), Keys: c.Keys}, map[string]bool{}
	add := func(name string) error {
		t, err := c.Tensor(name)
		if err != nil {
			return err
		}
		listed[name] = true
		g.Tensors = append(g.Tensors, cutter{c}.copied(t))
		return nil
	}
	var names []string
	for _, part := range c.Parts {
		names = append(names, part.Names...)
	}
	for _, name := range slices.Concat(names, c.Names()) {
		if !listed[name] {
			if err := add(name); err != nil {
				return err
			}
		}
	}
	return store.WriteGGUF(ctx, path, g, see)
}
