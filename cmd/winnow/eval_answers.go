package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/text"
)

const (
	answerRows   = 2048 // rows a step: what selectors plan together whose groups are as published
	answerBeyond = 16   // tokens that an answer may have more than the right one
	chatRoom     = 256  // tokens that a template may put around a prompt
)

// answers is the result of asking a model what has a right answer.
type answers struct {
	Model    string  `json:"model"`
	Experts  string  `json:"moe,omitempty"` // as --moe asked
	Sparse   string  `json:"sparse,omitempty"`
	Cases    int     `json:"cases"`
	Accuracy float64 `json:"accuracy"`      // share of the model's answers that have the right one in them
	Starts   float64 `json:"starts"`        // share of those that begin with it
	Nats     float64 `json:"nats"`          // mean over cases of Nats
	Prompt   float64 `json:"prompt_tokens"` // mean

	PromptDensity float64 `json:"prompt_density,omitempty"` // share of the visible keys that prompts read; 0 where no selector served them
	AnswerDensity float64 `json:"answer_density,omitempty"` // likewise of answers

	Recall  float64    `json:"recall,omitempty"` // share of the softmax on them, the mean of what was probed
	Least   float64    `json:"least,omitempty"`  // recall of a probed token
	Probes  int        `json:"probes,omitempty"`
	First   float64    `json:"first_token_seconds"` // mean
	Seconds float64    `json:"seconds"`
	Each    []answered `json:"each"`
}

// answered is what a model makes of one case.
type answered struct {
	Prompt int                 `json:"prompt_tokens"`
	Gold   int                 `json:"answer_tokens"` // of the right answer
	Nats   float64             `json:"nats"`          // mean negative log-likelihood of a token of the right answer, as if it had been generated
	Said   string              `json:"said"`          // the likeliest tokens
	Found  bool                `json:"found"`
	Starts bool                `json:"starts"`
	First  float64             `json:"first_token_seconds"`
	prompt *engine.SparseStats // after the prompt; nil where everything was read
	all    *engine.SparseStats // after the answer
}

func (e *evaluation) runAnswers(c *cobra.Command, name string) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	cases, err := readCases(e.answers, e.limit)
	if err != nil {
		return err
	}
	cfg.Rows = max(cfg.Rows, answerRows)
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	room, err := roomFor(cfg.Models, name, cases)
	if err != nil {
		return err
	}
	talker, err := m.scorer(name, room)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, talker.Close()) }()

	all := answers{Model: name, Experts: askedOf(e.experts), Sparse: cfg.Sparse}
	started := time.Now()
	for i := range cases {
		a, err := e.answer(ctx, talker, m.sparse.Default, &cases[i])
		if err != nil {
			return fmt.Errorf("case %d: %w", i+1, err)
		}
		all.Each = append(all.Each, a)
		log.Info("answer", "case", i+1, "of", len(cases), "found", a.Found, "nats", a.Nats, "prompt_tokens", a.Prompt)
	}
	all.Seconds = time.Since(started).Seconds()
	all.sum()
	if e.asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(&all)
	}
	return all.print(c.OutOrStdout())
}

// roomFor is how many tokens the longest case and its answer have together.
func roomFor(models, name string, cases []goldCase) (int, error) {
	c, err := openCheckpoint(models, name)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	tok, _, err := serve.Text(c)
	if err != nil {
		return 0, err
	}
	room := 0
	for _, g := range cases {
		n := len(tok.Encode(nil, text.Span{Text: g.Prompt})) + len(tok.Encode(nil, text.Span{Text: g.Answer})) + answerBeyond + 1
		if g.Chat {
			n += chatRoom
		}
		room = max(room, n)
	}
	return room, nil
}

