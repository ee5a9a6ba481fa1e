package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
)

// parameter is a wish about answers: a flag, a word of /set parameter, a key of a saved chat.
type parameter struct {
	name    string
	also    string // another name that users know
	means   string
	experts bool                                             // it is about experts: no Modelfile has it, and no flag of its own
	most    int                                              // values it takes
	set     func(g *serve.Generation, values []string) error // the whole wish
	unset   func(g *serve.Generation)
	wish    func(g *serve.Generation) string // as set takes it; "" = none
	used    func(s *engine.Sampling) string  // what comes of it; nil = nothing that a model's files could say
}

// parameters are all there are.
var parameters = []*parameter{
	number("temperature", 2, "0 takes the likeliest token", func(g *serve.Generation) **float32 { return &g.Temperature },
		func(s *engine.Sampling) float32 { return s.Temperature }),
	number("top_p", 1, "share of probability to draw from", func(g *serve.Generation) **float32 { return &g.TopP },
		func(s *engine.Sampling) float32 { return s.TopP }),
	number("min_p", 1, "least probability beside the likeliest token's", func(g *serve.Generation) **float32 { return &g.MinP },
		func(s *engine.Sampling) float32 { return s.MinP }),
	number("typical_p", 1, "share of probability to draw from, the most typical first", func(g *serve.Generation) **float32 { return &g.TypicalP },
		func(s *engine.Sampling) float32 { return s.TypicalP }),
	alias("repeat_penalty", number("repetition_penalty", 10, "above 1 makes tokens of the prompt and the answer less likely",
		func(g *serve.Generation) **float32 { return &g.Repetition }, func(s *engine.Sampling) float32 { return s.Repetition })),
	penalty("presence_penalty", "above 0 makes tokens of the answer less likely", func(g *serve.Generation) **float32 { return &g.Presence },
		func(s *engine.Sampling) float32 { return s.Presence }),
	penalty("frequency_penalty", "above 0 makes tokens of the answer less likely each time", func(g *serve.Generation) **float32 { return &g.Frequency },
		func(s *engine.Sampling) float32 { return s.Frequency }),
	{
		name: "top_k", means: "how many tokens to draw from, 0 = all", most: 1,
		set: func(g *serve.Generation, values []string) error {
			n, err := integer(values[0], 0, math.MaxInt32)
			g.TopK = new(int(n))
			return err
		},
		unset: func(g *serve.Generation) { g.TopK = nil },
		wish:  func(g *serve.Generation) string { return shown(g.TopK) },
		used:  func(s *engine.Sampling) string { return strconv.Itoa(s.TopK) },
	},
	{
		name: "seed", means: "the same seed gives the same answers (default: another one each time)", most: 1,
		set: func(g *serve.Generation, values []string) error {
			n, err := integer(values[0], math.MinInt64, math.MaxInt64)
			g.Seed = &n
			return err
		},
		unset: func(g *serve.Generation) { g.Seed = nil },
		wish:  func(g *serve.Generation) string { return shown(g.Seed) },
	},
	{
		name: "max_tokens", also: "num_predict", means: "longest answer; 0 = as long as the context has room", most: 1,
		set: func(g *serve.Generation, values []string) error {
			n, err := integer(values[0], -1, math.MaxInt32) // -1 is ollama's word for no limit
			g.MaxTokens = int(max(n, 0))
			return err
		},
		unset: func(g *serve.Generation) { g.MaxTokens = 0 },
		wish: func(g *serve.Generation) string {
			if g.MaxTokens == 0 {
				return ""
			}
			return strconv.Itoa(g.MaxTokens)
		},
	},
	expertsParameter("moe_min_p", "least factor of an expert beside the heaviest one's", func(x *serve.Experts) *float32 { return &x.MinP }),
	expertsParameter("moe_mass", "share of the factors that experts must have, the heaviest first", func(x *serve.Experts) *float32 { return &x.Mass }),
	expertsParameter("moe_skip_beta", "least factor of an expert beside the first one's", func(x *serve.Experts) *float32 { return &x.SkipBeta }),
	{
		name: "moe_top_k", means: "most experts a token, or by layer as 8/8/4 (default: as many as the model takes)", experts: true, most: 1,
		set: func(g *serve.Generation, values []string) error {
			k, err := model.ParseTopK(values[0])
			setExperts(g, func(x *serve.Experts) { x.TopK = k })
			return err
		},
		unset: func(g *serve.Generation) { setExperts(g, func(x *serve.Experts) { x.TopK = nil }) },
		wish: func(g *serve.Generation) string {
			if g.Experts == nil {
				return ""
			}
			return strings.TrimPrefix((&model.Experts{TopK: g.Experts.TopK}).String(), "top_k=")
		},
	},
	{
		name: "stop", means: "texts that end the answer, each in quotes where it has spaces", most: mostStops,
		set: func(g *serve.Generation, values []string) error {
			if slices.Contains(values, "") {
				return fmt.Errorf("an empty text would end every answer at once")
			}
			g.Stop = values
			return nil
		},
		unset: func(g *serve.Generation) { g.Stop = nil },
		wish: func(g *serve.Generation) string {
			var all []string
			for _, s := range g.Stop {
				all = append(all, strconv.Quote(s))
			}
			return strings.Join(all, " ")
		},
	},
}

// mostStops is how many stop texts there can be.
const mostStops = 16

