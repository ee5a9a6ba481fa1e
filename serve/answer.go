package serve

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"unicode/utf8"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/text"
)

// answer generates what follows a prompt, with the thoughts between tags apart. Leaving the loop early ends the generation and frees what
// it held. Stop strings hold for thoughts as for the rest.
func (m *Model) answer(ctx context.Context, prompt []int32, t tags, g Generation) iter.Seq2[Delta, error] {
	return func(yield func(Delta, error) bool) {
		usage := Usage{Prompt: len(prompt)}
		req, err := m.request(prompt, &g)
		if err != nil {
			yield(Delta{}, err)
			return
		}
		var held Delta // what is shown with the next piece of text
		if held.Prompt, err = m.promptLogprobs(ctx, prompt, &g); err != nil {
			yield(Delta{}, err)
			return
		}
		w, s := newWriter(m.tok, prompt, m.stops(&g)), newSplitter(t)
		w.spoken = t.spoken(m.tok)
		var ids []int32
		for t, err := range m.engine.Generate(ctx, req) {
			if err != nil {
				yield(Delta{}, refusedRoutes(err))
				return
			}
			usage.Completion++
			usage.drafted(&t)
			usage.timed(t.Stats)
			if g.ReturnIDs {
				ids = append(ids, t.ID)
			}
			d := w.push(m.piece(t, &g))
			if d.Finish = w.finish(string(t.Finish)); d.Finish != "" {
				d.add(w.flush())
				d.Usage = &usage
			}
			if s.split(&d) {
				usage.Reasoning = usage.Completion
			}
			if held.add(d); held.Text == "" && held.Reasoning == "" && held.Finish == "" {
				continue
			}
			if g.ReturnIDs && held.Finish != "" {
				held.IDs = slices.Concat(prompt, ids)
			}
			if d, held = held, (Delta{}); !yield(d, nil) || d.Finish != "" {
				return
			}
		}
	}
}

// stops are the strings that end an answer: the request's, else the model's own.
func (m *Model) stops(g *Generation) []string {
	if g.Stop != nil {
		return g.Stop
	}
	return m.own.stop
}

// window is the most tokens of prompt and answer together.
func (m *Model) window(g *Generation) int {
	if n := cmp.Or(g.Context, m.own.context); n > 0 {
		return min(n, m.context)
	}
	return m.context
}

// checkIDs refuses ids of the field param that the model does not have.
func (m *Model) checkIDs(param string, ids []int32) error {
	for i, id := range ids {
		if id < 0 || int(id) >= m.spec.Vocab {
			return &RequestError{Param: param, Why: fmt.Sprintf("id %d at place %d is outside the vocabulary of %d", id, i, m.spec.Vocab)}
		}
	}
	return nil
}

// request checks a generation and puts it in the engine's words.
func (m *Model) request(prompt []int32, g *Generation) (engine.Request, error) {
	if len(prompt) == 0 {
		return engine.Request{}, &RequestError{Param: "prompt", Why: "it has no tokens"}
	}
	if err := m.checkIDs("stop_token_ids", g.StopIDs); err != nil {
		return engine.Request{}, err
	}
	room := m.window(g) - len(prompt)
	if room <= 0 {
		return engine.Request{}, &ContextError{Prompt: len(prompt), Context: m.window(g)}
	}
	most := cmp.Or(g.MaxTokens, m.own.maxTokens)
	if most == 0 || most > room {
		most = room
	}
	sampling := m.sampling(g)
	var err error
	if sampling.Bias, err = m.biases(g); err != nil {
		return engine.Request{}, err
	}
	req := engine.Request{
		Prompt: prompt, MaxTokens: most, MinTokens: g.MinTokens, Priority: g.Priority, Sampling: sampling, Alternatives: -1,
	}
	if req.Experts, err = m.experts(g); err != nil {
		return engine.Request{}, err
	}
	if req.Reads, err = m.reading(g, len(prompt)); err != nil {
		return engine.Request{}, err
	}
	req.Counted = g.Experts != nil
	req.Routes = req.Counted && g.Experts.ReturnIDs
	if g.Drafts != nil {
		req.Draft = cmp.Or(*g.Drafts, -1)
	}
	if g.Expected != "" {
		req.Expected = m.tok.Encode(nil, text.Span{Text: g.Expected})
	}
	if g.Logprobs != nil {
		req.Alternatives = min(*g.Logprobs, MostAlternatives)
	}
	if !g.IgnoreEnd {
		req.Stop = slices.Clone(m.ends)
	}
	req.Stop = append(append(req.Stop, g.StopIDs...), m.silentStops(g)...)
	return req, nil
}

