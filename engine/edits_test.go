package engine

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/model"
)

// TestSamplingOfAnswers replays greedy answers under penalties and biases: at every position the chosen id is the best one of the model's
// logits, which a score gives, after what the request asks for is done to them by hand.
func TestSamplingOfAnswers(t *testing.T) {
	e, _ := open(t, ample)
	prompt := requests(3)[2].Prompt
	plain, err := collect(e.Generate(t.Context(), Request{Prompt: prompt, MaxTokens: 24, Alternatives: -1}))
	if err != nil {
		t.Fatal(err)
	}
	favourite := plain[0].ID
	for name, s := range map[string]Sampling{
		"none":       {},
		"repetition": {Repetition: 1.8},
		"rewarded":   {Repetition: 0.6},
		"the last":   {Repetition: 0.3, RepeatLast: 1},
		"last few":   {Repetition: 0.4, RepeatLast: 3},
		"last many":  {Repetition: 1.5, RepeatLast: 20, Frequency: 0.3, Bias: []Bias{{favourite, -1}}},
		"long ago":   {Repetition: 1.8, RepeatLast: 1000},
		"presence":   {Presence: 1.5},
		"frequency":  {Frequency: 0.7},
		"all":        {Repetition: 1.3, Presence: -0.5, Frequency: 0.4, Bias: []Bias{{favourite, -1}, {favourite, -2}, {5, 1}}},
		"banned":     {Bias: []Bias{{favourite, float32(math.Inf(-1))}}},
	} {
		tokens, err := collect(e.Generate(t.Context(), Request{Prompt: prompt, MaxTokens: 24, Alternatives: -1, Sampling: s}))
		if err != nil {
			t.Fatal(err)
		}
		ids := slices.Clone(prompt)
		for _, tok := range tokens {
			ids = append(ids, tok.ID)
		}
		err = e.Score(t.Context(), Scoring{IDs: ids}, func(first int, logits []float32) {
			for row := range len(logits) / 320 {
				if at := first + row + 1; at >= len(prompt) && at < len(ids) {
					if want := bestUnder(s, logits[row*320:][:320], ids[:at], len(prompt)); ids[at] != want {
						t.Errorf("%s: token %d is %d, want %d", name, at, ids[at], want)
					}
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if name != "none" && slices.EqualFunc(tokens, plain, func(a, b Token) bool { return a.ID == b.ID }) {
			t.Errorf("%s changes nothing", name)
		}
	}
}

// bestUnder is the id that a greedy request would choose after ids.
func bestUnder(s Sampling, logits []float32, ids []int32, prompt int) int32 {
	l := slices.Clone(logits)
	for id := range l {
		last := ids
		if s.RepeatLast > 0 {
			last = ids[max(0, len(ids)-s.RepeatLast):]
		}
		if slices.Contains(last, int32(id)) && s.Repetition != 0 {
			if l[id] > 0 {
				l[id] /= s.Repetition
			} else {
				l[id] *= s.Repetition
			}
		}
		count := 0
		for _, g := range ids[prompt:] {
			if g == int32(id) {
				count++
			}
		}
		if count > 0 {
			l[id] -= s.Presence + float32(count)*s.Frequency
		}
		var bias float32
		for _, b := range s.Bias {
			if b.ID == int32(id) {
				bias += b.Add
			}
		}
		l[id] += bias
	}
	return int32(slices.Index(l, slices.Max(l)))
}

func TestMinTokens(t *testing.T) {
	e, _ := open(t, ample)
	r := Request{Prompt: requests(3)[2].Prompt, MaxTokens: 12, Alternatives: -1}
	plain, err := collect(e.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	r.Stop, r.MinTokens = []int32{plain[0].ID}, 5
	// The bias brings the stop id back as soon as it may come.
	r.Sampling.Bias = []Bias{{plain[0].ID, 100}}
	late, err := collect(e.Generate(t.Context(), r))
	if err != nil || len(late) != 6 || late[5].ID != plain[0].ID || late[5].Finish != Stop {
		t.Errorf("%+v, %v", late, err)
	}
}

// A window holds what it should and nothing more, whatever comes.
func TestWindowOfRepetition(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		s := Sampling{Repetition: 2, RepeatLast: 1 + rng.IntN(12), Bias: []Bias{{3, 1}}}
		if rng.IntN(2) == 0 {
			s.Presence = 1
		}
		ids := make([]int32, 60)
		for i := range ids {
			ids[i] = rng.Int32N(10)
		}
		prompt := rng.IntN(20)
		e := newEdits(&Request{Prompt: ids[:prompt], Sampling: s})
		for at := prompt; at < len(ids); at++ {
			e.generated(ids[at])
			last := ids[max(0, at+1-s.RepeatLast) : at+1]
			for id := range int32(10) {
				want := slices.Contains(last, id)
				i, ok := e.at[id]
				if ok && (e.list[i].ID != id || e.list[i].Seen != want) || !ok && want {
					t.Fatalf("%+v: id %d after %v: %v in %+v", s, id, ids[:at+1], want, e.list)
				}
			}
			if len(e.at) != len(e.list) || s.Presence == 0 && len(e.list) > len(last)+1 {
				t.Fatalf("%+v: %d edits, %d places, window of %d", s, len(e.list), len(e.at), len(last))
			}
		}
	}
}

func TestEditsForgetTheOldest(t *testing.T) {
	prompt := make([]int32, model.MostEdits+50)
	for i := range prompt {
		prompt[i] = int32(i)
	}
	e := newEdits(&Request{Prompt: prompt, Sampling: Sampling{Repetition: 2, Bias: []Bias{{7, 1}}}})
	e.generated(3)
	if len(e.list) != model.MostEdits || len(e.at) != len(e.list) {
		t.Fatalf("%d edits, %d places", len(e.list), len(e.at))
	}
	for id, want := range map[int32]model.Edit{
		7:                              {ID: 7, Seen: true, Bias: 1}, // a bias stays
		3:                              {ID: 3, Seen: true, Count: 1},
		int32(len(prompt) - 1):         {ID: int32(len(prompt) - 1), Seen: true},
		int32(len(prompt) - 4000 - 30): {ID: int32(len(prompt) - 4000 - 30), Seen: true},
	} {
		if at, ok := e.at[id]; !ok || e.list[at] != want {
			t.Errorf("id %d: %v", id, ok)
		}
	}
	for _, gone := range []int32{0, 40} {
		if _, ok := e.at[gone]; ok {
			t.Errorf("id %d is remembered", gone)
		}
	}
}
