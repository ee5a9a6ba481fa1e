package httpapi

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

const (
	mostOllamaStops = 64   // stop strings of one of ollama's requests
	leastShare      = 1e-6 // stands for a share of 0, which ollama's engine reads as the likeliest token alone
)

// ollamaDefaults are what ollama's clients count on where neither they nor the model say anything.
var ollamaDefaults = serve.Defaults{Temperature: new(float32(0.8)), TopP: new(float32(0.9)), TopK: new(40), RepeatLast: new(64)}

// loadOptions are the options that say how ollama's engine loads a model or moves its context. Winnow has its own settings for the
// first, and does not do the second.
var loadOptions = []string{
	"num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "low_vram", "f16_kv", "vocab_only", "numa", "num_keep",
	"draft_num_predict",
}

// readOptions reads how an answer is made, in ollama's words, and says what of it is ignored. none is whether it is to have no token.
func readOptions(o *object, g *serve.Generation) (none bool, warnings []string) {
	g.Temperature = o.number("temperature", 0, 100)
	g.TopP, g.TypicalP, g.MinP = o.shareOrLeast("top_p"), o.shareOrLeast("typical_p"), o.number("min_p", 0, 1)
	if k := o.integer("top_k", math.MinInt32, math.MaxInt32); k != nil {
		g.TopK = new(int(max(*k, 0)))
	}
	if r := o.number("repeat_penalty", 0, 10); r != nil {
		if g.Repetition = r; *r == 0 {
			g.Repetition = new(float32(1))
		}
	}
	if n := o.integer("repeat_last_n", -1, math.MaxInt32); n != nil {
		g.RepeatLast = new(int(*n))
	}
	g.Presence = o.number("presence_penalty", -2, 2)
	g.Frequency = o.number("frequency_penalty", -2, 2)
	if seed := o.integer("seed", math.MinInt64, math.MaxInt64); seed != nil && *seed != -1 { // which is ollama's word for any
		g.Seed = seed
	}
	g.Experts, g.Sparse = readExperts(o), readSparse(o)
	g.Context = int(first(o.integer("num_ctx", 0, math.MaxInt32), 0))
	if n := o.integer("num_predict", math.MinInt32, math.MaxInt32); n != nil {
		none, g.MaxTokens = *n == 0, int(*n)
		if *n < 0 { // no limit, whatever the model's own is
			g.MaxTokens = math.MaxInt32
		}
	}
	g.Stop = readStop(o, mostOllamaStops)
	for _, name := range loadOptions {
		o.seen[name] = true
		if v, there := o.fields[name]; there && string(v) != "null" {
			if !isNumber(v) && string(v) != "true" && string(v) != "false" {
				o.bad(name, "must be a number or true or false")
			}
			warnings = append(warnings, o.path+name+" is ignored: the server's own settings decide it")
		}
	}
	return none, append(warnings, o.strangers()...)
}

// shareOrLeast is a number from 0 to 1.
func (o *object) shareOrLeast(name string) *float32 {
	v := o.number(name, 0, 1)
	if v != nil {
		v = new(max(*v, leastShare))
	}
	return v
}

// strangers notes the fields that nobody asked for.
func (o *object) strangers() (warnings []string) {
	for _, name := range o.unseen() {
		if len(warnings) < mostWarnings {
			warnings = append(warnings, fmt.Sprintf("%sunknown field %.64q is ignored", at(o.path), name))
		}
	}
	return warnings
}

// at is where in a request something is said: nothing, or "options: ".
func at(path string) string {
	if path == "" {
		return ""
	}
	return strings.TrimSuffix(path, ".") + ": "
}

// forever keeps a model until somebody unloads it.
const forever = time.Duration(-1)

// lifetime reads how long a model stays loaded: seconds, or a duration in Go's words; below 0 is for ever.
func (o *object) lifetime(name string) *time.Duration {
	raw := o.raw(name)
	if raw == nil {
		return nil
	}
	var d time.Duration
	if isNumber(raw) {
		seconds := decoded[float64](o, name, "a number of seconds that a computer can count")
		switch {
		case seconds == nil:
			return nil
		case *seconds < 0 || *seconds >= (math.MaxInt64/float64(time.Second)):
			d = forever
		default:
			d = time.Duration(*seconds * float64(time.Second))
		}
	} else {
		s := o.text(name)
		if s == nil {
			return nil
		}
		var err error
		if d, err = time.ParseDuration(*s); err != nil {
			o.bad(name, `must be a number of seconds or a duration as "5m", below 0 for ever`)
			return nil
		}
	}
	return new(max(d, forever))
}

// levels are the efforts of thinking that ollama's clients may ask for.
var levels = []string{"low", "medium", "high", "max"}

// readThink reads whether to think, and how hard.
func readThink(o *object) *serve.Think {
	switch raw := o.raw("think"); {
	case raw == nil:
		return nil
	case raw[0] == '"':
		level := o.text("think")
		if level == nil || !slices.Contains(levels, *level) {
			o.bad("think", "must be true, false, %s", strings.Join(levels, ", "))
			return nil
		}
		return &serve.Think{On: true, Level: *level}
	default:
		on := decoded[bool](o, "think", "true, false, "+strings.Join(levels, ", "))
		if on == nil {
			return nil
		}
		return &serve.Think{On: *on}
	}
}

// flagOr is a boolean; absent is def.
func (o *object) flagOr(name string, def bool) bool {
	return first(decoded[bool](o, name, "true or false"), def)
}

// modelName reads the name of a model, under its newer or its older field. It is required.
func (o *object) modelName() string {
	name := first(o.text("model"), "")
	if old := o.text("name"); old != nil && name == "" {
		name = *old
	}
	if name == "" && o.err() == nil {
		o.bad("model", "is required")
	}
	return name
}
