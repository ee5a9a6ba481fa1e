package model

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/winnow-llm/winnow/attention"
)

// Sparsity is by which selectors tokens read, and how closely, in the words of command lines and configurations.
type Sparsity struct {
	Prefill, Decode string   // selectors of prompts and of what is generated; "" = full
	Also            []string // further selectors that requests may name
	Budget          int      // keys that Decode's selector keeps; 0 = its own
	Threshold       *float32 // what the knob of Prefill's selector is turned to; nil = its own
	Recall          float32  // share of the softmax mass that is meant to be read; 0 = nobody says
	// PrefillFrom is the least number of a prompt's tokens for Prefill to serve it, and DecodeFrom the first position that Decode serves; nil = 16384,
	// and twice the budget: before, reading everything costs less than choosing.
	PrefillFrom, DecodeFrom *int
	Params                  map[string]map[string]float64 // by selector, numbers that are fixed when the model is loaded
	// Pages is AllPages where pages are kept that no row is to read any more, "" or FewPages where they are given back.
	Pages string
	// Profile has the knobs of selectors for Recall, or for its highest recall where that is 0; nil = they are the selectors' own. No text says it.
	Profile *SparseProfile
}

// The words for which pages are kept.
const (
	AllPages = "all"
	FewPages = "few"
)

const (
	sparsePrompt = 16384 // tokens of a prompt from which on selecting keys pays
	mostSparsity = 1 << 24
)

// ParseSparsity reads fields with values, in any order: prefill=anchor,decode=quest,budget=4096,recall=0.98. There are also threshold, also (as
// in also=s2/streaming), pages (all or few), prefill_from, decode_from, and numbers of selectors such as anchor.group=512. "" asks for nothing. The error is a
// *ReadingError.
func ParseSparsity(s string) (x Sparsity, err error) {
	if strings.TrimSpace(s) == "" {
		return x, nil
	}
	seen := map[string]bool{}
	for field := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !ok:
			return Sparsity{}, &ReadingError{fmt.Sprintf("%.40q", name), "has no value: write prefill=anchor,decode=quest,budget=4096"}
		case seen[name]:
			return Sparsity{}, &ReadingError{name, "is there twice"}
		}
		seen[name] = true
		if err := x.set(name, value); err != nil {
			return Sparsity{}, err
		}
	}
	if err := x.Check(); err != nil {
		return Sparsity{}, err
	}
	return x, nil
}

// ParseLimit reads the least budget and the least recall that requests may ask for, as in budget=1024,recall=0.95.
func ParseLimit(s string) (x Sparsity, err error) {
	for field := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		if name != "budget" && name != "recall" {
			return x, &ReadingError{fmt.Sprintf("%.40q", name), "is unknown: there are budget, recall"}
		}
		if err := x.set(name, value); err != nil {
			return x, err
		}
	}
	return x, nil
}

// set reads one field.
func (x *Sparsity) set(name, value string) (err error) {
	whole := func(least int) (n int) {
		if n, err = strconv.Atoi(value); err != nil || n < least || n > mostSparsity {
			err = &ReadingError{name, fmt.Sprintf("is %.40q, want %d to %d", value, least, mostSparsity)}
		}
		return n
	}
	switch name {
	case "prefill":
		x.Prefill = value
	case "decode":
		x.Decode = value
	case "also":
		x.Also = strings.Split(value, "/")
	case "budget":
		x.Budget = whole(1)
	case "threshold":
		var v float64
		if v, err = strconv.ParseFloat(value, 32); err != nil {
			return &ReadingError{name, fmt.Sprintf("is %.40q, want a number", value)}
		}
		if x.Threshold = new(float32(v)); math.IsNaN(v) {
			return &ReadingError{name, "is not a number"}
		}
	case "recall":
		v, bad := strconv.ParseFloat(value, 32)
		if x.Recall = float32(v); bad != nil || !(v > 0 && v <= 1) {
			return &ReadingError{name, fmt.Sprintf("is %.40q, want above 0 to 1", value)}
		}
	case "prefill_from":
		x.PrefillFrom = new(whole(0))
	case "decode_from":
		x.DecodeFrom = new(whole(0))
	case "pages":
		x.Pages = value
	default:
		return x.setParam(name, value)
	}
	return err
}

// setParam reads a number of a selector.
func (x *Sparsity) setParam(name, value string) error {
	selector, param, ok := strings.Cut(name, ".")
	if !ok {
		return &ReadingError{fmt.Sprintf("%.40q", name), "is unknown: there are prefill, decode, also, budget, threshold, recall, pages, prefill_from, decode_from and SELECTOR.NUMBER"}
	}
	v, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return &ReadingError{fmt.Sprintf("%.40q", name), fmt.Sprintf("is %.40q, want a number", value)}
	}
	if x.Params == nil {
		x.Params = map[string]map[string]float64{}
	}
	if x.Params[selector] == nil {
		x.Params[selector] = map[string]float64{}
	}
	x.Params[selector][param] = v
	return nil
}

