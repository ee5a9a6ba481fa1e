// The program is OpenAI's Go quick start against a running server: models, chat, stream with the accumulator, and an error.
//
//	go run . BASE_URL MODEL
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: go run . BASE_URL MODEL")
	}
	client := openai.NewClient(option.WithBaseURL(os.Args[1]), option.WithAPIKey("any"), option.WithMaxRetries(0))
	if err := quickStart(context.Background(), client, os.Args[2]); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ok")
}

func quickStart(ctx context.Context, client openai.Client, model string) error {
	models, err := client.Models.List(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(models.Data, func(m openai.Model) bool { return m.ID == model }) {
		return fmt.Errorf("the list lacks %s: %+v", model, models.Data)
	}

	params := openai.ChatCompletionNewParams{
		Messages:    []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Tell me a story about a cat.")},
		Model:       model,
		MaxTokens:   openai.Int(24),
		Temperature: openai.Float(0),
	}
	chat, err := client.Chat.Completions.New(ctx, params)
	if err != nil {
		return err
	}
	answer, usage := chat.Choices[0].Message.Content, chat.Usage
	if answer == "" || chat.Choices[0].FinishReason == "" || usage.TotalTokens != usage.PromptTokens+usage.CompletionTokens {
		return fmt.Errorf("chat: %s", chat.RawJSON())
	}
	if err := stream(ctx, client, params, answer); err != nil {
		return err
	}

	params.Model = "no-such-model"
	_, err = client.Chat.Completions.New(ctx, params)
	var apierr *openai.Error
	if !errors.As(err, &apierr) || apierr.StatusCode != 404 || apierr.Code != "model_not_found" {
		return fmt.Errorf("an unknown model: %w", err)
	}
	return nil
}

// stream asks for the same answer in pieces.
func stream(ctx context.Context, client openai.Client, params openai.ChatCompletionNewParams, answer string) error {
	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := client.Chat.Completions.NewStreaming(ctx, params)
	acc, pieces, finished := openai.ChatCompletionAccumulator{}, 0, ""
	for stream.Next() {
		chunk := stream.Current()
		if !acc.AddChunk(chunk) {
			return fmt.Errorf("stream: a chunk that does not fit the ones before: %s", chunk.RawJSON())
		}
		if content, ok := acc.JustFinishedContent(); ok {
			finished = content
		}
		if len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			pieces++
		}
	}
	if err := errors.Join(stream.Err(), stream.Close()); err != nil {
		return err
	}
	if got := acc.Choices[0].Message.Content; got != answer || finished != answer || pieces < 2 || acc.Usage.CompletionTokens == 0 {
		return fmt.Errorf("stream: %d pieces of %q, finished as %q, want %q; usage %+v", pieces, got, finished, answer, acc.Usage)
	}
	return nil
}