// number is a parameter from 0 to a limit.
func number(name string, limit float64, means string, of func(*serve.Generation) **float32, used func(*engine.Sampling) float32) *parameter {
	return &parameter{
		name: name, means: means, most: 1,
		set: func(g *serve.Generation, values []string) error {
			v, err := strconv.ParseFloat(values[0], 32)
			if err != nil || !(v >= 0 && v <= limit) {
				return fmt.Errorf("%s is not a number from 0 to %v", values[0], limit)
			}
			*of(g) = new(float32(v))
			return nil
		},
		unset: func(g *serve.Generation) { *of(g) = nil },
		wish:  func(g *serve.Generation) string { return shown(*of(g)) },
		used:  func(s *engine.Sampling) string { return fmt.Sprint(used(s)) },
	}
}

// expertsParameter is a share of what experts weigh, which leaves some out; 0 leaves all in.
func expertsParameter(name, means string, of func(*serve.Experts) *float32) *parameter {
	return &parameter{
		name: name, means: means, experts: true, most: 1,
		set: func(g *serve.Generation, values []string) error {
			v, err := strconv.ParseFloat(values[0], 32)
			if err != nil || !(v >= 0 && v <= 1) {
				return fmt.Errorf("%s is not a number from 0 to 1", values[0])
			}
			setExperts(g, func(x *serve.Experts) { *of(x) = float32(v) })
			return nil
		},
		unset: func(g *serve.Generation) { setExperts(g, func(x *serve.Experts) { *of(x) = 0 }) },
		wish: func(g *serve.Generation) string {
			if g.Experts == nil || *of(g.Experts) == 0 {
				return ""
			}
			return fmt.Sprint(*of(g.Experts))
		},
	}
}

// setExperts changes what is asked of experts, in a copy: wishes that were made before stay as they are. Where nothing is left, nothing is asked,
// so that models without experts answer too.
func setExperts(g *serve.Generation, change func(x *serve.Experts)) {
	var x serve.Experts
	if g.Experts != nil {
		x = *g.Experts
	}
	change(&x)
	if g.Experts = &x; len(x.TopK) == 0 && x.MinP == 0 && x.Mass == 0 && x.SkipBeta == 0 {
		g.Experts = nil
	}
}

// alias gives a parameter another name.
func alias(also string, p *parameter) *parameter {
	p.also = also
	return p
}

// penalty is a parameter from -2 to 2, of which 0 does nothing.
func penalty(name, means string, of func(*serve.Generation) **float32, used func(*engine.Sampling) float32) *parameter {
	return &parameter{
		name: name, means: means, most: 1,
		set: func(g *serve.Generation, values []string) error {
			v, err := strconv.ParseFloat(values[0], 32)
			if err != nil || !(v >= -2 && v <= 2) {
				return fmt.Errorf("%s is not a number from -2 to 2", values[0])
			}
			*of(g) = new(float32(v))
			return nil
		},
		unset: func(g *serve.Generation) { *of(g) = nil },
		wish:  func(g *serve.Generation) string { return shown(*of(g)) },
		used:  func(s *engine.Sampling) string { return fmt.Sprint(used(s)) },
	}
}

func integer(s string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s is not a whole number from %d to %d", s, least, most)
	}
	return n, nil
}

func shown[T any](v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(*v)
}

// setParameter changes a wish. The value default takes it back.
func setParameter(g *serve.Generation, name string, values []string) error {
	p, err := findParameter(name)
	if err != nil {
		return err
	}
	switch n := len(values); {
	case n == 1 && values[0] == "default":
		p.unset(g)
		return nil
	case n == 0 || n > p.most:
		return fmt.Errorf("%s takes %s, not %d", p.name, plural(p.most, "value"), n)
	}
	wish := *g
	if err := p.set(&wish, values); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	*g = wish
	return nil
}

func findParameter(name string) (*parameter, error) {
	var known []string
	for _, p := range parameters {
		if name == p.name || name == p.also {
			return p, nil
		}
		known = append(known, p.name)
	}
	if name == "num_ctx" {
		return nil, fmt.Errorf("the context is laid out when the model is loaded: winnow run --context N")
	}
	return nil, fmt.Errorf("there is no parameter %.40q; there are %s", name, strings.Join(known, ", "))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("1 to %d %ss", n, what)
}

// words splits a line at white space. A word in double quotes may hold white space, and escapes as in \n.
func words(s string) ([]string, error) {
	var all []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if s[0] == '"' {
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, fmt.Errorf("a quote is not closed: %.40s", s)
			}
			w, err := strconv.Unquote(q)
			if err != nil {
				return nil, fmt.Errorf("%.40s: %w", q, err)
			}
			all, s = append(all, w), s[len(q):]
			continue
		}
		w, rest := cutSpace(s)
		all, s = append(all, w), rest
	}
	return all, nil
}

// cutSpace splits a line behind its first word.
func cutSpace(s string) (word, rest string) {
	s = strings.TrimSpace(s)
	if i := strings.IndexAny(s, " \t\r\n"); i >= 0 {
		return s[:i], strings.TrimSpace(s[i:])
	}
	return s, ""
}

// parameterFlag lets a command line set a parameter; one that takes several values, by being given several times.
type parameterFlag struct {
	*parameter
	g     *serve.Generation
	given []string
}

// Set takes one more value, or another one in place of the only one.
func (f *parameterFlag) Set(v string) error {
	if f.most == 1 {
		f.given = nil
	}
	if f.given = append(f.given, v); len(f.given) > f.most {
		return fmt.Errorf("at most %d", f.most)
	}
	return f.set(f.g, f.given)
}

// Type is what help shows for a value.
func (f *parameterFlag) Type() string {
	if f.most == 1 {
		return "number"
	}
	return "text"
}

func (f *parameterFlag) String() string {
	if f.parameter == nil {
		return "" // pflag asks a flag that it made
	}
	return f.wish(f.g)
}
