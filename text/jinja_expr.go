package text

import "strconv"

// tuple parses what a print or a set takes: an expression, or several with commas between them.
func (p *templateParser) tuple() (expression, error) { return p.tupleOf(p.expression) }

// plainTuple is a tuple whose items have no inline if, which would be taken for the one of a loop.
func (p *templateParser) plainTuple() (expression, error) { return p.tupleOf(p.disjunction) }

func (p *templateParser) tupleOf(item func() (expression, error)) (expression, error) {
	first, err := item()
	if err != nil || !p.is(lexOp, ",") {
		return first, err
	}
	t := &sequenceOf{kindTuple, []expression{first}}
	for p.takeOp(",") {
		if w := p.at(); w.kind == lexBlockEnd || w.kind == lexPrintEnd || p.is(lexOp, ")") || p.is(lexOp, "]") {
			break
		}
		e, err := item()
		if err != nil {
			return nil, err
		}
		t.items = append(t.items, e)
	}
	return t, nil
}

// expression parses one with inline ifs.
func (p *templateParser) expression() (expression, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	e, err := p.disjunction()
	if err != nil {
		return nil, err
	}
	for p.takeWord("if") {
		c := &conditional{then: e}
		if c.cond, err = p.disjunction(); err != nil {
			return nil, err
		}
		if p.takeWord("else") {
			if c.otherwise, err = p.expression(); err != nil {
				return nil, err
			}
		}
		e = c
	}
	return e, nil
}

func (p *templateParser) disjunction() (expression, error) {
	e, err := p.conjunction()
	for err == nil && p.takeWord("or") {
		var r expression
		if r, err = p.conjunction(); err == nil {
			e = &logical{"or", e, r}
		}
	}
	return e, err
}

func (p *templateParser) conjunction() (expression, error) {
	e, err := p.negation()
	for err == nil && p.takeWord("and") {
		var r expression
		if r, err = p.negation(); err == nil {
			e = &logical{"and", e, r}
		}
	}
	return e, err
}

