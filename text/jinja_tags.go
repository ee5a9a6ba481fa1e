package text

// The tags set, macro, call, filter and with.

func (p *templateParser) assignment(line int) (statement, error) {
	to, err := p.target()
	if err != nil {
		return nil, err
	}
	if p.takeOp("=") {
		from, err := p.tuple()
		if err != nil {
			return nil, err
		}
		return &assignment{line, to, from}, p.want(lexBlockEnd, "")
	}
	c := &capture{line: line, to: to}
	if p.is(lexOp, "|") {
		if c.filters, err = p.postfix(&variable{capturedName}); err != nil {
			return nil, err
		}
	}
	c.body, err = p.body("endset")
	return c, err
}

// target parses what is assigned to: a name, a field of a namespace, or several of them.
func (p *templateParser) target() (target, error) {
	var parts []target
	for {
		t, err := p.oneTarget()
		if err != nil {
			return t, err
		}
		if !p.takeOp(",") {
			if parts == nil {
				return t, nil
			}
			return target{parts: append(parts, t)}, nil
		}
		parts = append(parts, t)
		if p.is(lexName, "in") || p.is(lexOp, "=") || p.is(lexOp, ")") {
			return target{parts: parts}, nil
		}
	}
}

func (p *templateParser) oneTarget() (target, error) {
	if p.takeOp("(") {
		if err := p.enter(); err != nil {
			return target{}, err
		}
		defer p.leave()
		t, err := p.target()
		if err != nil {
			return t, err
		}
		return t, p.want(lexOp, ")")
	}
	name, err := p.wantName()
	if err != nil {
		return target{}, err
	}
	switch name {
	case "true", "false", "none", "True", "False", "None":
		return target{}, p.fail("cannot assign to " + name)
	}
	if !p.takeOp(".") {
		return target{name: name}, nil
	}
	p.uses[name] = true
	field, err := p.wantName()
	return target{name: name, field: field}, err
}

// params parses "(a, b=1)".
func (p *templateParser) params(m *macroDef) error {
	for first := true; !p.takeOp(")"); first = false {
		if !first {
			if err := p.want(lexOp, ","); err != nil {
				return err
			}
		}
		name, err := p.wantName()
		if err != nil {
			return err
		}
		m.params = append(m.params, name)
		switch {
		case p.takeOp("="):
			e, err := p.expression()
			if err != nil {
				return err
			}
			m.defaults = append(m.defaults, e)
		case len(m.defaults) > 0:
			return p.fail("parameter " + name + " needs a default, as the one before has")
		}
	}
	return nil
}

func (p *templateParser) macroDef(line int) (statement, error) {
	name, err := p.wantName()
	if err != nil {
		return nil, err
	}
	m := &macroDef{line: line, name: name}
	if err := p.want(lexOp, "("); err != nil {
		return nil, err
	}
	if err := p.params(m); err != nil {
		return nil, err
	}
	return m, p.macroBody(m, "endmacro")
}

func (p *templateParser) macroBody(m *macroDef, end string) error {
	outer, loops, bound := p.macro, p.loops, len(p.bound)
	p.macro, p.loops = &m.takes, 0
	p.bound = append(append(p.bound, m.params...), "varargs", "kwargs", "caller")
	var err error
	m.body, err = p.body(end)
	p.macro, p.loops, p.bound = outer, loops, p.bound[:bound]
	return err
}

func (p *templateParser) callBlock(line int) (statement, error) {
	m := &macroDef{line: line, name: "caller"}
	if p.takeOp("(") {
		if err := p.params(m); err != nil {
			return nil, err
		}
	}
	e, err := p.expression()
	if err != nil {
		return nil, err
	}
	c, ok := e.(*call)
	if !ok {
		return nil, p.fail("a call block needs a call")
	}
	return &callBlock{line, c, m}, p.macroBody(m, "endcall")
}

func (p *templateParser) filterBlock(line int) (statement, error) {
	e, err := p.filter(&variable{capturedName})
	if err != nil {
		return nil, err
	}
	if e, err = p.postfix(e); err != nil {
		return nil, err
	}
	b, err := p.body("endfilter")
	return &filterBlock{line, e, b}, err
}

func (p *templateParser) with(line int) (statement, error) {
	s := &scoped{line: line}
	for p.at().kind != lexBlockEnd {
		if len(s.names) > 0 {
			if err := p.want(lexOp, ","); err != nil {
				return nil, err
			}
		}
		t, err := p.oneTarget()
		if err != nil {
			return nil, err
		}
		if err := p.want(lexOp, "="); err != nil {
			return nil, err
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		s.names, s.vals = append(s.names, t), append(s.vals, e)
	}
	var err error
	s.body, err = p.body("endwith")
	return s, err
}
