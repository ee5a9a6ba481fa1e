package main

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// goldCase is a line of a file of cases: a prompt, and what a model ought to say next.
type goldCase struct {
	Prompt string `json:"prompt"`
	Answer string `json:"answer"` // text that follows the prompt as it is: after words it begins with a space
	Chat   bool   `json:"chat"`   // the prompt is a turn of a conversation, and the answer the next one
}

// readCases reads a file of JSON, a case a line; a name that ends in .gz is of a compressed one. Limit is the most cases, 0 for all.
func readCases(path string, limit int) ([]goldCase, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var from io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if from, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	var cases []goldCase
	for in := json.NewDecoder(from); limit == 0 || len(cases) < limit; {
		var c goldCase
		err := in.Decode(&c)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && (c.Prompt == "" || strings.TrimSpace(c.Answer) == "") {
			err = errors.New("it has no prompt, or no answer")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: case %d: %w", path, len(cases)+1, err)
		}
		cases = append(cases, c)
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("%s: no cases", path)
	}
	return cases, nil
}
