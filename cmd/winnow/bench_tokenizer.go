package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

// textResult is one test of what stands between strings and ids. It runs on one goroutine.
type textResult struct {
	Test     string    `json:"test"`
	Bytes    int       `json:"bytes"`  // of the text
	Tokens   int       `json:"tokens"` // that it has
	Seconds  float64   `json:"seconds"`
	SamplesS []float64 `json:"samples_s"` // Seconds is their median
	MBs      float64   `json:"mb_s"`
	TokensS  float64   `json:"tokens_s"`
	NsPerTok float64   `json:"ns_token"`
}

// documentBytes is the size of a document where a text is encoded by documents, as requests are.
const documentBytes = 2 << 10

// mostTextBytes is how much of a text is measured.
const mostTextBytes = 1 << 20

// runTokenizer measures MODEL's tokenizer and chat template, without its network.
func (b *benchmark) runTokenizer(c *cobra.Command, name string) error {
	cfg, _, err := settings(c)
	if err != nil {
		return err
	}
	started := time.Now()
	tok, tmpl, err := openText(cfg.Models, name)
	if err != nil {
		return err
	}
	loaded := time.Since(started)
	sample, err := b.sampleText(tok)
	if err != nil {
		return err
	}
	results := b.textTests(tok, sample)
	if tmpl != nil {
		r, err := b.renderTest(tok, tmpl)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	if b.asJSON || b.form == "json" {
		return writeJSON(c.OutOrStdout(), results)
	}
	return printText(c.OutOrStdout(), name, loaded, results)
}

// openText reads the tokenizer and the template of MODEL, or of a folder that has no weights by its tokenizer.json or tokenizer.model.
func openText(models, name string) (text.Tokenizer, *text.Template, error) {
	base := filepath.Base(name)
	if base != "tokenizer.json" && base != "tokenizer.model" {
		c, err := openCheckpoint(models, name)
		if err != nil {
			return nil, nil, err
		}
		tok, tmpl, err := serve.Text(c)
		return tok, tmpl, errors.Join(err, c.Close())
	}
	c := &store.Checkpoint{Path: name, Kind: store.HF, Files: map[string][]byte{}}
	for _, f := range []string{base, "tokenizer_config.json", "chat_template.jinja"} {
		raw, err := os.ReadFile(filepath.Join(filepath.Dir(name), f))
		if err == nil {
			c.Files[f] = raw
		} else if f == base || !errors.Is(err, os.ErrNotExist) {
			return nil, nil, err
		}
	}
	return serve.Text(c)
}

// sampleText is the beginning of the file that was given, or words of the vocabulary, common ones often: ids are in the order in which
// training found them, so small ones are common.
func (b *benchmark) sampleText(tok text.Tokenizer) (string, error) {
	if b.text != "" {
		f, err := os.Open(b.text)
		if err != nil {
			return "", err
		}
		defer f.Close()
		raw, err := io.ReadAll(io.LimitReader(f, mostTextBytes))
		if err != nil {
			return "", err
		}
		if len(raw) == 0 {
			return "", fmt.Errorf("bench: %s is empty", b.text)
		}
		return strings.ToValidUTF8(string(raw), ""), nil
	}
	v := tok.Vocab()
	draw := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.05, 50, uint64(len(v.Tokens)-1))
	var words strings.Builder
	for range mostTextBytes / 4 {
		id := int32(draw.Uint64())
		if piece := tok.Piece(id); len(v.Types) == 0 || v.Types[id] == text.TypeNormal {
			words.Write(piece)
		}
	}
	s := strings.ToValidUTF8(words.String(), "")
	if s == "" {
		return "", errors.New("bench: the vocabulary has no words to make a text of: --text names a file")
	}
	return s, nil
}

// textTests encodes a text whole and by documents, and decodes it.
func (b *benchmark) textTests(tok text.Tokenizer, s string) []textResult {
	var ids []int32
	encode := func(s string) { ids = tok.Encode(ids[:0], text.Span{Text: s, Input: true}) }
	whole := textResult{Test: "encode", Bytes: len(s)}
	whole.measure(b.repetitions, func() { encode(s) })
	whole.rate(len(ids))
	all := slices.Clone(ids)

	parts := textResult{Test: fmt.Sprintf("encode by %d KiB", documentBytes>>10), Bytes: len(s)}
	tokens := 0
	parts.measure(b.repetitions, func() {
		tokens = 0
		for i := 0; i < len(s); i += documentBytes {
			encode(s[i:min(i+documentBytes, len(s))])
			tokens += len(ids)
		}
	})
	parts.rate(tokens)

	back := textResult{Test: "decode", Bytes: len(s)}
	back.measure(b.repetitions, func() {
		d := text.NewDecoder(tok)
		for _, id := range all {
			d.Next(id)
		}
		d.Flush()
	})
	back.rate(len(all))
	return []textResult{whole, parts, back}
}

// renderTest renders a chat of twenty messages.
func (b *benchmark) renderTest(tok text.Tokenizer, tmpl *text.Template) (textResult, error) {
	var turns []serve.Turn
	for i := range 10 {
		turns = append(turns,
			serve.Turn{Role: "user", Content: fmt.Sprintf("What is %d times %d? %s", i, i+1, strings.Repeat("Say how you know. ", 20))},
			serve.Turn{Role: "assistant", Content: fmt.Sprintf("It is %d. %s", i*(i+1), strings.Repeat("I add it up, one by one. ", 20))})
	}
	vars := text.Dict(
		text.Pair{Key: "messages", Value: serve.Conversation(turns)},
		text.Pair{Key: "tools", Value: text.None},
		text.Pair{Key: "bos_token", Value: text.String("")},
		text.Pair{Key: "eos_token", Value: text.String("")},
		text.Pair{Key: "add_generation_prompt", Value: text.Bool(true)})
	r := textResult{Test: fmt.Sprintf("render %d messages", len(turns))}
	spans, err := tmpl.Render(vars, text.Limits{})
	if err != nil {
		return r, err
	}
	for _, s := range spans {
		r.Bytes += len(s.Text)
	}
	r.measure(b.repetitions, func() { spans, err = tmpl.Render(vars, text.Limits{}) })
	r.rate(len(tok.Encode(nil, spans...)))
	return r, err
}

// measure takes the samples, each long enough for the clock.
func (r *textResult) measure(repetitions int, work func()) {
	const shortest = 20 * time.Millisecond
	times := 1
	for range 2 { // warms up and finds how often a sample does the work
		started := time.Now()
		work()
		times = int(shortest/max(time.Since(started), 1)) + 1
	}
	for range repetitions {
		started := time.Now()
		for range times {
			work()
		}
		r.SamplesS = append(r.SamplesS, time.Since(started).Seconds()/float64(times))
	}
	sorted := slices.Sorted(slices.Values(r.SamplesS))
	r.Seconds = sorted[len(sorted)/2]
}

func (r *textResult) rate(tokens int) {
	r.Tokens = tokens
	r.MBs = float64(r.Bytes) / r.Seconds / 1e6
	r.TokensS = float64(tokens) / r.Seconds
	r.NsPerTok = r.Seconds * 1e9 / float64(max(1, tokens))
}

func printText(out io.Writer, name string, loaded time.Duration, results []textResult) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "test\tbytes\ttokens\tµs\tMB/s\ttokens/s\tns/token\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%.1f\t%.0f\t%.1f\t\n", r.Test, r.Bytes, r.Tokens, r.Seconds*1e6, r.MBs, r.TokensS, r.NsPerTok)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s, read in %.0f ms; one goroutine, medians\n", name, loaded.Seconds()*1e3)
	return err
}
