package store

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Limits of what config.json says of packed matrices, above what compressed-tensors writes.
const (
	mostSchemes  = 1 << 10 // groups of matrices that are stored alike
	mostPatterns = 1 << 12 // targets that are regular expressions
)

// scheme is how some matrices are packed.
type scheme struct {
	group   int    // values that share a scale; 0 = a row
	bits    int    // of a code
	refused string // why it is not read; "" = it is
	named   string // as config.json calls it
}

// same says whether two schemes store alike.
func (s *scheme) same(o *scheme) bool {
	return s.group == o.group && s.bits == o.bits && s.refused == o.refused
}

// schemes say how matrices are packed, by the names of their modules.
//
// Layout: quantization_config.config_groups is an object of {"targets", "weights": {"num_bits", "type", "symmetric", "strategy", "group_size",
// ...}, ...}. A target is a module's name, "re:" and a regular expression that its name begins with, or a class. What is named more closely
// counts: a name more than an expression, that more than a class.
type schemes struct {
	names    map[string][]*scheme
	patterns []pattern
	linear   []*scheme // of the class Linear, which all packed matrices are of
}

type pattern struct {
	*regexp.Regexp
	*scheme
}

// weightsConfig is config_groups.*.weights.
type weightsConfig struct {
	Bits      json.RawMessage `json:"num_bits"`
	Type      string          `json:"type"`
	Symmetric *bool           `json:"symmetric"`
	Strategy  string          `json:"strategy"`
	Group     *int            `json:"group_size"`
	Dynamic   json.RawMessage `json:"dynamic"`
	Order     json.RawMessage `json:"actorder"`
}

// readSchemes reads what a config.json says. Errors are of what contradicts itself; variants that are not read are refused by their schemes.
func readSchemes(config []byte) (*schemes, error) {
	var file struct {
		Quantization *struct {
			Method string                     `json:"quant_method"`
			Format string                     `json:"format"`
			Groups map[string]json.RawMessage `json:"config_groups"`
		} `json:"quantization_config"`
	}
	if err := json.Unmarshal(config, &file); err != nil {
		return nil, err
	}
	q := file.Quantization
	switch {
	case q == nil:
		return nil, fmt.Errorf("missing, and there are packed matrices")
	case q.Method != "" && q.Method != "compressed-tensors":
		return nil, fmt.Errorf("quant_method %.40q beside tensors that compressed-tensors has packed", q.Method)
	case len(q.Groups) > mostSchemes:
		return nil, fmt.Errorf("config_groups: %d, at most %d are read", len(q.Groups), mostSchemes)
	}
	all := &schemes{names: map[string][]*scheme{}}
	for name, raw := range q.Groups {
		if err := all.add(name, raw, q.Format); err != nil {
			return nil, fmt.Errorf("config_groups.%.100s: %w", name, err)
		}
	}
	return all, nil
}

// add reads a group.
func (all *schemes) add(name string, raw json.RawMessage, format string) error {
	var g struct {
		Targets []string        `json:"targets"`
		Weights *weightsConfig  `json:"weights"`
		Inputs  json.RawMessage `json:"input_activations"`
		Outputs json.RawMessage `json:"output_activations"`
		Format  string          `json:"format"`
	}
	if err := json.Unmarshal(raw, &g); err != nil {
		return err
	}
	if g.Weights == nil {
		return nil // of activations alone
	}
	s := &scheme{named: name}
	if err := s.read(g.Weights); err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	if g.Format != "" {
		format = g.Format
	}
	switch {
	case format != "pack-quantized" && format != "":
		s.refused = fmt.Sprintf("format %.40q, only pack-quantized is read", format)
	case !none(g.Inputs) || !none(g.Outputs):
		s.refused = "of a model whose activations are quantised too, which is not read"
	}
	for _, t := range g.Targets {
		expression, ok := strings.CutPrefix(t, "re:")
		switch {
		case ok && len(all.patterns) == mostPatterns:
			return fmt.Errorf("targets: more than %d regular expressions", mostPatterns)
		case ok:
			re, err := regexp.Compile("^(?:" + expression + ")")
			if err != nil {
				return fmt.Errorf("targets: %w", err)
			}
			all.patterns = append(all.patterns, pattern{re, s})
		case t == "Linear":
			all.linear = append(all.linear, s)
		default:
			all.names[t] = append(all.names[t], s)
		}
	}
	return nil
}

// none says whether a field is absent or null.
func none(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// read takes the numbers of a scheme.
func (s *scheme) read(w *weightsConfig) error {
	if err := json.Unmarshal(w.Bits, &s.bits); err != nil {
		return fmt.Errorf("num_bits is %.40q", w.Bits)
	}
	if s.bits < 1 || s.bits > 64 {
		return fmt.Errorf("num_bits is %d", s.bits)
	}
	switch w.Strategy {
	case "group":
		if w.Group == nil || *w.Group < 1 {
			return fmt.Errorf("group_size must be 1 or more where the strategy is group")
		}
		s.group = *w.Group
	case "channel":
	default:
		s.refused = fmt.Sprintf("strategy %.40q, only group and channel are read", w.Strategy)
	}
	switch {
	case s.bits != 4 && s.bits != 8:
		s.refused = fmt.Sprintf("num_bits %d, only 4 and 8 are read", s.bits)
	case w.Type != "int" && w.Type != "":
		s.refused = fmt.Sprintf("type %.40q, only int is read", w.Type)
	case w.Symmetric != nil && !*w.Symmetric:
		s.refused = "with zero points, which are not read"
	case !none(w.Dynamic) && string(w.Dynamic) != "false":
		s.refused = "with dynamic scales, which are not read"
	case !none(w.Order) && !slices.Contains([]string{`"static"`, `"weight"`}, string(w.Order)):
		s.refused = fmt.Sprintf("actorder %.40s, which is not read", w.Order)
	}
	return nil
}

// of finds the scheme of a module.
func (all *schemes) of(module string) (*scheme, error) {
	found := all.names[module]
	if len(found) == 0 {
		for _, p := range all.patterns {
			if p.MatchString(module) {
				found = append(found, p.scheme)
			}
		}
	}
	if len(found) == 0 {
		found = all.linear
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("config_groups: none has %.100q among its targets, which is packed", module)
	}
	for _, other := range found[1:] {
		if !other.same(found[0]) {
			return nil, fmt.Errorf("config_groups: %.100q is among the targets of %.40s and of %.40s, which differ", module, found[0].named, other.named)
		}
	}
	return found[0], nil
}
