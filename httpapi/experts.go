package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"github.com/winnow-llm/winnow/serve"
)

// mostTopK bounds numbers of experts, and mostLayers how many numbers there may be; what the model can do shows later.
const (
	mostTopK   = 1 << 10
	mostLayers = 1 << 10

	mostExpertMemory = 1 << 50 // bytes
)

// readExperts reads moe: with how few experts the tokens make do. Whether the model has experts shows later.
func readExperts(o *object) *serve.Experts {
	in := o.inner("moe")
	if in == nil {
		return nil
	}
	x := &serve.Experts{
		TopK: in.topK("top_k"), MinP: first(in.number("min_p", 0, 1), 0), Mass: first(in.share("mass"), 0),
		SkipBeta: first(in.number("skip_beta", 0, 1), 0), ReturnIDs: in.flag("return_ids"),
	}
	for _, name := range in.unseen() {
		in.bad(fmt.Sprintf("%.64q", name), "is unknown: there are top_k, min_p, mass, skip_beta, return_ids")
	}
	return x
}

// topK is a number of experts, or one for each layer of experts.
func (o *object) topK(name string) []int {
	raw := o.raw(name)
	if raw == nil {
		return nil
	}
	if raw[0] != '[' {
		if k := o.integer(name, 1, mostTopK); k != nil {
			return []int{int(*k)}
		}
		return nil
	}
	list := o.list(name)
	if len(list) == 0 || len(list) > mostLayers {
		o.bad(name, "must be a number, or one for each layer of experts")
		return nil
	}
	out := make([]int, len(list))
	for i, one := range list {
		k, err := strconv.ParseInt(string(one), 10, 32)
		if err != nil || k < 1 || k > mostTopK {
			o.bad(fmt.Sprintf("%s[%d]", name, i), "must be from 1 to %d", mostTopK)
			return nil
		}
		out[i] = int(k)
	}
	return out
}

// expertUsage is what experts did, over all layers and all tokens that were computed.
type expertUsage struct {
	PerToken float64 `json:"experts_per_token"` // of each layer, the mean
	Distinct int     `json:"distinct_experts"`  // those of each layer by themselves; of several answers, of the one with most
	Mass     float64 `json:"mass_kept"`         // share of the factors of the experts that the model would have run by itself, the mean
	Skipped  int64   `json:"skipped"`           // experts that the model would have run beside these
}

// tallyExperts sums up answers; nil where nobody asked.
func tallyExperts(all []serve.Usage) *expertUsage {
	var u expertUsage
	var rows, chosen int64
	asked := false
	for _, one := range all {
		x := one.Experts
		if x == nil {
			continue
		}
		asked = true
		rows, chosen = rows+x.Rows, chosen+x.Chosen
		u.Distinct, u.Mass, u.Skipped = max(u.Distinct, x.Distinct), u.Mass+x.Mass, u.Skipped+x.Skipped
	}
	if !asked {
		return nil
	}
	if rows > 0 {
		u.PerToken, u.Mass = float64(chosen)/float64(rows), u.Mass/float64(rows)
	}
	return &u
}

// choiceExpert are the experts of an answer's tokens.
type choiceExpert struct {
	IDs json.RawMessage `json:"ids"` // by token of prompt and answer, by layer of experts: ids in the order of choice; null for a token that was not computed
}

// newChoiceExpert lists experts; nil where nobody asked for ids.
func newChoiceExpert(u *serve.Usage) *choiceExpert {
	if u == nil || u.Experts == nil || u.Experts.IDs == nil {
		return nil
	}
	x, width := u.Experts, 0
	for _, k := range x.K {
		width += k
	}
	out := make([]byte, 0, 4*len(x.IDs))
	out = append(out, '[')
	for from := 0; from+width <= len(x.IDs); from += width {
		if from > 0 {
			out = append(out, ',')
		}
		out = appendToken(out, x.IDs[from:from+width], x.K)
	}
	return &choiceExpert{append(out, ']')}
}

