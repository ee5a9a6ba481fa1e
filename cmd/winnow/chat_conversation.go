package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

// turn is one message of a conversation.
type turn struct {
	Role    string `json:"role"` // "user" or "assistant", in turns
	Content string `json:"content"`
	Stopped bool   `json:"stopped,omitempty"` // an answer that the user cut short
}

// conversation is a chat so far.
type conversation struct {
	model      *serve.Model
	loaded     time.Duration // how long loading the model took; 0 once it was told
	page       *page
	notes      io.Writer
	system     string
	generation serve.Generation
	turns      []turn
	last       *receipt // of the last answer
	verbose    bool     // print durations after each answer
	receipts   bool     // print the receipt after each answer
}

// messages are the conversation and what is said next, as the model's template takes it.
func (c *conversation) messages(said string) []serve.Turn {
	var all []serve.Turn
	if c.system != "" {
		all = append(all, serve.Turn{Role: "system", Content: c.system})
	}
	for _, t := range c.turns {
		all = append(all, serve.Turn{Role: t.Role, Content: t.Content})
	}
	return append(all, serve.Turn{Role: "user", Content: said})
}

// answer prints the answer to what a user said, as it comes, and keeps both as turns. An answer that ctx cuts short is kept as far as it
// came; with nothing of it there, it is as if nothing was said. A model without a chat template continues the text alone.
func (c *conversation) answer(ctx context.Context, said string) error {
	g := c.generation
	if g.Seed == nil {
		g.Seed = new(rand.Int64())
	}
	got, err := c.print(c.model.Chat(ctx, serve.ChatRequest{Messages: c.messages(said), Generation: g}), g)
	if errors.Is(err, serve.ErrNoTemplate) {
		got, err = c.print(c.model.Complete(ctx, serve.CompletionRequest{Prompt: said, Generation: g}), g)
	}
	stopped := err != nil && ctx.Err() != nil
	if stopped {
		err = context.Cause(ctx)
	}
	if err == nil || stopped && got != "" {
		c.turns = append(c.turns, turn{Role: "user", Content: said}, turn{Role: "assistant", Content: got, Stopped: stopped})
	}
	return err
}

// print shows deltas and returns their text. The answer ends with a line break, its own or one that is added.
func (c *conversation) print(deltas func(func(serve.Delta, error) bool), g serve.Generation) (string, error) {
	var got strings.Builder
	r := &receipt{generation: g}
	var failed error
	for d, err := range deltas {
		if err == nil {
			err = c.page.write(d.Text)
		}
		if failed = err; err != nil {
			break
		}
		got.WriteString(d.Text)
		r.finish, r.usage = d.Finish, d.Usage
	}
	if err := c.page.end(); failed == nil {
		failed = err
	}
	if failed == nil || got.Len() > 0 {
		c.last = r
	}
	if failed == nil {
		failed = c.account(r)
	}
	c.loaded = 0
	return got.String(), failed
}

// account prints what the user wants to know after every answer.
func (c *conversation) account(r *receipt) error {
	if c.verbose {
		r.durations(c.notes, c.loaded)
	}
	if c.receipts {
		return r.print(c.notes, c.model)
	}
	return nil
}

// undo forgets the last question with its answer, and returns the question.
func (c *conversation) undo() (string, error) {
	n := len(c.turns)
	if n < 2 {
		return "", fmt.Errorf("nothing was said yet")
	}
	said := c.turns[n-2].Content
	c.turns, c.last = c.turns[:n-2], nil
	return said, nil
}

// clear forgets what was said, and keeps the system message and the parameters.
func (c *conversation) clear() { c.turns, c.last = nil, nil }
