package text

// Limits of a template's source.
const (
	maxTemplateBytes = 1 << 20
	maxNesting       = 200 // of statements and expressions
)

// Template is a parsed chat template. It may be used by many goroutines.
type Template struct {
	body block
	uses map[string]bool
}

// Uses reports whether the template reads the variable name. Loop variables and parameters do not count; what the template
// sets itself and reads does, since it may be set only if the caller did not.
func (t *Template) Uses(name string) bool { return t.uses[name] }

// ParseTemplate parses a template of the Jinja language as chat templates use it. Includes, imports, inheritance and recursive
// loops are refused. The error is a *TemplateError.
func ParseTemplate(src string) (*Template, error) {
	if len(src) > maxTemplateBytes {
		return nil, &TemplateError{When: ErrTemplateLimit, Why: "source is larger than 1 MiB"}
	}
	words, err := lexTemplate(src)
	if err != nil {
		return nil, err
	}
	p := &templateParser{words: words, uses: map[string]bool{}}
	body, err := p.block()
	if err != nil {
		return nil, err
	}
	if p.at().kind != lexEnd {
		return nil, p.fail("unexpected " + p.words[p.pos+1].text)
	}
	return &Template{body, p.uses}, nil
}

// templateParser turns lexemes into statements by recursive descent.
type templateParser struct {
	words   []lexeme
	pos     int
	nesting int
	uses    map[string]bool
	bound   []string    // parameters and loop variables in scope
	macro   *macroTakes // of the macro being parsed; nil outside
	loops   int         // loops around this point, within the macro
}

func (p *templateParser) at() lexeme { return p.words[p.pos] }

func (p *templateParser) fail(why string) error { return syntaxError(p.at().line, why) }

// enter guards the recursion; each enter that succeeds needs a leave.
func (p *templateParser) enter() error {
	if p.nesting++; p.nesting > maxNesting {
		return &TemplateError{When: ErrTemplateLimit, Line: p.at().line, Why: "nested too deep"}
	}
	return nil
}

func (p *templateParser) leave() { p.nesting-- }

func (p *templateParser) is(k lexKind, text string) bool {
	w := p.at()
	return w.kind == k && w.text == text
}

// take consumes the lexeme if it is next.
func (p *templateParser) take(k lexKind, text string) bool {
	if !p.is(k, text) {
		return false
	}
	p.pos++
	return true
}

func (p *templateParser) takeOp(text string) bool   { return p.take(lexOp, text) }
func (p *templateParser) takeWord(text string) bool { return p.take(lexName, text) }

func (p *templateParser) want(k lexKind, text string) error {
	if !p.take(k, text) {
		what := p.at().text
		switch {
		case text == "" && k == lexBlockEnd:
			text = "%}"
		case text == "" && k == lexPrintEnd:
			text = "}}"
		}
		return p.fail("expected " + text + ", found '" + what + "'")
	}
	return nil
}

func (p *templateParser) wantName() (string, error) {
	w := p.at()
	if w.kind != lexName {
		return "", p.fail("expected a name, found '" + w.text + "'")
	}
	p.pos++
	return w.text, nil
}

// atTag reports whether one of the tags starts here.
func (p *templateParser) atTag(names ...string) bool {
	if p.at().kind != lexBlockBegin || p.words[p.pos+1].kind != lexName {
		return false
	}
	for _, n := range names {
		if p.words[p.pos+1].text == n {
			return true
		}
	}
	return false
}