// silentStops are the control tokens among the stop strings: decoding leaves them out, so that no text would show them.
func (m *Model) silentStops(g *Generation) (ids []int32) {
	for _, s := range m.stops(g) {
		one := m.tok.Encode(nil, text.Span{Text: s})
		if len(one) == 1 && string(m.tok.Piece(one[0])) == s && m.Decode(one) == "" && int(one[0]) < m.spec.Vocab {
			ids = append(ids, one[0])
		}
	}
	return ids
}

// piece is a token with its bytes and, if asked for, its log-probabilities.
type piece struct {
	TokenLogprob
	wanted bool // its log-probabilities were asked for
	ends   bool // it ends the answer and is no part of it
}

func (m *Model) piece(t engine.Token, g *Generation) piece {
	p := piece{wanted: g.Logprobs != nil, ends: t.Finish == engine.Stop}
	p.TokenLogprob = TokenLogprob{ID: t.ID, Bytes: m.tok.Piece(t.ID), Logprob: t.Logprob}
	for _, b := range t.Best {
		p.Top = append(p.Top, TokenLogprob{ID: b.ID, Bytes: m.tok.Piece(b.ID), Logprob: b.Logprob})
	}
	return p
}

// writer turns tokens into text that may be shown: whole runes, nothing of a stop string. It keeps each token with the text it
// adds. One goroutine.
type writer struct {
	decoder *text.Decoder
	stops   *text.Stops
	spoken  map[int32]string // control tokens whose text counts, by id
	stopped bool
	held    []heldToken // not yet shown, in order
	decoded int         // bytes of text made by all tokens
	shown   int         // of these, bytes that were returned
}

// heldToken is a token and the place of its text in the answer.
type heldToken struct {
	TokenLogprob
	from, to int // bytes; to lies behind what is decoded while the token's last rune is unfinished
}

func newWriter(tok text.Tokenizer, prompt []int32, stop []string) *writer {
	w := &writer{decoder: text.NewDecoder(tok), stops: text.NewStops(stop)}
	w.decoder.Continue(prompt)
	return w
}

// push takes the next token and returns what became certain.
func (w *writer) push(p piece) Delta {
	if p.ends {
		return Delta{}
	}
	added := w.decoder.Next(p.ID)
	if added == "" {
		added = w.spoken[p.ID]
	}
	if p.wanted {
		w.hold(p.TokenLogprob, added)
	}
	w.decoded += len(added)
	return w.pass(added)
}

// hold keeps a token until its text is shown. A token without text is a control token, which is no part of the answer, or the
// beginning of a rune, which is shown with its end.
func (w *writer) hold(t TokenLogprob, added string) {
	if len(t.Bytes) > 0 && t.Bytes[0] == ' ' && added == string(t.Bytes[1:]) {
		t.Bytes = t.Bytes[1:] // the space that only marks the beginning of a text
	}
	to := w.decoded + len(added)
	if added == "" {
		if utf8.Valid(t.Bytes) {
			return
		}
		to++
	}
	w.held = append(w.held, heldToken{t, w.decoded, to})
}

// pass gives text to the stop strings and returns what they let through, with its tokens.
func (w *writer) pass(s string) Delta {
	out, stopped := w.stops.Push(s)
	w.stopped = stopped
	return w.show(out)
}

func (w *writer) show(out string) Delta {
	d := Delta{Text: out}
	w.shown += len(out)
	for len(w.held) > 0 && w.held[0].to <= w.shown {
		d.Tokens = append(d.Tokens, w.held[0].TokenLogprob)
		w.held = w.held[1:]
	}
	return d
}

// finish is why the answer ends with the token just pushed, "" if it does not.
func (w *writer) finish(reason string) string {
	if w.stopped {
		return FinishStop
	}
	return reason
}

// flush ends the answer and returns what was held back: all of it, or, before a stop string, the part of a token that stands there.
func (w *writer) flush() Delta {
	var d Delta
	if !w.stopped {
		rest := w.decoder.Flush()
		w.decoded += len(rest)
		d.add(w.pass(rest))
	}
	if !w.stopped {
		d.add(w.show(w.stops.Flush()))
		for _, t := range w.held {
			d.Tokens = append(d.Tokens, t.TokenLogprob)
		}
	} else if len(w.held) > 0 && w.held[0].from < w.shown {
		t := w.held[0].TokenLogprob
		t.Bytes = t.Bytes[:min(len(t.Bytes), w.shown-w.held[0].from)]
		d.Tokens = append(d.Tokens, t)
	}
	return d
}
