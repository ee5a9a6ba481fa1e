package attention

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/winnow-llm/winnow/tensor"
)

// Retrieval heads and streaming heads (DuoAttention, Xiao et al. 2024, arXiv 2410.10819, section 2): a key-value head reads
// everything, or sinks and recent keys, in whole pages. Which does what has been learnt for the model and is in its pattern. The defaults
// are those of the published deployment.
var _ = register(Kind{
	Name: "duo", Phases: Prefill | Decode, Placed: true,
	Knob: Knob{Name: "recent", Default: 256, Min: 0, Max: 1 << 24, What: "how many keys before its page a streaming head reads, rounded up to pages"},
	Params: []Knob{
		{Name: "sink", Default: 64, Min: 0, Max: 1 << 20, What: "how many of the first keys a streaming head reads, rounded up to pages"},
		{Name: "sparsity", Default: 0.5, Min: 0, Max: 1, What: "the share of heads that stream: those of the pattern's least numbers"},
		{Name: "threshold", Default: 0, Min: 0, Max: 1, What: "the number of the pattern from which on a head reads everything, in place of the share; 0 = the share decides"},
	},
	New: newDuo,
})

// Errors of patterns of heads, by when they happen. The wrapping says where.
var (
	ErrPattern   = errors.New("attention: no pattern of heads")          // a text that is none
	ErrNoPattern = errors.New("attention: duo needs a pattern of heads") // none was given, or one of another model
)

func newDuo(k *Kind, e *Env, s Setting) (*Selector, error) {
	if err := s.Heads.Fit(len(e.Caches), e.KV()); err != nil {
		return nil, err
	}
	pattern := s.Heads.Whole(k.value(s, "sparsity"))
	if threshold := k.value(s, "threshold"); threshold > 0 {
		pattern = s.Heads.Above(threshold)
	}
	sink := wholePages(k.param(s, "sink"))
	ops := make([]*SelectRanges, len(e.Caches))
	var owned []tensor.Buffer
	fail := func(err error) (*Selector, error) {
		(&Selector{owned: owned}).Free(e.Device)
		return nil, err
	}
	for layer, heads := range pattern {
		whole, err := onDevice(e.Device, wholeHeads(e, heads))
		if err != nil {
			return fail(fmt.Errorf("duo: %w", err))
		}
		owned = append(owned, whole.Buf)
		ops[layer] = &SelectRanges{Layout: e.Layout, Plan: e.Plan, Whole: whole, Serves: s.Number, Sink: sink, Recent: k.knob(s, layer)}
	}
	caps := Caps{ChunkAlign: 1, Fingerprint: fmt.Sprint(k.fingerprint(s), ",whole=", pattern)}
	sel := prepared(e, caps, func(layer int) tensor.Op { return ops[layer] })
	sel.owned = owned
	sel.Keeps = func(layer int, knob float32) []Keep {
		keeps := rangeKeeps(e, sink, turned(knob, ops[layer].Recent))
		for _, h := range pattern[layer] {
			keeps[h] = Everything()
		}
		return keeps
	}
	return sel, nil
}

// wholeHeads marks the plan groups of the key-value heads that read everything.
func wholeHeads(e *Env, heads []int) []int32 {
	marks := make([]int32, e.Plan.Groups)
	for g := range marks {
		head := g * e.Heads / e.Plan.Groups
		if slices.Contains(heads, head*e.KV()/e.Heads) {
			marks[g] = 1
		}
	}
	return marks
}

// HeadPattern is how much each key-value head of each layer needs to read everything, from 0 to 1.
type HeadPattern [][]float64

// Fit says what a pattern has too much or too little of for layers of so many key-value heads.
func (p HeadPattern) Fit(layers, heads int) error {
	if len(p) != layers {
		return fmt.Errorf("%w: one for %d layers is given, the model has %d; it is in the file full_attention_heads.tsv of a model's pattern",
			ErrNoPattern, len(p), layers)
	}
	for i, row := range p {
		if len(row) != heads {
			return fmt.Errorf("%w: layer %d has %d heads in the pattern, the model has %d key-value heads", ErrNoPattern, i, len(row), heads)
		}
	}
	return nil
}

// Sizes of a pattern that is read, more than models have.
const (
	mostPatternBytes = 1 << 20
	mostPatternLines = 1 << 12 // layers
	mostPatternHeads = 1 << 10 // of a layer
)

// ParseHeadPattern reads a pattern as it is published: a line a layer, of numbers separated by tabs, one a head. Numbers outside 0 to 1
// are taken for the nearer of both, as the published code does. Empty lines, and what follows a #, say nothing. The error is ErrPattern with the line.
func ParseHeadPattern(text string) (HeadPattern, error) {
	if len(text) > mostPatternBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrPattern, mostPatternBytes)
	}
	var p HeadPattern
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		var row []float64
		for column, field := range strings.Split(line, "\t") {
			v, err := strconv.ParseFloat(strings.TrimSpace(field), 64)
			if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("%w: line %d, column %d: %.40q, want a number", ErrPattern, n, column+1, field)
			}
			if column == mostPatternHeads {
				return nil, fmt.Errorf("%w: line %d: more than %d columns", ErrPattern, n, mostPatternHeads)
			}
			row = append(row, min(max(v, 0), 1))
		}
		if len(p) > 0 && len(row) != len(p[0]) {
			return nil, fmt.Errorf("%w: line %d: %d columns, the lines before have %d", ErrPattern, n, len(row), len(p[0]))
		}
		if p = append(p, row); len(p) > mostPatternLines {
			return nil, fmt.Errorf("%w: line %d: more than %d layers", ErrPattern, n, mostPatternLines)
		}
	}
	if len(p) == 0 {
		return nil, fmt.Errorf("%w: it has no line", ErrPattern)
	}
	return p, nil
}

// Above lists the heads of each layer whose number is a threshold at least.
func (p HeadPattern) Above(threshold float64) [][]int {
	whole := make([][]int, len(p))
	for l, row := range p {
		for h, v := range row {
			if v >= threshold {
				whole[l] = append(whole[l], h)
			}
		}
	}
	return whole
}

// Whole lists the heads of each layer that read everything: those whose number is at least the quantile sparsity of all numbers, between
// two of which it lies on a straight line. Where numbers are equal, the first heads of the first layers stream.
func (p HeadPattern) Whole(sparsity float64) [][]int {
	type head struct {
		layer, head int
		v           float64
	}
	var all []head
	for l, row := range p {
		for h, v := range row {
			all = append(all, head{l, h, v})
		}
	}
	slices.SortStableFunc(all, func(a, b head) int { return cmp.Compare(a.v, b.v) })
	stream := int(math.Ceil(sparsity * float64(len(all)-1)))
	switch {
	case sparsity <= 0:
		stream = 0
	case sparsity >= 1:
		stream = len(all)
	}
	whole := make([][]int, len(p))
	for _, h := range all[stream:] {
		whole[h.layer] = append(whole[h.layer], h.head)
	}
	for _, heads := range whole {
		slices.Sort(heads)
	}
	return whole
}