// Check says whether there are the selectors, for what they are asked, and whether their numbers can be meant. The error is a *ReadingError.
func (x *Sparsity) Check() error {
	named := map[string]bool{}
	for _, f := range []struct {
		field string
		names []string
		phase attention.Phases
	}{
		{"prefill", []string{x.Prefill}, attention.Prefill}, {"decode", []string{x.Decode}, attention.Decode},
		{"also", x.Also, attention.Prefill | attention.Decode},
	} {
		for _, name := range f.names {
			if name == "" || name == "full" {
				continue
			}
			if k := attention.KindOf(name); k == nil || k.Phases&f.phase == 0 {
				return &ReadingError{f.field, fmt.Sprintf("is %.40q, want one of %q", name, attention.Kinds(f.phase))}
			}
			named[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x.Params)) {
		if !named[name] {
			return &ReadingError{fmt.Sprintf("%.40q", name), "is no selector that is named here, and has numbers"}
		}
		if err := attention.KindOf(name).Check(attention.Setting{Params: x.Params[name]}); err != nil {
			return &ReadingError{"", err.Error()}
		}
	}
	if x.Pages != "" && x.Pages != AllPages && x.Pages != FewPages {
		return &ReadingError{"pages", fmt.Sprintf("is %.40q, want %q or %q", x.Pages, AllPages, FewPages)}
	}
	_, err := x.Reading(0)
	return err
}

// Selections are the selectors that a model is to be loaded with: with a profile one for each recall that it has of them.
func (x *Sparsity) Selections() (all []Selection) {
	for _, name := range slices.Concat([]string{x.Prefill, x.Decode}, x.Also) {
		if name != "" && name != "full" && !slices.ContainsFunc(all, func(s Selection) bool { return s.Name == name }) {
			all = append(all, x.Profile.selections(Selection{Name: name, Params: x.Params[name]})...)
		}
	}
	return all
}

// String is by which selectors tokens read and what share of the softmax, as ParseSparsity has it; "" = everything.
func (x *Sparsity) String() string {
	var fields []string
	for _, f := range []struct{ name, value string }{{"prefill", x.Prefill}, {"decode", x.Decode}} {
		if f.value != "" {
			fields = append(fields, f.name+"="+f.value)
		}
	}
	if x.Recall > 0 && len(fields) > 0 {
		fields = append(fields, fmt.Sprint("recall=", x.Recall))
	}
	return strings.Join(fields, ",")
}

// Frees says whether prompts and answers give pages back which no head reads any more, where a prompt is long enough for Prefill.
func (x *Sparsity) Frees() bool {
	k := attention.KindOf(x.Decode)
	return x.Pages != AllPages && x.Prefill == x.Decode && k != nil && k.Placed
}

// Reading is how a prompt of so many tokens, and what follows it, is read. The error is a *ReadingError.
func (x *Sparsity) Reading(prompt int) (*Reading, error) {
	r := &Reading{Prefill: x.Prefill, Decode: x.Decode, Recall: x.Recall, Whole: x.Pages == AllPages}
	if x.Threshold != nil {
		if x.Prefill == "" || x.Prefill == "full" {
			return nil, &ReadingError{"threshold", "needs prefill: full has none"}
		}
		r.PrefillKnob = x.Threshold
		if err := checkKnob("threshold", x.Prefill, *r.PrefillKnob); err != nil {
			return nil, err
		}
	}
	budget := 0
	if x.Decode != "" && x.Decode != "full" {
		if k := attention.KindOf(x.Decode); k != nil && k.Knob.Name == budgetKnob {
			budget = cmp.Or(x.Profile.budget(x.Decode, x.Recall), int(k.Knob.Default))
		}
	}
	if x.Budget > 0 {
		if budget == 0 {
			return nil, &ReadingError{"budget", fmt.Sprintf("needs a decode that has one: %q has none", x.Decode)}
		}
		budget, r.DecodeKnob = x.Budget, new(float32(x.Budget))
		if err := checkKnob("budget", x.Decode, *r.DecodeKnob); err != nil {
			return nil, err
		}
	}
	least := sparsePrompt
	if x.PrefillFrom != nil {
		least = *x.PrefillFrom
	}
	if prompt < least {
		r.Prefill, r.PrefillKnob = "", nil
	}
	if r.DecodeFrom = 2 * budget; x.DecodeFrom != nil {
		r.DecodeFrom = *x.DecodeFrom
	}
	return r, nil
}

// budgetKnob is the knob of selectors that keep a number of keys.
const budgetKnob = "budget"

func checkKnob(field, selector string, v float32) error {
	if err := attention.KindOf(selector).Knob.Check(float64(v)); err != nil {
		return &ReadingError{field, err.Error()}
	}
	return nil
}
