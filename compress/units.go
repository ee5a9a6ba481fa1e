package compress

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// Measurement is how Measure measures.
type Measurement struct {
	Formats []*quant.Format       // that units may have; nil = Candidates
	Rows    int                   // most rows of a matrix that are measured, evenly spread; 0 = all
	Floors  Floors                // "" = Kept
	Threads int                   // goroutines at work; 0 = one a core
	See     func(done, total int) // units measured; one goroutine at a time calls it; nil = nobody asks
}

// Floors says whether units have floors.
type Floors string

const (
	Kept Floors = "kept" // attention, shared experts and the layers at both ends have more than the least
	None Floors = "none" // every unit may have its smallest choice: for comparison
)

// Candidates are the formats of units: of every number of bits the one with the least error.
var Candidates = []*quant.Format{quant.Q2_K, quant.Q3_K, quant.Q4_K, quant.Q5_K, quant.Q6_K, quant.Q8_0}

// FolderCandidates are those of a Hugging Face folder, which holds no others: see quantizeFolder.
var FolderCandidates = []*quant.Format{quant.Q4_0, quant.Q8_0}

// Measure makes the units of a checkpoint and streams their weights through every format they may have. A profile weights errors by the
// inputs of experts, if it has them, and units by how much they count; nil: every unit counts the same, by its error alone. An expert that
// fewer than 256 tokens of it chose has, in each format, the median error of its layer's experts that more chose.
//
// ErrUnsupported: the checkpoint has its experts in banks already, or is a folder that is quantised. ErrProfile: it is of another model.
func Measure(ctx context.Context, c *store.Checkpoint, p *Profile, m Measurement) ([]Unit, error) {
	if m.Formats == nil {
		if m.Formats = Candidates; c.Kind != store.GGUF {
			m.Formats = FolderCandidates
		}
	}
	if m.Threads < 1 {
		m.Threads = runtime.GOMAXPROCS(0)
	}
	units, err := unitsOf(c, p)
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(m.Threads)
	done, turn := 0, sync.Mutex{}
	for i := range units {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			m.unit(c, p, &units[i])
			turn.Lock()
			defer turn.Unlock()
			if done++; m.See != nil {
				m.See(done, len(units))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	cover(units, p)
	if m.Floors != None {
		floors(units)
	}
	return units, nil
}

var (
	attentionName = regexp.MustCompile(`^blk\.(\d{1,4})\.attn_[a-z0-9_]+\.weight$`)
	networkName   = regexp.MustCompile(`^blk\.(\d{1,4})\.ffn_(gate|up|down)(|_shexp|_exps)\.weight$`)
	bankName      = regexp.MustCompile(`^blk\.(\d{1,4})\.ffn_(?:(?:gate|up|down|gate_up)_exps\.q\d+\.weight|exps_map)$`)
	otherName     = regexp.MustCompile(`^blk\.(\d{1,4})\.ffn_(?:gate_up_exps|(?:gate|up|down)\.\d{1,4})\.weight$`) // of layouts that no bank is made of
)

// parts are the matrices of a network, in the order in which Unit.Names has them.
var parts = []string{"gate", "up", "down"}

// unitsOf finds the units of a checkpoint, by layer, kind and expert.
func unitsOf(c *store.Checkpoint, p *Profile) (units []Unit, err error) {
	if c.Kind != store.GGUF {
		return folderUnits(c, p)
	}
	for _, name := range c.Names() {
		if bankName.MatchString(name) {
			return nil, fmt.Errorf("%s: its experts have formats of their own already (%s): %w", c.Path, name, store.ErrUnsupported)
		}
		if otherName.MatchString(name) {
			return nil, fmt.Errorf("%s: its experts lie in %s, formats are chosen for those in stacks of gate, up and down: %w", c.Path, name, store.ErrUnsupported)
		}
		if m := attentionName.FindStringSubmatch(name); m != nil {
			t, err := c.Tensor(name)
			if err != nil {
				return nil, err
			}
			if len(t.Shape) == 2 && t.Format.Decode != nil {
				units = append(units, Unit{Kind: Attention, Layer: blockOf(m[1]), Expert: -1, Names: []string{name}, Values: int64(numbers(t)), Weight: 1})
			}
		}
		m := networkName.FindStringSubmatch(name)
		if m == nil || m[2] != "gate" {
			continue
		}
		more, err := networks(c, p, blockOf(m[1]), m[3])
		if err != nil {
			return nil, err
		}
		units = append(units, more...)
	}
	slices.SortStableFunc(units, func(a, b Unit) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), strings.Compare(string(a.Kind), string(b.Kind)), cmp.Compare(a.Expert, b.Expert))
	})
	return units, nil
}

