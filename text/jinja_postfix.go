package text

import "strconv"

// postfix parses what follows an operand: lookups, calls, filters and tests.
func (p *templateParser) postfix(e expression) (expression, error) {
	for {
		next, err := p.lookup(e)
		switch {
		case err != nil:
			return nil, err
		case next != e:
		case p.takeOp("|"):
			next, err = p.filter(e)
		case p.takeWord("is"):
			next, err = p.test(e)
		default:
			return e, nil
		}
		if err != nil {
			return nil, err
		}
		e = next
	}
}

// lookup parses one attribute, subscript or call behind e; it returns e itself when there is none.
func (p *templateParser) lookup(e expression) (expression, error) {
	switch {
	case p.takeOp("."):
		w := p.at()
		p.pos++
		switch w.kind {
		case lexName:
			return &attribute{e, w.text}, nil
		case lexInt:
			i, err := strconv.ParseInt(w.text, 10, 64)
			return &subscript{e, &constant{Int(i)}}, err
		}
		p.pos--
		return nil, p.fail("expected a name behind '.'")
	case p.takeOp("["):
		return p.subscript(e)
	case p.takeOp("("):
		c := &call{of: e}
		err := p.arguments(&c.args)
		return c, err
	}
	return e, nil
}

// subscript parses the inside of brackets behind e: an index or a slice.
func (p *templateParser) subscript(e expression) (expression, error) {
	var part [3]expression
	n := 0
	for !p.is(lexOp, "]") {
		if p.takeOp(":") {
			if n++; n > 2 {
				return nil, p.fail("a slice has three parts")
			}
			continue
		}
		if part[n] != nil {
			return nil, p.fail("expected ]")
		}
		var err error
		if part[n], err = p.tuple(); err != nil {
			return nil, err
		}
	}
	p.pos++
	if n > 0 {
		return &slicing{e, part[0], part[1], part[2]}, nil
	}
	if part[0] == nil {
		return nil, p.fail("an index is missing")
	}
	return &subscript{e, part[0]}, nil
}

// arguments parses those of a call, behind the parenthesis.
func (p *templateParser) arguments(a *arguments) error {
	for first := true; !p.takeOp(")"); first = false {
		if !first {
			if err := p.want(lexOp, ","); err != nil {
				return err
			}
			if p.takeOp(")") {
				break
			}
		}
		var err error
		switch {
		case p.takeOp("**"):
			a.extra, err = p.expression()
		case p.takeOp("*"):
			a.rest, err = p.expression()
		case p.at().kind == lexName && p.words[p.pos+1].kind == lexOp && p.words[p.pos+1].text == "=":
			a.names = append(a.names, p.at().text)
			p.pos += 2
			var e expression
			e, err = p.expression()
			a.named = append(a.named, e)
		case len(a.names) > 0:
			return p.fail("an argument without a name follows one with a name")
		default:
			var e expression
			e, err = p.expression()
			a.pos = append(a.pos, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// filter parses a filter's name and arguments.
func (p *templateParser) filter(of expression) (expression, error) {
	name, err := p.dotted()
	if err != nil {
		return nil, err
	}
	f := &filtered{of: of, name: name, f: filterTable[name]}
	if p.takeOp("(") {
		err = p.arguments(&f.args)
	}
	return f, err
}

func (p *templateParser) dotted() (string, error) {
	name, err := p.wantName()
	for err == nil && p.takeOp(".") {
		var part string
		part, err = p.wantName()
		name += "." + part
	}
	return name, err
}

// test parses a test's name and its arguments, of which a single one needs no parentheses.
func (p *templateParser) test(of expression) (expression, error) {
	not := p.takeWord("not")
	name, err := p.dotted()
	if err != nil {
		return nil, err
	}
	t := &tested{of: of, name: name, f: testTable[name]}
	switch w := p.at(); {
	case p.takeOp("("):
		err = p.arguments(&t.args)
	case w.kind == lexName && w.text != "else" && w.text != "or" && w.text != "and",
		w.kind == lexString, w.kind == lexInt, w.kind == lexFloat,
		p.is(lexOp, "["), p.is(lexOp, "{"):
		if p.is(lexName, "is") {
			return nil, p.fail("tests cannot be chained")
		}
		var e expression
		if e, err = p.primary(); err != nil {
			return nil, err
		}
		for {
			next, err := p.lookup(e)
			if err != nil {
				return nil, err
			}
			if next == e {
				break
			}
			e = next
		}
		t.args.pos = []expression{e}
	}
	if not {
		return &negated{t}, err
	}
	return t, err
}