// answer has a model answer a case, and scores the right answer after the same prompt, which by then is in the cache.
func (e *evaluation) answer(ctx context.Context, m *serve.Model, reads model.Sparsity, g *goldCase) (answered, error) {
	gold, prompt := m.Tokenizer().Encode(nil, text.Span{Text: g.Answer}), m.Encode(g.Prompt)
	if g.Chat {
		var err error
		if prompt, err = m.Prompt(ctx, serve.ChatRequest{Messages: []serve.Turn{{Role: "user", Content: g.Prompt}}}); err != nil {
			return answered{}, err
		}
	}
	a := answered{Prompt: len(prompt), Gold: len(gold)}
	reading, err := reads.Reading(len(prompt))
	if err != nil {
		return a, err
	}
	request := engine.Request{
		Prompt: prompt, MaxTokens: len(gold) + answerBeyond, Stop: endsOf(m), Alternatives: -1, Reads: reading, Experts: e.experts,
	}
	var said []int32
	for t, err := range m.Engine().Generate(ctx, request) {
		if err != nil {
			return a, err
		}
		if said = append(said, t.ID); t.Stats != nil {
			a.see(t.Stats)
		}
	}
	a.Said = m.Decode(said)
	want, have := strings.TrimSpace(g.Answer), strings.TrimSpace(a.Said)
	a.Found, a.Starts = strings.Contains(have, want), strings.HasPrefix(have, want)
	s := engine.Scoring{
		IDs: slices.Concat(prompt, gold[:len(gold)-1]), Prompt: len(prompt), From: len(prompt) - 1, Experts: e.experts, Reads: reading,
	}
	vocab := m.Spec().Vocab
	err = m.Engine().Score(ctx, s, func(first int, logits []float32) {
		for row := range len(logits) / vocab {
			a.Nats += surprise(logits[row*vocab:(row+1)*vocab], gold[first+row-s.From]) / float64(len(gold))
		}
	})
	return a, err
}

// endsOf are the ids that end what a model says.
func endsOf(m *serve.Model) []int32 {
	return slices.DeleteFunc(m.Tokenizer().Vocab().EndIDs(), func(id int32) bool { return int(id) >= m.Spec().Vocab })
}

// see takes in what the engine says with a token: with the first one, of the prompt.
func (a *answered) see(s *engine.Stats) {
	a.First = (s.Queued + s.Prefill).Seconds()
	if s.Sparse == nil {
		return
	}
	if a.all = s.Sparse; a.prompt == nil {
		a.prompt = s.Sparse
	}
}

// sum makes the means of all cases.
func (a *answers) sum() {
	var prompts, all engine.SparseStats
	n := float64(len(a.Each))
	a.Cases, a.Least = len(a.Each), 1
	for _, c := range a.Each {
		a.Nats, a.Prompt, a.First = a.Nats+c.Nats/n, a.Prompt+float64(c.Prompt)/n, a.First+c.First/n
		if c.Found {
			a.Accuracy += 1 / n
		}
		if c.Starts {
			a.Starts += 1 / n
		}
		if c.all != nil {
			prompts.Read, prompts.Visible = prompts.Read+c.prompt.Read, prompts.Visible+c.prompt.Visible
			all.Read, all.Visible, all.Probes, all.Mass = all.Read+c.all.Read, all.Visible+c.all.Visible, all.Probes+c.all.Probes, all.Mass+c.all.Mass
			a.Least = min(a.Least, c.all.Least)
		}
	}
	a.PromptDensity = prompts.Read / max(prompts.Visible, 1)
	a.AnswerDensity = (all.Read - prompts.Read) / max(all.Visible-prompts.Visible, 1)
	if a.Probes = all.Probes; a.Probes > 0 {
		a.Recall = all.Recall()
	} else {
		a.Least = 0
	}
}

func (a *answers) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%.1f %% of %d answers are right, %.1f %% begin with the right one; it has %.4f nats a token\n", 100*a.Accuracy, a.Cases, 100*a.Starts, a.Nats)
	fmt.Fprintf(&b, "prompts of %.0f tokens, %.2f s to the first token\n", a.Prompt, a.First)
	if a.PromptDensity > 0 {
		fmt.Fprintf(&b, "%.2f %% of the keys are read in prompts\n", 100*a.PromptDensity)
	}
	if a.AnswerDensity > 0 {
		fmt.Fprintf(&b, "%.2f %% of the keys are read in answers\n", 100*a.AnswerDensity)
	}
	if a.Probes > 0 {
		fmt.Fprintf(&b, "%.2f %% of the softmax where %d tokens were probed, at least %.2f %%\n", 100*a.Recall, a.Probes, 100*a.Least)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