func blockOf(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		panic("winnow: bug: compress: four digits are no number")
	}
	return n
}

// networks are the units of a layer's networks of one kind: one, or one an expert.
func networks(c *store.Checkpoint, p *Profile, layer int, kind string) ([]Unit, error) {
	u := Unit{Kind: map[string]Kind{"": Dense, "_shexp": Shared, "_exps": Expert}[kind], Layer: layer, Expert: -1, Weight: 1}
	experts := 0
	for _, part := range parts {
		name := fmt.Sprintf("blk.%d.ffn_%s%s.weight", layer, part, kind)
		t, err := c.Tensor(name)
		if err != nil {
			return nil, err
		}
		dims := 2
		if u.Kind == Expert {
			dims = 3
		}
		if len(t.Shape) != dims || t.Format.Decode == nil || part != "gate" && dims == 3 && t.Shape[0] != experts {
			return nil, fmt.Errorf("%s: %s is %s of shape %v: %w", c.Path, name, t.Format, t.Shape, store.ErrFormat)
		}
		if dims == 3 {
			experts = t.Shape[0]
		}
		u.Names = append(u.Names, name)
		u.Values += int64(numbers(t))
	}
	if u.Kind != Expert {
		return []Unit{u}, nil
	}
	u.Values /= int64(experts)
	return p.each(u, experts)
}

// each is a unit for every expert of a layer, of which u says what all have in common.
func (p *Profile) each(u Unit, experts int) ([]Unit, error) {
	units := make([]Unit, experts)
	seen := p.routed(u.Layer)
	if seen != nil && (len(seen.Usage) != experts || len(seen.Weight2) != experts) {
		return nil, fmt.Errorf("%w: layer %d has %d experts, in the model %d", ErrProfile, u.Layer, len(seen.Usage), experts)
	}
	for e := range units {
		units[e] = u
		if units[e].Expert = e; seen != nil {
			units[e].Weight, units[e].Tokens = seen.Weight2[e]/float64(seen.Tokens), seen.Usage[e]
		}
	}
	return units, nil
}

// routed is what was seen of a layer of experts; nil where no token was routed in it, or there is no profile.
func (p *Profile) routed(layer int) *LayerProfile {
	if p == nil || layer >= len(p.Layers) || p.Layers[layer].Tokens <= 0 {
		return nil
	}
	l := &p.Layers[layer]
	for _, n := range l.Usage {
		if n > 0 {
			return l
		}
	}
	return nil
}

// unit finds the choices of a unit.
func (m *Measurement) unit(c *store.Checkpoint, p *Profile, u *Unit) {
	all := make([]store.Tensor, len(u.Names))
	samples := make([]rowSample, len(u.Names))
	for i, name := range u.Names {
		if all[i] = c.Tensors[name]; u.Kind == Expert && len(all[i].Shape) == 3 {
			all[i] = part(all[i], u.Expert)
		}
		samples[i] = m.sample(all[i], p.columns(u, i))
		u.Outlier = max(u.Outlier, Outlier(samples[i].values, samples[i].cols))
		c.Release(all[i].Data)
	}
	formats := slices.Clone(m.Formats)
	if own := all[0].Format; own.Block > 1 && !slices.Contains(formats, own) {
		formats = append(formats, own) // as it is
	}
	known := map[string]bool{}
	for _, f := range formats {
		f = fitting(f, samples[0].cols)
		choice, actual := Choice{Format: f.Name}, ""
		for i := range all {
			to := stored(all[i], f)
			choice.Bytes += int64(numbers(all[i])) / int64(to.Block) * int64(to.Bytes)
			actual += to.Name + " "
			choice.Error += samples[i].err(all[i].Format, to)
		}
		if !known[actual] {
			known[actual] = true
			u.Choices = append(u.Choices, choice)
		}
	}
	slices.SortStableFunc(u.Choices, func(a, b Choice) int { return cmp.Compare(a.Bytes, b.Bytes) })
}

