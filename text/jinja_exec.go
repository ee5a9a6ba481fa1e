package text

func (s *output) exec(in *interp) (flow, error) { return flowOn, in.write(s.text) }

func (s *jump) exec(*interp) (flow, error) { return s.to, nil }

func (s *printed) exec(in *interp) (flow, error) {
	in.line = s.line
	v, err := in.eval(s.of)
	if err != nil {
		return flowOn, err
	}
	m, err := in.str(v)
	if err != nil {
		return flowOn, err
	}
	return flowOn, in.write(m)
}

func (s *choice) exec(in *interp) (flow, error) {
	for i := range s.branches {
		b := &s.branches[i]
		in.line = b.line
		v, err := in.eval(b.cond)
		if err != nil {
			return flowOn, err
		}
		if v.truth() {
			return in.run(b.then)
		}
	}
	return in.run(s.otherwise)
}

func (s *assignment) exec(in *interp) (flow, error) {
	in.line = s.line
	v, err := in.eval(s.from)
	if err != nil {
		return flowOn, err
	}
	return flowOn, in.assign(&s.to, v)
}

func (s *capture) exec(in *interp) (flow, error) {
	in.line = s.line
	v, f, err := in.captured(s.body)
	if err != nil || f != flowOn {
		return f, err
	}
	if s.filters != nil {
		if v, err = in.filterText(s.filters, v); err != nil {
			return flowOn, err
		}
	}
	return flowOn, in.assign(&s.to, v)
}

func (s *filterBlock) exec(in *interp) (flow, error) {
	in.line = s.line
	v, f, err := in.captured(s.body)
	if err != nil || f != flowOn {
		return f, err
	}
	if v, err = in.filterText(s.filters, v); err != nil {
		return flowOn, err
	}
	m, err := in.str(v)
	if err != nil {
		return flowOn, err
	}
	return flowOn, in.write(m)
}

// filterText evaluates filters over the text of a block.
func (in *interp) filterText(filters expression, v Value) (Value, error) {
	outer := in.scope
	in.scope = &scope{up: outer, names: []string{capturedName}, vals: []Value{v}}
	v, err := in.eval(filters)
	in.scope = outer
	return v, err
}

func (s *scoped) exec(in *interp) (flow, error) {
	in.line = s.line
	inner := &scope{up: in.scope}
	for i := range s.names {
		v, err := in.eval(s.vals[i])
		if err != nil {
			return flowOn, err
		}
		outer := in.scope
		in.scope = inner
		err = in.assign(&s.names[i], v)
		in.scope = outer
		if err != nil {
			return flowOn, err
		}
	}
	return in.runIn(s.body, inner, in.out)
}

func (s *loopOver) exec(in *interp) (flow, error) {
	in.line = s.line
	over, err := in.eval(s.over)
	if err != nil {
		return flowOn, err
	}
	items, err := in.iterate(over)
	if err != nil {
		return flowOn, err
	}
	if s.where != nil {
		if items, err = in.where(s, items); err != nil {
			return flowOn, err
		}
	}
	whole, err := in.rounds(s, items)
	if err != nil || whole {
		return flowOn, err
	}
	return in.runIn(s.otherwise, &scope{up: in.scope}, in.out)
}

// rounds runs the body for each item. It reports whether any round ran to its end: if none did, be it for a break or continue,
// the reference takes the else.
func (in *interp) rounds(s *loopOver, items []Value) (whole bool, err error) {
	outer := in.scope
	defer func() { in.scope = outer }()
	l := &loop{items: items}
	inner := &scope{up: outer}
	for i := range items {
		l.at = i
		if err := in.charge(1); err != nil {
			return whole, err
		}
		if inner.held {
			inner = &scope{up: outer}
		}
		inner.names, inner.vals = inner.names[:0], inner.vals[:0]
		in.scope = inner
		inner.set("loop", Value{kind: kindLoop, ref: l})
		if err := in.assign(&s.into, items[i]); err != nil {
			return whole, err
		}
		f, err := in.run(s.body)
		if err != nil || f == flowBreak {
			return whole, err
		}
		whole = whole || f == flowOn
	}
	return whole, nil
}

// where returns the items for which the loop's condition holds.
func (in *interp) where(s *loopOver, items []Value) ([]Value, error) {
	outer := in.scope
	defer func() { in.scope = outer }()
	in.scope = &scope{up: outer}
	var kept []Value
	for _, it := range items {
		if err := in.assign(&s.into, it); err != nil {
			return nil, err
		}
		v, err := in.eval(s.where)
		if err != nil {
			return nil, err
		}
		if v.truth() {
			kept = append(kept, it)
		}
	}
	return kept, nil
}

func (s *macroDef) exec(in *interp) (flow, error) {
	in.scope.set(s.name, in.macro(s))
	return flowOn, nil
}

func (s *callBlock) exec(in *interp) (flow, error) {
	in.line = s.line
	args, err := in.evalArguments(&s.call.args)
	if err != nil {
		return flowOn, err
	}
	args.names = append(args.names, "caller")
	args.named = append(args.named, in.macro(s.caller))
	of, err := in.eval(s.call.of)
	if err != nil {
		return flowOn, err
	}
	v, err := in.call(of, args)
	if err != nil {
		return flowOn, err
	}
	m, err := in.str(v)
	if err != nil {
		return flowOn, err
	}
	return flowOn, in.write(m)
}
