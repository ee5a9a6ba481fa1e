package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/text"
)

// wishes are what a user asks of the answers of winnow run.
type wishes struct {
	system      string
	temperature float32
	seed        int64
	maxTokens   int
	verbose     bool
}

func runVerb() *cobra.Command {
	var w wishes
	c := &cobra.Command{
		Use:   "run MODEL [PROMPT...]",
		Short: "Chat with a model on a terminal, or answer standard input when it is piped",
		Long: `On a terminal, run is a chat: Ctrl-C stops an answer, Ctrl-D or /bye ends. With a PROMPT, or with something piped into it, it
answers once and prints nothing but the answer. A model without a chat template continues the text it is given.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return run(c, args, &w) },
	}
	c.Flags().StringVar(&w.system, "system", "", "system message before the conversation")
	c.Flags().Float32Var(&w.temperature, "temperature", 0, "0 takes the likeliest token (default: as the model's files say)")
	c.Flags().Int64Var(&w.seed, "seed", 0, "the same seed gives the same answers (default: another one each time)")
	c.Flags().IntVar(&w.maxTokens, "max-tokens", 0, "longest answer; 0 = as long as the context has room")
	c.Flags().BoolVar(&w.verbose, "verbose", false, "print token counts and speed after each answer, on standard error")
	configs.Flags(c.Flags(), "models", "threads", "cpu", "dtype", "context", "cache_bytes", "log")
	return c
}

func run(c *cobra.Command, args []string, w *wishes) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	if cfg.Sequences == 0 {
		cfg.Sequences = 1
	}
	once, err := prompt(c.InOrStdin(), args[1:])
	if err != nil {
		return err
	}
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	model, err := m.serve(args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()

	chat := &conversation{model: model, out: c.OutOrStdout(), notes: c.ErrOrStderr(), verbose: w.verbose, system: w.system}
	chat.generation.MaxTokens = w.maxTokens
	if c.Flags().Changed("temperature") {
		chat.generation.Temperature = &w.temperature
	}
	if c.Flags().Changed("seed") {
		chat.generation.Seed = &w.seed
	}
	chat.clear()
	if once != nil {
		ctx, stop := interruptible(c)
		defer stop()
		return chat.answer(ctx, *once)
	}
	return chat.converse(c.Context(), os.Stdin)
}

// prompt is what to answer once: the words of the command line, and what is piped in before them, without the line break that ends a file.
// Nil: a terminal is there to chat on.
func prompt(in io.Reader, words []string) (*string, error) {
	said := strings.Join(words, " ")
	if f, ok := in.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		piped, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("read the prompt: %w", err)
		}
		text := strings.TrimSuffix(strings.TrimSuffix(string(piped), "\n"), "\r")
		if said != "" && text != "" {
			said = "\n\n" + said
		}
		said = text + said
	} else if said == "" {
		return nil, nil
	}
	return &said, nil
}

// conversation is a chat so far.
type conversation struct {
	model      *serve.Model
	out, notes io.Writer
	verbose    bool
	system     string
	generation serve.Generation
	messages   []text.Value
}

// clear forgets everything but the system message.
func (c *conversation) clear() {
	c.messages = nil
	if c.system != "" {
		c.messages = append(c.messages, serve.Message("system", c.system))
	}
}

// answer prints the answer to what a user said, as it comes, and keeps both as turns of the conversation. An answer that ctx cuts short
// is kept as far as it came. A model without a chat template continues the text alone.
func (c *conversation) answer(ctx context.Context, said string) error {
	asked := append(c.messages, serve.Message("user", said))
	got, err := c.print(c.model.Chat(ctx, serve.ChatRequest{Messages: text.List(asked...), Generation: c.generation}))
	if errors.Is(err, serve.ErrNoTemplate) {
		_, err = c.print(c.model.Complete(ctx, serve.CompletionRequest{Prompt: said, Generation: c.generation}))
		return err
	}
	if err == nil || ctx.Err() != nil {
		c.messages = append(asked, serve.Message("assistant", got))
	}
	return err
}

// print shows deltas and returns their text. The answer ends with a line break, its own or one that is added.
func (c *conversation) print(deltas func(func(serve.Delta, error) bool)) (string, error) {
	var got strings.Builder
	var usage *serve.Usage
	var failed error
	for d, err := range deltas {
		if err == nil {
			_, err = io.WriteString(c.out, d.Text)
		}
		if failed = err; err != nil {
			break
		}
		got.WriteString(d.Text)
		usage = d.Usage
	}
	if s := got.String(); s != "" && !strings.HasSuffix(s, "\n") {
		if _, err := io.WriteString(c.out, "\n"); failed == nil {
			failed = err
		}
	}
	if usage != nil && c.verbose {
		rate := float64(usage.Completion-1) / max(1e-9, (usage.Total-usage.First).Seconds())
		fmt.Fprintf(c.notes, "prompt %d tokens, %d of them cached, first answer after %s; %d tokens at %.1f a second\n",
			usage.Prompt, usage.Cached, usage.First.Round(time.Millisecond), usage.Completion, max(0, rate))
	}
	return got.String(), failed
}
