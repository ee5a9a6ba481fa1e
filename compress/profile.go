// Package compress makes smaller models: it observes a model at work, plans which experts stay and in how many bits, and writes the result.
package compress

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/winnow-llm/winnow/moe"
)

// ErrProfile is wrapped by every refusal of a profile; the wrapping names layer and field.
var ErrProfile = errors.New("compress: profile")

// Profile is what was seen of a model at work on a calibration text, enough for every plan. Only experts that were chosen ran.
type Profile struct {
	Model       string          `json:"model"` // 64 hex, see moe.Overlay
	Arch        string          `json:"arch"`
	Calibration moe.Calibration `json:"calibration"`
	Layers      []LayerProfile  `json:"layers"` // one a layer of the model; of a dense one only Importance
}

// LayerProfile is what was seen of a layer. Slices are by router row. Weights are those by which outputs are added, whatever the router
// makes them of; a negative one counts by its size.
type LayerProfile struct {
	Tokens     int64       `json:"tokens,omitempty"`      // that were routed
	K          int         `json:"k,omitempty"`           // experts a token
	Usage      []int64     `json:"usage,omitempty"`       // tokens that chose the expert
	Weight     []float64   `json:"weight,omitempty"`      // sum of its weights
	Weight2    []float64   `json:"weight2,omitempty"`     // sum of their squares
	Saliency   []float64   `json:"saliency,omitempty"`    // sum of weight times the norm of its output: REAP's, before it is divided by Usage
	Largest    []float64   `json:"largest,omitempty"`     // largest absolute value of its outputs, not weighted
	Together   [][]int64   `json:"together,omitempty"`    // tokens that chose both experts; an expert with itself: Usage; nil where there are more than 512
	Skips      [64]int64   `json:"skips,omitzero"`        // second largest weight over the largest: how many tokens in each 64th of [0, 1]
	Importance float64     `json:"importance"`            // 1 - mean cosine of the layer's input and output
	Inputs     [][]float64 `json:"inputs,omitempty"`      // sum of squares of each column of an expert's inputs; nil unless asked for
	Hidden     [][]float64 `json:"hidden,omitempty"`      // likewise of its hidden rows
	InputSums  [][]float64 `json:"input_sums,omitempty"`  // sum of each column of an expert's inputs; nil unless asked for
	HiddenSums [][]float64 `json:"hidden_sums,omitempty"` // likewise of its hidden rows
}

const (
	mostLayers   = 1024
	mostTogether = 512     // experts of a layer whose pairs are counted
	mostTokens   = 1 << 48 // so that sums over experts stay whole numbers
	mostColumns  = 1 << 20
)

// Check says what contradicts itself in a profile: ErrProfile.
func (p Profile) Check() error {
	if err := p.checkHead(); err != nil {
		return err
	}
	for i := range p.Layers {
		if err := p.Layers[i].check(i); err != nil {
			return err
		}
	}
	return nil
}

func (p Profile) checkHead() error {
	switch {
	case !isSHA256(p.Model):
		return fmt.Errorf("%w: model is %.80q, want 64 hex digits", ErrProfile, p.Model)
	case !isSHA256(p.Calibration.SHA256):
		return fmt.Errorf("%w: calibration's sha256 is %.80q, want 64 hex digits", ErrProfile, p.Calibration.SHA256)
	case p.Calibration.Tokens < 0 || p.Calibration.Tokens > mostTokens:
		return fmt.Errorf("%w: calibration of %d tokens, want 0 to %d", ErrProfile, p.Calibration.Tokens, int64(mostTokens))
	case len(p.Layers) < 1 || len(p.Layers) > mostLayers:
		return fmt.Errorf("%w: %d layers, want 1 to %d", ErrProfile, len(p.Layers), mostLayers)
	}
	return nil
}

// isSHA256 says whether s is 64 lower-case hex digits.
func isSHA256(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }

func (l *LayerProfile) check(layer int) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: layer %d: %s", ErrProfile, layer, fmt.Sprintf(format, args...))
	}
	n := len(l.Usage)
	switch {
	case !(l.Importance >= 0 && l.Importance <= 2):
		return wrong("importance is %v, want 0 to 2", l.Importance)
	case n > moe.MostExperts:
		return wrong("%d experts, at most %d", n, moe.MostExperts)
	case l.Tokens < 0 || l.Tokens > mostTokens:
		return wrong("%d tokens, want 0 to %d", l.Tokens, int64(mostTokens))
	case n > 0 && (l.K < 1 || l.K > n), n == 0 && (l.K != 0 || l.Tokens != 0):
		return wrong("%d of %d experts for each of %d tokens", l.K, n, l.Tokens)
	}
	for _, f := range []struct {
		name   string
		values []float64
	}{{"weight", l.Weight}, {"weight2", l.Weight2}, {"saliency", l.Saliency}, {"largest", l.Largest}} {
		if len(f.values) != n {
			return wrong("%s of %d experts, usage of %d", f.name, len(f.values), n)
		}
		if at := unsound(f.values); at >= 0 {
			return wrong("%s of expert %d is %v", f.name, at, f.values[at])
		}
	}
	var chosen, seconds int64
	for e, v := range l.Usage {
		if v < 0 || v > l.Tokens {
			return wrong("expert %d was chosen by %d of %d tokens", e, v, l.Tokens)
		}
		chosen += v
	}
	if chosen > int64(l.K)*l.Tokens {
		return wrong("%d choices, %d by each of %d tokens", chosen, l.K, l.Tokens)
	}
	for i, v := range l.Skips {
		if v < 0 || v > l.Tokens {
			return wrong("%d of %d tokens in part %d of skips", v, l.Tokens, i)
		}
		seconds += v
	}
	if seconds > l.Tokens {
		return wrong("%d of %d tokens in skips", seconds, l.Tokens)
	}
	return errors.Join(l.checkPairs(wrong), checkColumns("inputs", l.Inputs, n, wrong), checkColumns("hidden", l.Hidden, n, wrong),
		checkSums("input_sums", l.InputSums, l.Inputs, wrong), checkSums("hidden_sums", l.HiddenSums, l.Hidden, wrong))
}

func (l *LayerProfile) checkPairs(wrong func(string, ...any) error) error {
	n := len(l.Usage)
	if l.Together == nil {
		return nil
	}
	if len(l.Together) != n || n > mostTogether {
		return wrong("together has %d rows for %d experts, at most %d", len(l.Together), n, mostTogether)
	}
	for i, row := range l.Together {
		if len(row) != n {
			return wrong("together has a row of %d for %d experts", len(row), n)
		}
		for j, v := range row {
			if v < 0 || v > min(l.Usage[i], l.Usage[j]) || len(l.Together[j]) == n && v != l.Together[j][i] || i == j && v != l.Usage[i] {
				return wrong("experts %d and %d were chosen together by %d tokens", i, j, v)
			}
		}
	}
	return nil
}

func checkColumns(name string, rows [][]float64, experts int, wrong func(string, ...any) error) error {
	if rows == nil {
		return nil
	}
	if len(rows) != experts {
		return wrong("%s of %d experts, usage of %d", name, len(rows), experts)
	}
	for e, row := range rows {
		if len(row) != len(rows[0]) || len(row) < 1 || len(row) > mostColumns {
			return wrong("%s of expert %d has %d columns, that of the first %d", name, e, len(row), len(rows[0]))
		}
		if at := unsound(row); at >= 0 {
			return wrong("%s of expert %d, column %d is %v", name, e, at, row[at])
		}
	}
	return nil
}

// checkSums compares sums of columns with the sums of their squares, which have to be there too.
func checkSums(name string, sums, squares [][]float64, wrong func(string, ...any) error) error {
	if sums == nil {
		return nil
	}
	if len(sums) != len(squares) {
		return wrong("%s of %d experts, squares of %d", name, len(sums), len(squares))
	}
	for e, row := range sums {
		if len(row) != len(squares[e]) {
			return wrong("%s of expert %d has %d columns, squares %d", name, e, len(row), len(squares[e]))
		}
		for at, v := range row {
			if !(math.Abs(v) <= math.MaxFloat64) {
				return wrong("%s of expert %d, column %d is %v", name, e, at, v)
			}
		}
	}
	return nil
}

// unsound is the first value that is negative or no number; -1 = none.
func unsound(values []float64) int {
	for i, v := range values {
		if !(v >= 0 && v <= math.MaxFloat64) {
			return i
		}
	}
	return -1
}