// appendToken writes the experts of one token, whose layers have ks places each.
func appendToken(out []byte, ids []uint16, ks []int) []byte {
	start, any := len(out), false
	out = append(out, '[')
	for i, k := range ks {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '[')
		for place, id := range ids[:k] {
			if id == serve.NoExpert {
				break
			}
			if place > 0 {
				out = append(out, ',')
			}
			out, any = strconv.AppendUint(out, uint64(id), 10), true
		}
		out, ids = append(out, ']'), ids[k:]
	}
	if !any {
		return append(out[:start], "null"...)
	}
	return append(out, ']')
}

// layerHeat is a line of the heat map.
type layerHeat struct {
	Layer     int     `json:"layer"`
	Tokens    int64   `json:"tokens"`
	NaN       int64   `json:"router_nan"`
	Variation float64 `json:"load_cv"`
	Unique    float64 `json:"unique_experts_per_step"` // lately, the mean
	Experts   []int64 `json:"experts"`                 // how many tokens chose each, by its row of the router
	// Drift is how far the last tokens' choices are from those of the model's profile, and RecentTokens how many these are; nil without a profile.
	Drift        *float64 `json:"drift,omitempty"`
	RecentTokens *int64   `json:"recent_tokens,omitempty"`

	Resident *residentHeat `json:"resident,omitempty"` // where not all experts are in memory
}

// residentHeat is what a layer did whose experts are read when tokens choose them.
type residentHeat struct {
	Slots  int   `json:"slots"` // experts that there is room for
	Hits   int64 `json:"hits"`  // experts that a step needed and that were in memory
	Misses int64 `json:"misses"`
	Bytes  int64 `json:"read_bytes"`
}

type modelHeat struct {
	Model  string      `json:"model"`
	Layers []layerHeat `json:"layers"`
}

// experts is the heat map of all loaded models that have experts: which of them ran since the model was loaded.
func (s *Server) experts(c *gin.Context) {
	all := struct {
		Models []modelHeat `json:"models"`
	}{[]modelHeat{}}
	for _, l := range s.pool.Loaded() {
		if len(l.Experts) == 0 {
			continue
		}
		m := modelHeat{Model: l.Name}
		for i := range l.Experts {
			x := &l.Experts[i]
			heat := layerHeat{Layer: x.Layer, Tokens: x.Rows, NaN: x.NaN, Variation: x.Variation(), Experts: x.Chosen}
			if x.Steps > 0 {
				heat.Unique = x.Unique()
			}
			if heat.Drift = l.Drift(x); heat.Drift != nil {
				heat.RecentTokens = new(int64(x.RecentRows))
			}
			if t := x.Traffic; t != nil {
				heat.Resident = &residentHeat{Slots: t.Slots, Hits: t.Hits, Misses: t.Misses, Bytes: t.Bytes}
			}
			m.Layers = append(m.Layers, heat)
		}
		all.Models = append(all.Models, m)
	}
	s.answer(c, http.StatusOK, all)
}

// resizeExperts gives the experts of a model that reads them another amount of memory.
func (s *Server) resizeExperts(c *gin.Context) {
	body, err := s.body(c)
	if err != nil {
		s.fail(c, err)
		return
	}
	o, err := parseObject(body)
	if err != nil {
		s.fail(c, err)
		return
	}
	name, bytes := o.text("model"), o.integer("expert_memory", 1, mostExpertMemory)
	if name == nil {
		o.bad("model", "is missing")
	}
	if bytes == nil {
		o.bad("expert_memory", "is missing: it is a number of bytes")
	}
	for _, other := range o.unseen() {
		o.bad(fmt.Sprintf("%.64q", other), "is unknown: there are model and expert_memory")
	}
	if err := o.err(); err != nil {
		s.fail(c, err)
		return
	}
	took, err := s.pool.ResizeExperts(c.Request.Context(), *name, *bytes)
	if err != nil {
		s.fail(c, err)
		return
	}
	s.answer(c, http.StatusOK, struct {
		Model string `json:"model"`
		Bytes int64  `json:"expert_memory"`
	}{*name, took})
}