func (p *templateParser) negation() (expression, error) {
	if !p.takeWord("not") {
		return p.comparison()
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	e, err := p.negation()
	return &negated{e}, err
}

func (p *templateParser) comparison() (expression, error) {
	first, err := p.sum()
	if err != nil {
		return nil, err
	}
	c := &compared{first: first}
	for {
		op := ""
		switch w := p.at(); {
		case w.kind == lexOp:
			switch w.text {
			case "==", "!=", "<", "<=", ">", ">=":
				op = w.text
				p.pos++
			}
		case p.takeWord("in"):
			op = "in"
		case p.is(lexName, "not") && p.words[p.pos+1].text == "in":
			op = "not in"
			p.pos += 2
		}
		if op == "" {
			break
		}
		r, err := p.sum()
		if err != nil {
			return nil, err
		}
		c.ops, c.rest = append(c.ops, op), append(c.rest, r)
	}
	if len(c.ops) == 0 {
		return first, nil
	}
	return c, nil
}

// chain parses operands with left-associative operators between them.
func (p *templateParser) chain(operand func() (expression, error), ops ...string) (expression, error) {
	e, err := operand()
next:
	for err == nil && p.at().kind == lexOp {
		for _, op := range ops {
			if p.takeOp(op) {
				var r expression
				if r, err = operand(); err == nil {
					e = binaryOf(op, e, r)
				}
				continue next
			}
		}
		break
	}
	return e, err
}

// binaryOf joins two operands; a run of + becomes one node.
func binaryOf(op string, l, r expression) expression {
	if op != "+" {
		return &binary{op, l, r}
	}
	if s, ok := l.(*sum); ok {
		s.parts = append(s.parts, r)
		return s
	}
	return &sum{[]expression{l, r}}
}

func (p *templateParser) sum() (expression, error) { return p.chain(p.joined, "+", "-") }

func (p *templateParser) product() (expression, error) {
	return p.chain(p.power, "*", "//", "/", "%")
}

func (p *templateParser) power() (expression, error) { return p.chain(p.unary, "**") }

func (p *templateParser) joined() (expression, error) {
	e, err := p.product()
	if err != nil || !p.is(lexOp, "~") {
		return e, err
	}
	c := &concat{[]expression{e}}
	for p.takeOp("~") {
		if e, err = p.product(); err != nil {
			return nil, err
		}
		c.parts = append(c.parts, e)
	}
	return c, nil
}

// unary parses a signed operand with its lookups, filters and tests. The filters see the sign: -1|abs is 1.
func (p *templateParser) unary() (expression, error) {
	e, err := p.signed()
	if err != nil {
		return nil, err
	}
	return p.postfix(e)
}

func (p *templateParser) signed() (expression, error) {
	for _, op := range []string{"-", "+"} {
		if p.takeOp(op) {
			if err := p.enter(); err != nil {
				return nil, err
			}
			defer p.leave()
			e, err := p.signed()
			return &signed{op[0], e}, err
		}
	}
	e, err := p.primary()
	for err == nil {
		next := e
		if next, err = p.lookup(e); next == e {
			break
		}
		e = next
	}
	return e, err
}

func (p *templateParser) primary() (expression, error) {
	w := p.at()
	p.pos++
	switch w.kind {
	case lexName:
		return p.named(w.text), nil
	case lexString:
		s := w.text
		for p.at().kind == lexString {
			s += p.at().text
			p.pos++
		}
		return &constant{String(s)}, nil
	case lexInt:
		i, err := strconv.ParseInt(w.text, 10, 64)
		return &constant{Int(i)}, err
	case lexFloat:
		f, _ := strconv.ParseFloat(w.text, 64) // out of range is infinite, as in Python
		return &constant{Float(f)}, nil
	case lexOp:
		switch w.text {
		case "(":
			return p.parenthesis()
		case "[":
			items, err := p.items("]")
			return &sequenceOf{kindList, items}, err
		case "{":
			return p.dictOf()
		}
	}
	p.pos--
	if w.text == "" {
		return nil, p.fail("an expression is missing")
	}
	return nil, p.fail("unexpected '" + w.text + "'")
}

// named resolves a name to a constant or a variable, and notes what it reads.
func (p *templateParser) named(name string) expression {
	switch name {
	case "true", "True":
		return &constant{Bool(true)}
	case "false", "False":
		return &constant{Bool(false)}
	case "none", "None":
		return &constant{None}
	}
	if p.macro != nil {
		switch name {
		case "varargs":
			p.macro.varargs = true
		case "kwargs":
			p.macro.kwargs = true
		case "caller":
			p.macro.caller = true
		}
	}
	for _, b := range p.bound {
		if b == name {
			return &variable{name}
		}
	}
	p.uses[name] = true
	return &variable{name}
}

func (p *templateParser) parenthesis() (expression, error) {
	if p.takeOp(")") {
		return &sequenceOf{kind: kindTuple}, nil
	}
	e, err := p.tuple()
	if err != nil {
		return nil, err
	}
	return e, p.want(lexOp, ")")
}

// items parses expressions with commas between them, up to the closing bracket.
func (p *templateParser) items(end string) ([]expression, error) {
	var out []expression
	for !p.takeOp(end) {
		if len(out) > 0 {
			if err := p.want(lexOp, ","); err != nil {
				return nil, err
			}
			if p.takeOp(end) {
				break
			}
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func (p *templateParser) dictOf() (expression, error) {
	d := &dictOf{}
	for !p.takeOp("}") {
		if len(d.keys) > 0 {
			if err := p.want(lexOp, ","); err != nil {
				return nil, err
			}
			if p.takeOp("}") {
				break
			}
		}
		k, err := p.expression()
		if err != nil {
			return nil, err
		}
		if err := p.want(lexOp, ":"); err != nil {
			return nil, err
		}
		v, err := p.expression()
		if err != nil {
			return nil, err
		}
		d.keys, d.vals = append(d.keys, k), append(d.vals, v)
	}
	return d, nil
}
