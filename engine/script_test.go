package engine

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
)

var update = flag.Bool("update", false, "rewrite the scripts in testdata with what the scheduler does")

// TestScripts runs testdata/*.txt: commands to a scheduler without a model, each followed by a line of dashes and what it prints.
// Blocks are parted by empty lines; lines that begin with # are the reader's.
//
//	new rows=8 pages=4 sequences=2 [wanted=2 context=256 queue=4 crowd=1 outside=1]
//	add NAME prompt=1..70,5 [max=3 stop=1071,1072 priority=-1 selector=window]   a request; the id sampled at position p is 1000+p
//	score NAME prompt=1..70                                          a request for all logits
//	embed NAME prompt=1..70 pooling=mean                             a request for the sum of hidden states, which are the ids
//	plan | commit | fail                                             the halves of a step; a step that the device fails
//	step | run                                                       a whole step; steps until nobody advances
//	skip n | finish                                                  n steps; all steps; showing only what is not everyday
//	seen NAME                                                        the consumer of a score is done with the last rows
//	crowd n                                                          so many may generate at once from now on
//	abort NAME
//	pages                                                            who holds what, what is cached, least recently used first
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts in testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(string(b))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, have := strings.Split(string(b), "\n"), strings.Split(got, "\n")
			for i := range max(len(want), len(have)) {
				if i >= len(want) || i >= len(have) || want[i] != have[i] {
					from := max(0, i-4)
					t.Fatalf("%s:%d: got\n%s\nwant\n%s", file, i+1,
						strings.Join(have[min(from, len(have)):min(i+4, len(have))], "\n"),
						strings.Join(want[min(from, len(want)):min(i+4, len(want))], "\n"))
				}
			}
		})
	}
}

// play runs a script and returns it with what its commands print now.
func play(text string) string {
	var out []string
	s := &script{}
	for block := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		head, _, hasOutput := strings.Cut(block, "\n----")
		lines := strings.Split(head, "\n")
		command := lines[len(lines)-1]
		if strings.HasPrefix(command, "#") && !hasOutput {
			out = append(out, block)
			continue
		}
		s.print = s.print[:0]
		if err := s.do(strings.Fields(command)); err != nil {
			s.say("error: %v", err)
		}
		out = append(out, head+"\n----\n"+strings.Join(s.print, "\n"))
	}
	return strings.Join(out, "\n\n") + "\n"
}

// script is the state of a script: a scheduler, and names for its sequences.
type script struct {
	*dry
	names map[*sequence]string
	parts []advance // planned, not yet committed
	print []string
}

func (s *script) say(format string, args ...any) {
	s.print = append(s.print, fmt.Sprintf(format, args...))
}

func (s *script) do(words []string) error {
	name, args := "", map[string]string{}
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			args[k] = v
		} else {
			name = w
		}
	}
	switch words[0] {
	case "new":
		return s.open(args)
	case "add", "score", "embed":
		return s.admitNamed(words[0], name, args)
	case "plan":
		return s.planned()
	case "commit":
		return s.committed()
	case "fail":
		s.failed()
		return s.report()
	case "step":
		return s.steps(1)
	case "run":
		return s.steps(10000)
	case "skip":
		defer s.shorten()
		return s.steps(atoi(name))
	case "finish":
		defer s.shorten()
		return s.steps(10000)
	case "pages":
		return s.listPages()
	case "crowd":
		s.crowd = atoi(name)
		return s.report()
	}
	for q, n := range s.names {
		if n == name && words[0] == "abort" {
			s.abort(q)
			return s.report()
		}
		if n == name && words[0] == "seen" {
			q.held = false
			return s.report()
		}
	}
	return fmt.Errorf("no command %q for %q", words[0], name)
}

// steps lets everybody advance, at most n times.
func (s *script) steps(n int) error {
	for range n {
		if err := errors.Join(s.planned(), s.committed()); err != nil || len(s.parts) == 0 {
			return err
		}
	}
	return nil
}

// memorable is what a shortened output keeps, besides the last line of counters.
var memorable = regexp.MustCompile(` ends|loses its pages|cached pages|in the cache`)

// shorten leaves out of what a command prints what happens every day.
func (s *script) shorten() {
	var kept []string
	last := "  nobody advances"
	for _, line := range s.print {
		if memorable.MatchString(line) {
			kept = append(kept, line)
		} else if !strings.HasPrefix(line, "  ") {
			last = line
		}
	}
	s.print = append(kept, last)
}

func (s *script) open(args map[string]string) error {
	lim := model.Limits{Rows: atoi(args["rows"]), Pages: atoi(args["pages"]), Sequences: atoi(args["sequences"])}
	lim.Wanted, lim.Context = lim.Sequences, 64*lim.Pages
	if v := atoi(args["wanted"]); v > 0 {
		lim.Wanted = v
	}
	if v := atoi(args["context"]); v > 0 {
		lim.Context = v
	}
	s.dry, s.names = newDry(lim, max(atoi(args["queue"]), 4)), map[*sequence]string{}
	s.crowd = atoi(args["crowd"])
	if atoi(args["outside"]) > 0 {
		s.keepOutside(nil)
	}
	s.say("ok")
	return nil
}

