package httpapi

import (
	"encoding/json"
	"math"
	"strings"

	"github.com/winnow-llm/winnow/serve"
)

// readDrafts reads what a client says of the tokens to come: OpenAI's prediction, a text of which the answer may have much, and llama.cpp's
// speculative.n_max, how many tokens are drafted at once.
func readDrafts(o *object, g *serve.Generation) {
	if most := o.integer("speculative.n_max", 0, math.MaxInt32); most != nil {
		g.Drafts = new(int(*most))
	}
	p := o.inner("prediction")
	if p == nil {
		return
	}
	if kind := p.text("type"); kind != nil && *kind != "content" {
		p.bad("type", "must be \"content\"")
	}
	raw := p.raw("content")
	if raw == nil || raw[0] == '"' {
		g.Expected = first(p.text("content"), "")
		return
	}
	var all strings.Builder
	for _, part := range p.list("content") {
		var piece struct{ Type, Text string }
		if err := json.Unmarshal(part, &piece); err != nil || piece.Type != "text" {
			p.bad("content", "must be a string or an array of parts of type \"text\"")
			return
		}
		all.WriteString(piece.Text)
	}
	g.Expected = all.String()
}