// columns is how large the inputs of a unit's matrix i were, by column, as sums of squares; nil where nobody knows.
func (p *Profile) columns(u *Unit, i int) []float64 {
	seen := p.routed(u.Layer)
	if seen == nil || u.Kind != Expert || u.Tokens < LeastTokens {
		return nil
	}
	of := seen.Inputs
	if parts[i] == "down" {
		of = seen.Hidden
	}
	if u.Expert >= len(of) {
		return nil
	}
	return of[u.Expert]
}

// rowSample is rows of a matrix.
type rowSample struct {
	values  []float32
	cols    int
	weights []float64 // of columns; nil: all count the same
	size    float64   // sum of weighted squares
}

func (m *Measurement) sample(t store.Tensor, weights []float64) rowSample {
	s := rowSample{cols: cols(t), weights: weights}
	if len(weights) != s.cols || !slices.ContainsFunc(weights, func(w float64) bool { return w > 0 && !math.IsInf(w, 1) }) {
		s.weights = nil
	}
	rows, bytes := numbers(t)/s.cols, t.Format.RowBytes(s.cols)
	take := rows
	if m.Rows > 0 {
		take = min(rows, m.Rows)
	}
	s.values = make([]float32, take*s.cols)
	for i := range take {
		r := i * rows / take
		t.Format.Decode(s.values[i*s.cols:(i+1)*s.cols], t.Data[r*bytes:(r+1)*bytes])
	}
	s.size = s.squares(nil)
	return s
}

// squares is the weighted sum of squared differences from other values; from 0 where there are none. What is not finite counts as 0.
func (s *rowSample) squares(from []float32) (sum float64) {
	for i, v := range s.values {
		d := float64(v)
		if from != nil {
			d -= float64(from[i])
		}
		if d *= d; s.weights != nil {
			d *= s.weights[i%s.cols]
		}
		if d >= 0 && !math.IsInf(d, 1) {
			sum += d
		}
	}
	return sum
}

// err is the relative squared error of the sample, which comes from one format, in another.
func (s *rowSample) err(from, to *quant.Format) float64 {
	if from == to || s.size == 0 {
		return 0
	}
	enc, dec := make([]byte, to.RowBytes(s.cols)), make([]float32, len(s.values))
	for i := 0; i < len(dec); i += s.cols {
		to.Encode(enc, s.values[i:i+s.cols])
		to.Decode(dec[i:i+s.cols], enc)
	}
	return s.squares(dec) / s.size
}

// cover gives experts that few tokens chose the median error of their layer's others.
func cover(units []Unit, p *Profile) {
	layers := map[int][]*Unit{}
	for i := range units {
		if u := &units[i]; u.Kind == Expert && p.routed(u.Layer) != nil && u.Tokens >= LeastTokens {
			layers[u.Layer] = append(layers[u.Layer], u)
		}
	}
	for i := range units {
		u := &units[i]
		well := layers[u.Layer]
		if u.Kind != Expert || u.Tokens >= LeastTokens || len(well) == 0 {
			continue
		}
		for c := range u.Choices {
			var errs []float64
			for _, w := range well {
				errs = append(errs, w.Choices[c].Error)
			}
			slices.Sort(errs)
			u.Choices[c].Error = (errs[(len(errs)-1)/2] + errs[len(errs)/2]) / 2
		}
	}
}

// floors says what units must have: attention 4 bits, and the shared experts and the first and the last layer of experts one more than the
// smallest choice of an expert. Where a file has less it stays as it is.
func floors(units []Unit) {
	base, first, last := math.Inf(1), -1, -1
	for i := range units {
		if u := &units[i]; u.Kind == Expert {
			if base = min(base, math.Floor(u.bits(0))); first < 0 {
				first = u.Layer
			}
			last = u.Layer
		}
	}
	for i := range units {
		u, least := &units[i], 0.0
		switch {
		case u.Kind == Attention:
			least = 4
		case u.Kind == Shared, u.Kind == Expert && (u.Layer == first || u.Layer == last):
			least = base + 1
		}
		for u.Floor+1 < len(u.Choices) && u.bits(u.Floor) < least {
			u.Floor++
		}
	}
}
