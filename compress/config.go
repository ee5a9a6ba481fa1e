package compress

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
)

// What families call the numbers of experts in config.json. A model may hold several of one kind: all are changed.
//
// Layout: where layers differ, the number of experts becomes a list by layer, 0 for dense ones; each takes as many a token as the file says,
// or all that it has. winnow_moe says the rest:
// {"method": "reap", "expert_ids": {"LAYER": [by router row, its number in the model that was first made smaller]}}.
var (
	countFields = []string{"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"}
	usedFields  = []string{"num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_k", "moe_topk"}
)

const ownField = "winnow_moe"

// config is a config.json, which keeps its order and all that is not changed.
type config struct {
	raw    []byte
	fields map[string]json.RawMessage
	own    struct {
		Method string             `json:"method,omitempty"`
		IDs    map[string][]int32 `json:"expert_ids"`
	}
}

func badConfig(format string, args ...any) error {
	return fmt.Errorf("config.json: %s: %w", fmt.Sprintf(format, args...), store.ErrUnsupported)
}

func readConfig(raw []byte) (*config, error) {
	c := &config{raw: raw}
	if err := json.Unmarshal(raw, &c.fields); err != nil || c.fields == nil {
		return nil, badConfig("no JSON object (%v)", err)
	}
	if own := c.fields[ownField]; own != nil {
		if err := json.Unmarshal(own, &c.own); err != nil {
			return nil, badConfig("%s: %v", ownField, err)
		}
	}
	return c, nil
}

// used is how many experts a token gets.
func (c *config) used() (int, error) {
	for _, field := range usedFields {
		raw := c.fields[field]
		if raw == nil || string(raw) == "null" {
			continue
		}
		var one int
		if json.Unmarshal(raw, &one) != nil {
			return 0, badConfig("%s is %.40s", field, raw)
		}
		if one < 1 || one > moe.MostExperts {
			return 0, badConfig("%s is %d", field, one)
		}
		return one, nil
	}
	return 0, badConfig("no number of experts a token, as any of %v", usedFields)
}

// groups are those of neighbouring experts, and how many of them are chosen from.
func (c *config) groups() (groups, kept int) {
	number := func(field string) (n int) {
		if json.Unmarshal(c.fields[field], &n) != nil || n < 0 || n > math.MaxInt32 {
			return 0
		}
		return n
	}
	return number("n_group"), number("topk_group")
}

// ids are the numbers of a layer's experts in the model that was first made smaller; nil = their own.
func (c *config) ids(layer int) []int32 { return c.own.IDs[strconv.Itoa(layer)] }

// changed is the file for the smaller model.
func (c *config) changed(all map[int]*slicing, method string) ([]byte, error) {
	var layers int
	if json.Unmarshal(c.fields["num_hidden_layers"], &layers) != nil || layers < 0 || layers > layerLimit {
		layers = 0
	}
	n := count(all, layers)
	var counts any = n.most
	if !n.equal {
		counts = n.counts
	}
	raw, known, err := c.setAll(c.raw, countFields, counts)
	if err == nil && known == 0 {
		err = badConfig("no number of experts, as any of %v", countFields)
	}
	if err == nil {
		raw, _, err = c.setAll(raw, usedFields, n.used)
	}
	if err != nil {
		return nil, err
	}
	own := c.own
	own.IDs = map[string][]int32{}
	for layer, s := range all {
		if ids := c.ids(layer); !s.changed && ids != nil {
			own.IDs[strconv.Itoa(layer)] = ids
		}
		if !s.changed {
			continue
		}
		var ids []int32
		for _, r := range s.rows {
			ids = append(ids, r.orig)
		}
		own.IDs[strconv.Itoa(layer)] = ids
	}
	if method != "" {
		own.Method = method
	}
	return setField(raw, ownField, own)
}

// setAll changes those fields that are there, and says how many.
func (c *config) setAll(raw []byte, fields []string, value any) (out []byte, known int, err error) {
	for _, field := range fields {
		if old := c.fields[field]; old == nil || string(old) == "null" {
			continue
		}
		if known++; err == nil {
			raw, err = setField(raw, field, value)
		}
	}
	return raw, known, err
}

// setField changes the value of a field of a JSON object, or adds it as the last one. All other bytes stay.
func setField(raw []byte, field string, value any) ([]byte, error) {
	to, err := json.Marshal(value)
	name, err2 := json.Marshal(field)
	if err = errors.Join(err, err2); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	bad := func(err error) ([]byte, error) { return nil, badConfig("no JSON object (%v)", err) }
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return bad(err)
	}
	last, begin, end := 0, -1, 0 // last: where the last value ends
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return bad(err)
		}
		var old json.RawMessage
		if err := dec.Decode(&old); err != nil {
			return bad(err)
		}
		last = int(dec.InputOffset())
		if key != field {
			continue
		}
		if begin >= 0 {
			return nil, badConfig("%s appears twice", field)
		}
		begin, end = last-len(old), last
	}
	if _, err := dec.Token(); err != nil {
		return bad(err)
	}
	if begin < 0 {
		comma := ","
		if last == 0 {
			last, comma = int(dec.InputOffset())-1, ""
		}
		begin, end, to = last, last, fmt.Appendf(nil, "%s\n  %s: %s", comma, name, to)
	}
	return append(append(bytes.Clone(raw[:begin]), to...), raw[end:]...), nil
}
