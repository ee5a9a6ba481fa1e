package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"unicode/utf8"

	"github.com/winnow-llm/winnow/text"
)

// corpus is text in files as sequences of ids, of which little is in memory at a time.
type corpus struct {
	files  []string
	temp   string // what came from standard input; "" = nothing did
	sha256 string // of the files one after another
	tok    text.Tokenizer
	length int   // tokens a sequence
	most   int64 // tokens of all; 0 = no end
}

// openCorpus finds the files of a text. "-" stands for in, which is copied to a temporary file until close.
func openCorpus(files []string, in io.Reader) (*corpus, error) {
	if len(files) == 0 {
		files = []string{"-"}
	}
	c := &corpus{files: slices.Clone(files)}
	if err := c.gather(in); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *corpus) gather(in io.Reader) error {
	hash := sha256.New()
	for i, name := range c.files {
		if name == "-" {
			if c.temp != "" {
				return errors.New("standard input can be read once")
			}
			if err := c.spool(in); err != nil {
				return fmt.Errorf("read standard input: %w", err)
			}
			c.files[i] = c.temp
		}
		if err := hashFile(hash, c.files[i]); err != nil {
			return err
		}
	}
	c.sha256 = hex.EncodeToString(hash.Sum(nil))
	return nil
}

func (c *corpus) spool(in io.Reader) error {
	f, err := os.CreateTemp("", "winnow-text-*")
	if err != nil {
		return err
	}
	c.temp = f.Name()
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Close())
}

func hashFile(hash io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(hash, f)
	return errors.Join(err, f.Close())
}

// close removes what came from standard input.
func (c *corpus) close() error {
	if c.temp == "" {
		return nil
	}
	return os.Remove(c.temp)
}

// count tokenises everything, which takes far less time than a model does, for how many tokens there are.
func (c *corpus) count(ctx context.Context) (total int64, err error) {
	for ids, err := range c.sequences {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, err
		}
		total += int64(len(ids))
	}
	if total == 0 {
		return 0, errors.New("the text is empty")
	}
	return total, nil
}

// sequences cuts each file into runs of length tokens, the last of a file shorter, behind BOS where the model's file wants it.
func (c *corpus) sequences(yield func([]int32, error) bool) {
	left := c.most
	for _, path := range c.files {
		err := c.sequencesOf(path, func(ids []int32) bool {
			if c.most > 0 {
				ids = ids[:min(int64(len(ids)), left)]
				left -= int64(len(ids))
			}
			return yield(ids, nil) && (c.most == 0 || left > 0)
		})
		if err == errEnough {
			return
		}
		if err != nil {
			yield(nil, err)
			return
		}
	}
}

// errEnough ends the reading of a text of which no more is wanted.
var errEnough = errors.New("enough")

// pieceBytes is how much text is tokenised at a time. Pieces end behind a line where they can, so that hardly any word is torn.
const pieceBytes = 1 << 20

func (c *corpus) sequencesOf(path string, yield func([]int32) bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, pieceBytes)
	next := c.begin(nil)
	empty := len(next)
	var ids []int32
	for last := false; !last; {
		piece, err := r.Peek(pieceBytes)
		if err != nil && err != io.EOF {
			return err
		}
		if last = err == io.EOF; !last {
			piece = piece[:cutBehindLine(piece)]
		}
		ids = c.tok.Encode(ids[:0], text.Span{Text: string(piece)})
		for rest := ids; len(rest) > 0; {
			n := min(len(rest), c.length-len(next))
			next, rest = append(next, rest[:n]...), rest[n:]
			if len(next) < c.length {
				break
			}
			if !yield(next) {
				return errEnough
			}
			next = c.begin(next[:0])
		}
		if _, err := r.Discard(len(piece)); err != nil {
			return err
		}
	}
	if len(next) > empty && !yield(next) {
		return errEnough
	}
	return nil
}

// begin is what a sequence begins with.
func (c *corpus) begin(ids []int32) []int32 {
	if v := c.tok.Vocab(); v.AddBOS && v.BOS >= 0 {
		return append(ids, v.BOS)
	}
	return ids
}

// cutBehindLine is where a piece of text that goes on is best cut: behind a line, behind a space, or at least between characters.
func cutBehindLine(piece []byte) int {
	for _, end := range []string{"\n", " "} {
		if at := bytes.LastIndex(piece, []byte(end)); at >= 0 {
			return at + 1
		}
	}
	for at := len(piece); at > len(piece)-utf8.UTFMax; {
		at--
		if utf8.RuneStart(piece[at]) {
			if !utf8.FullRune(piece[at:]) {
				return at
			}
			break
		}
	}
	return len(piece)
}