// block parses statements up to one of the tags in ends, or the end of the template; the tag is left.
func (p *templateParser) block(ends ...string) (block, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	var out block
	for !p.atTag(ends...) {
		w := p.at()
		if w.kind == lexEnd {
			if len(ends) > 0 {
				return nil, p.fail("template ends without " + ends[len(ends)-1])
			}
			return out, nil
		}
		p.pos++
		var s statement
		var err error
		switch w.kind {
		case lexData:
			s = &output{marked{s: w.text}}
		case lexPrintBegin:
			s, err = p.printed()
		case lexBlockBegin:
			s, err = p.statement()
		default:
			err = p.fail("unexpected '" + w.text + "'")
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// closing consumes the end tag name that block stopped at.
func (p *templateParser) closing(name string) error {
	if !p.atTag(name) {
		return p.fail("expected " + name)
	}
	p.pos += 2
	return p.want(lexBlockEnd, "")
}

// body parses the rest of a tag's end, its statements and its end tag.
func (p *templateParser) body(end string) (block, error) {
	if err := p.want(lexBlockEnd, ""); err != nil {
		return nil, err
	}
	b, err := p.block(end)
	if err != nil {
		return nil, err
	}
	return b, p.closing(end)
}

func (p *templateParser) printed() (statement, error) {
	line := p.at().line
	e, err := p.tuple()
	if err != nil {
		return nil, err
	}
	return &printed{line, e}, p.want(lexPrintEnd, "")
}

// statement parses the tag whose begin was consumed.
func (p *templateParser) statement() (statement, error) {
	line := p.at().line
	name, err := p.wantName()
	if err != nil {
		return nil, err
	}
	switch name {
	case "if":
		return p.choice(line)
	case "for":
		return p.loop(line)
	case "set":
		return p.assignment(line)
	case "macro":
		return p.macroDef(line)
	case "call":
		return p.callBlock(line)
	case "filter":
		return p.filterBlock(line)
	case "with":
		return p.with(line)
	case "generation":
		b, err := p.body("endgeneration")
		return &scoped{line: line, body: b}, err
	case "break", "continue":
		if p.loops == 0 {
			return nil, p.fail(name + " outside of a loop")
		}
		to := flowBreak
		if name == "continue" {
			to = flowContinue
		}
		return &jump{to}, p.want(lexBlockEnd, "")
	case "include", "import", "from", "extends", "block":
		return nil, p.fail(name + " is not allowed in a chat template")
	}
	return nil, p.fail("unknown tag '" + name + "'")
}

func (p *templateParser) choice(line int) (statement, error) {
	c := &choice{}
	for {
		cond, err := p.plainTuple()
		if err != nil {
			return nil, err
		}
		if err := p.want(lexBlockEnd, ""); err != nil {
			return nil, err
		}
		then, err := p.block("elif", "else", "endif")
		if err != nil {
			return nil, err
		}
		c.branches = append(c.branches, branch{line, cond, then})
		line = p.at().line
		switch {
		case p.atTag("elif"):
			p.pos += 2
			continue
		case p.atTag("else"):
			p.pos += 2
			c.otherwise, err = p.body("endif")
			return c, err
		}
		return c, p.closing("endif")
	}
}

func (p *templateParser) loop(line int) (statement, error) {
	l := &loopOver{line: line}
	outer := len(p.bound)
	defer func() { p.bound = p.bound[:outer] }()
	var err error
	if l.into, err = p.target(); err != nil {
		return nil, err
	}
	if err := p.want(lexName, "in"); err != nil {
		return nil, err
	}
	if l.over, err = p.plainTuple(); err != nil {
		return nil, err
	}
	p.bind(l.into)
	p.bound = append(p.bound, "loop")
	if p.takeWord("if") {
		if l.where, err = p.expression(); err != nil {
			return nil, err
		}
	}
	if p.takeWord("recursive") {
		return nil, p.fail("recursive loops are not supported")
	}
	if err := p.want(lexBlockEnd, ""); err != nil {
		return nil, err
	}
	p.loops++
	l.body, err = p.block("else", "endfor")
	p.loops--
	if err != nil {
		return nil, err
	}
	p.bound = p.bound[:outer]
	if p.atTag("else") {
		p.pos += 2
		l.otherwise, err = p.body("endfor")
		return l, err
	}
	return l, p.closing("endfor")
}

// bind notes the variables of a target, so that reading them is no use of the caller's.
func (p *templateParser) bind(t target) {
	if t.parts == nil {
		p.bound = append(p.bound, t.name)
	}
	for _, part := range t.parts {
		p.bind(part)
	}
}