func (s *script) admitNamed(kind, name string, args map[string]string) (err error) {
	var q *sequence
	if kind == "score" {
		q = newScore(&Scoring{IDs: numbers(args["prompt"])})
		q.root = s.pool.root("full")
		err = s.add(q)
	} else if kind == "embed" {
		q = s.embedding(numbers(args["prompt"]), Pooling(args["pooling"]))
	} else {
		q, err = s.request(Request{
			Prompt: numbers(args["prompt"]), MaxTokens: atoi(args["max"]), Stop: numbers(args["stop"]), Alternatives: -1,
			Priority: atoi(args["priority"]),
		})
	}
	if err != nil {
		return err
	}
	if args["selector"] != "" {
		q.root = s.pool.root(args["selector"])
	}
	s.names[q] = name
	return s.report()
}

func (s *script) planned() (err error) {
	ran, counts := slices.Clone(s.running), s.counts
	if s.parts, err = s.plan(); err != nil {
		return err
	}
	for _, q := range s.waiting {
		if slices.Contains(ran, q) {
			s.say("  %s loses its pages", s.names[q])
		}
	}
	if n := s.counts.Evicted - counts.Evicted; n > 0 {
		s.say("  %d cached pages are evicted", n)
	}
	if n := s.counts.Cached - counts.Cached; n > 0 {
		s.say("  %d tokens are found in the cache", n)
	}
	if n := s.counts.Restored - counts.Restored; n > 0 {
		s.say("  %d cached pages are restored", n)
	}
	if r := s.restore; r != nil {
		s.say("  %s has pages %d:%d read", s.names[r.seq], r.from, r.from+len(r.ids))
	}
	for _, a := range s.parts {
		wants := ""
		if a.want > 0 {
			wants = fmt.Sprintf(", wants %d", a.want)
		}
		if n := a.seq.pooled(a.rows); n > 0 {
			wants = fmt.Sprintf(", sums %d", n)
		}
		s.say("  %s computes %d:%d on pages %v%s", s.names[a.seq], a.seq.computed, a.seq.computed+a.rows, a.seq.pages, wants)
	}
	if len(s.parts) == 0 {
		s.say("  nobody advances")
	}
	return nil
}

func (s *script) committed() error {
	if len(s.parts) == 0 {
		return nil
	}
	if err := s.settled(); err != nil {
		return err
	}
	for _, a := range s.parts {
		switch q := a.seq; {
		case q.gone:
			s.say("  %s is gone", s.names[q])
		case q.ended() && q.pooling != "":
			s.say("  %s ends with %v", s.names[q], q.sum[0])
		case q.ended() && q.limit == q.prompt:
			s.say("  %s ends", s.names[q])
		case q.ended():
			s.say("  %s gets %d and ends: %s", s.names[q], q.tokens[len(q.tokens)-1], q.finish)
		case a.want > 0 && !q.every:
			s.say("  %s gets %d", s.names[q], q.tokens[len(q.tokens)-1])
		}
	}
	return s.report()
}

// report prints the counters of all sequences, computed/tokens/limit, and the pages by role.
func (s *script) report() error {
	var parts []string
	list := func(word string, of []*sequence) {
		for _, q := range of {
			held := ""
			if q.held {
				held = " held"
			}
			parts = append(parts, fmt.Sprintf("%s %s %d/%d/%d%s", s.names[q], word, q.computed, len(q.tokens), q.limit, held))
		}
	}
	list("runs", s.running)
	list("waits", s.waiting)
	u := s.usage()
	free := u.PagesTotal - u.PagesUsed - u.PagesCached
	s.say("%s", strings.Join(append(parts, fmt.Sprintf("pages %d used %d cached %d free", u.PagesUsed, u.PagesCached, free)), ", "))
	return nil
}

func (s *script) listPages() error {
	for _, q := range s.running {
		s.say("%s holds %v, %d sealed", s.names[q], q.pages, q.sealed)
	}
	s.say("cached %v, free %v", s.pool.idlePages(), s.pool.free)
	return s.check()
}

// numbers reads a list of ids: 1..5,9 is 1 2 3 4 5 9.
func numbers(text string) (ids []int32) {
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		from, to, ranged := strings.Cut(part, "..")
		if !ranged {
			to = from
		}
		for id := atoi(from); id <= atoi(to); id++ {
			ids = append(ids, int32(id))
		}
	}
	return ids
}

// atoi reads a number of a script; none is 0.
func atoi(text string) int {
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		panic("script: " + err.Error())
	}
	return n
}
