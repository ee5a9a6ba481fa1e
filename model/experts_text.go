package model

import (
	"fmt"
	"strconv"
	"strings"
)

// mostTopK bounds the experts a token that a text may ask for; what a model can do shows later.
const mostTopK = 1 << 10

// ParseExperts reads Experts as command lines and configurations have them: fields of the wire with values, in any order, as in
// top_k=4,mass=0.9. top_k is a number, or one for each layer of experts as in top_k=8/8/4. "" asks for nothing. The error is an *ExpertsError.
func ParseExperts(s string) (x Experts, err error) {
	if strings.TrimSpace(s) == "" {
		return x, nil
	}
	seen := map[string]bool{}
	for field := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if name = strings.TrimSpace(name); !ok {
			return Experts{}, &ExpertsError{fmt.Sprintf("%.40q", name), "has no value: write top_k=4,mass=0.9"}
		}
		if seen[name] {
			return Experts{}, &ExpertsError{name, "is there twice"}
		}
		seen[name] = true
		if err := x.set(name, strings.TrimSpace(value)); err != nil {
			return Experts{}, err
		}
	}
	return x, nil
}

// set reads one field.
func (x *Experts) set(name, value string) (err error) {
	switch name {
	case "top_k":
		x.TopK, err = ParseTopK(value)
	case "min_p":
		x.MinP, err = parseShare(name, value)
	case "skip_beta":
		x.SkipBeta, err = parseShare(name, value)
	case "mass":
		if x.Mass, err = parseShare(name, value); err == nil && x.Mass == 0 {
			err = &ExpertsError{name, "is 0, want above 0 to 1"}
		}
	default:
		err = &ExpertsError{fmt.Sprintf("%.40q", name), "is unknown: there are top_k, min_p, mass, skip_beta"}
	}
	return err
}

// ParseTopK reads TopK as it stands in the text of ParseExperts: 4, or by layer of experts 8/8/4. The error is an *ExpertsError.
func ParseTopK(value string) ([]int, error) {
	if n := strings.Count(value, "/") + 1; n > mostLayers {
		return nil, &ExpertsError{"top_k", fmt.Sprintf("has %d numbers, want at most %d", n, mostLayers)}
	}
	var all []int
	for one := range strings.SplitSeq(value, "/") {
		k, err := strconv.Atoi(one)
		if err != nil || k < 1 || k > mostTopK {
			return nil, &ExpertsError{"top_k", fmt.Sprintf("has %.40q, want numbers from 1 to %d", one, mostTopK)}
		}
		all = append(all, k)
	}
	return all, nil
}

func parseShare(name, value string) (float32, error) {
	v, err := strconv.ParseFloat(value, 32)
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, &ExpertsError{name, fmt.Sprintf("is %.40q, want 0 to 1", value)}
	}
	return float32(v), nil
}

// String is what ParseExperts reads as the same; "" for nothing.
func (x *Experts) String() string {
	var fields []string
	if len(x.TopK) > 0 {
		fields = append(fields, "top_k="+x.layers())
	}
	for _, f := range []struct {
		name string
		v    float32
	}{{"min_p", x.MinP}, {"mass", x.Mass}, {"skip_beta", x.SkipBeta}} {
		if f.v != 0 {
			fields = append(fields, f.name+"="+strconv.FormatFloat(float64(f.v), 'g', -1, 32))
		}
	}
	return strings.Join(fields, ",")
}

// layers are the numbers of TopK.
func (x *Experts) layers() string {
	var all []string
	for _, k := range x.TopK {
		all = append(all, strconv.Itoa(k))
	}
	return strings.Join(all, "/")
}
