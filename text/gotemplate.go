package text

import (
	"errors"
	"fmt"
	"text/template"

	ollama "github.com/ollama/ollama/template"
	"github.com/ollama/ollama/thinking"
)

// maxGoTemplateBytes bounds a Go template's source. The longest published ones have some 20 KB.
const maxGoTemplateBytes = 128 << 10

// GoTemplate is a parsed chat template in ollama's form, a Go template. It may be used by many goroutines.
type GoTemplate struct {
	set   *template.Template // counts its own steps, see rewrite
	turns bool               // it knows no list of messages, so it writes a turn at a time
	uses  map[string]bool
	clock bool
	open  string // tags around thoughts; "" = none are known
	close string
}

// GoValues is what a Go template renders. All of it but roles was written by users, and stays text whatever it spells.
type GoValues struct {
	Messages   []GoMessage
	Prompt     string // what stands before a gap that the model fills in; with Suffix in place of Messages
	Suffix     string // what stands behind it
	Think      bool
	ThinkLevel string // "low", "medium", "high" or another word of the template's
	IsThinkSet bool   // somebody said whether to think
}

// GoMessage is one message of a conversation.
type GoMessage struct {
	Role       string // a word that templates know; never a user's
	Content    string
	Thinking   string
	ToolCalls  []GoCall
	ToolName   string
	ToolCallID string
}

// GoCall is a call of a tool. Arguments are values as encoding/json makes them.
type GoCall struct {
	ID, Name  string
	Arguments map[string]any
}

// ParseGoTemplate parses a template of ollama's. What is refused: a source above 128 KiB or 20,000 nodes or nested too deep, templates
// that call themselves, loops over a number, and methods of values. What runs too long all the same ends when it is rendered. The error
// is a *TemplateError.
func ParseGoTemplate(src string) (t *GoTemplate, err error) {
	if len(src) > maxGoTemplateBytes {
		return nil, limitError("source is larger than 128 KiB")
	}
	if touched(src) {
		return nil, syntaxError(0, "it has a character that stands for no text")
	}
	defer func() {
		if p := recover(); p != nil { // the packages below answer some nonsense so
			t, err = nil, syntaxError(0, fmt.Sprintf("it cannot be parsed: %v", p))
		}
	}()
	parsed, err := ollama.Parse(src)
	if err != nil {
		return nil, syntaxError(0, err.Error())
	}
	vars, err := parsed.Vars()
	if err != nil {
		return nil, syntaxError(0, err.Error())
	}
	t = &GoTemplate{set: parsed.Template, uses: map[string]bool{}}
	for _, name := range vars {
		t.uses[name] = true
	}
	if t.open, t.close = thinking.InferTags(parsed.Template); t.open == "" || t.close == "" {
		t.open, t.close = "", ""
	}
	r := rewriter{}
	if err := r.all(t.set); err != nil {
		return nil, err
	}
	if t.clock = r.clock; !t.uses["messages"] {
		t.turns = true
		tree := t.set.Tree.Copy()
		cutAnswer(tree.Root)
		if _, err := t.set.AddParseTree(lastName, tree); err != nil {
			return nil, syntaxError(0, err.Error())
		}
	}
	return t, nil
}

// Uses reports whether the template reads the variable or field name, in lower case: "messages", "suffix", "thinking", "tools".
func (t *GoTemplate) Uses(name string) bool { return t.uses[name] }

// Clock reports whether what the template writes depends on the time.
func (t *GoTemplate) Clock() bool { return t.clock }

// ThinkTags are what the template puts around the thoughts of earlier answers; "" where it shows none.
func (t *GoTemplate) ThinkTags() (open, close string) { return t.open, t.close }

// Render writes the beginning of an answer and all that stands before it, as runs of one origin. Templates that know no messages are
// given a question and its answer at a time. Limits.Depth is of no meaning here. The error is a *TemplateError.
func (t *GoTemplate) Render(v GoValues, lim Limits) (spans []Span, err error) {
	r := newGoRun(lim)
	set, err := t.set.Clone()
	if err != nil {
		return nil, failf("%v", err)
	}
	defer func() {
		if p := recover(); p != nil {
			spans, err = nil, failf("it cannot be rendered: %v", p)
		}
	}()
	set.Funcs(r.funcs())
	system, messages := goMessages(v.Messages)
	r.expect(messages)
	vars := map[string]any{"Response": "", "Think": v.Think, "ThinkLevel": markInput(v.ThinkLevel), "IsThinkSet": v.IsThinkSet}
	switch {
	case v.Suffix != "":
		vars["Prompt"], vars["Suffix"] = markInput(v.Prompt), markInput(v.Suffix)
		err = set.Execute(r, vars)
	case !t.turns:
		vars["System"], vars["Messages"], vars["Tools"] = system, messages, []any(nil)
		err = set.Execute(r, vars)
	default:
		err = writeTurns(set, r, messages, vars)
	}
	if err != nil {
		if known, ok := errors.AsType[*TemplateError](err); ok {
			return nil, known
		}
		return nil, failf("%.500s", unmarked(err.Error()))
	}
	return splitInput(r.out.String()), nil
}

// writeTurns renders a template of a system message, a prompt and a response once for each time that one of them is there already. The last
// time it ends where the response would begin.
func writeTurns(set *template.Template, r *goRun, messages []*goMessage, vars map[string]any) error {
	place := map[string]string{"system": "System", "user": "Prompt", "assistant": "Response"}
	after := map[string][]string{"system": {"Prompt", "Response"}, "user": {"Response"}} // what ends a turn when the role speaks
	clear := func() { vars["System"], vars["Prompt"], vars["Response"] = "", "", "" }
	clear()
	for _, m := range messages {
		for _, name := range after[m.Role] {
			if vars[name] == "" {
				continue
			}
			if err := set.Execute(r, vars); err != nil {
				return err
			}
			clear()
			break
		}
		if name := place[m.Role]; name != "" {
			vars[name] = m.Content
		}
	}
	return set.ExecuteTemplate(r, lastName, vars)
}
