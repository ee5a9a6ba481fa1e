package text

// values are the arguments of a call.
type values struct {
	pos   []Value
	names []string
	named []Value
}

// callable is what a template can call: a macro, a method bound to its value, or one of the globals.
type callable struct {
	name string
	f    func(in *interp, a values) (Value, error)
}

func callableValue(name string, f func(in *interp, a values) (Value, error)) Value {
	return Value{kind: kindCallable, ref: &callable{name, f}}
}

// method is a method of a string, a list or a dict.
type method func(in *interp, of Value, a values) (Value, error)

// bind sorts the arguments of what into the parameters; those not given are undefined.
func (a values) bind(what string, params ...string) ([]Value, error) {
	if len(a.pos) > len(params) {
		return nil, failf("%s takes at most %d arguments, not %d", what, len(params), len(a.pos))
	}
	out := make([]Value, len(params))
	copy(out, a.pos)
next:
	for i, name := range a.names {
		for j, p := range params {
			if p == name {
				if j < len(a.pos) {
					return nil, failf("%s has two values for argument '%s'", what, name)
				}
				out[j] = a.named[i]
				continue next
			}
		}
		return nil, failf("%s has no argument '%s'", what, name)
	}
	return out, nil
}

// need returns the arguments of what, of which the first n must be there.
func (a values) need(n int, what string, params ...string) ([]Value, error) {
	out, err := a.bind(what, params...)
	if err != nil {
		return nil, err
	}
	for i := range n {
		if i >= len(a.pos) && !a.has(params[i]) {
			return nil, failf("%s needs argument '%s'", what, params[i])
		}
	}
	return out, nil
}

func (a values) has(name string) bool {
	for _, n := range a.names {
		if n == name {
			return true
		}
	}
	return false
}

func (in *interp) evalArguments(a *arguments) (values, error) {
	var out values
	if a.empty() {
		return out, nil
	}
	out.pos = make([]Value, 0, len(a.pos))
	for _, e := range a.pos {
		v, err := in.eval(e)
		if err != nil {
			return out, err
		}
		out.pos = append(out.pos, v)
	}
	out.names = append(out.names, a.names...)
	for _, e := range a.named {
		v, err := in.eval(e)
		if err != nil {
			return out, err
		}
		out.named = append(out.named, v)
	}
	return out, in.spread(a, &out)
}

// spread adds the arguments behind * and **.
func (in *interp) spread(a *arguments, out *values) error {
	if a.rest != nil {
		v, err := in.eval(a.rest)
		if err != nil {
			return err
		}
		items, err := in.iterate(v)
		if err != nil {
			return err
		}
		out.pos = append(out.pos, items...)
	}
	if a.extra != nil {
		v, err := in.eval(a.extra)
		if err != nil {
			return err
		}
		if v.kind != kindDict {
			return failf("argument after ** must be a mapping, not %s", v.typeName())
		}
		d := v.dict()
		for i, k := range d.keys {
			if !k.isText() {
				return failf("keywords must be strings")
			}
			out.names, out.named = append(out.names, k.text().s), append(out.named, d.vals[i])
		}
		return in.charge(len(d.keys))
	}
	return nil
}

func (e *call) eval(in *interp) (Value, error) {
	if a, ok := e.of.(*attribute); ok {
		of, err := in.eval(a.of)
		if err != nil {
			return Value{}, err
		}
		if m := methodOf(of, a.name); m != nil {
			args, err := in.evalArguments(&e.args)
			if err != nil {
				return Value{}, err
			}
			return in.callMethod(m, of, args)
		}
		f, err := in.attribute(of, a.name)
		if err != nil {
			return Value{}, err
		}
		return in.callWith(f, &e.args)
	}
	f, err := in.eval(e.of)
	if err != nil {
		return Value{}, err
	}
	return in.callWith(f, &e.args)
}

func (in *interp) callWith(f Value, a *arguments) (Value, error) {
	args, err := in.evalArguments(a)
	if err != nil {
		return Value{}, err
	}
	return in.call(f, args)
}

func (in *interp) call(f Value, a values) (Value, error) {
	if c, ok := f.ref.(*callable); ok {
		return c.f(in, a)
	}
	if f.kind == kindUndefined {
		return Value{}, f.undefinedError()
	}
	return Value{}, failf("'%s' object is not callable", f.typeName())
}

// callMethod runs m after the steps for reading its text and arguments are taken.
func (in *interp) callMethod(m method, of Value, a values) (Value, error) {
	if err := in.chargeRead(of); err != nil {
		return Value{}, err
	}
	for _, v := range a.pos {
		if err := in.chargeRead(v); err != nil {
			return Value{}, err
		}
	}
	return m(in, of, a)
}

// macro returns the callable of a macro, which sees the scope it is defined in.
func (in *interp) macro(m *macroDef) Value {
	home := in.scope
	home.hold()
	return callableValue(m.name, func(in *interp, a values) (Value, error) {
		if in.macros++; in.macros > min(in.lim.Depth, maxMacroDepth) {
			return Value{}, limitError("macros are nested too deep")
		}
		outer := in.scope
		in.scope = &scope{up: home}
		err := in.bindMacro(m, a)
		inner := in.scope
		in.scope = outer
		if err != nil {
			return Value{}, err
		}
		var w markedWriter
		line := in.line
		_, err = in.runIn(m.body, inner, &w)
		if err != nil {
			return Value{}, err
		}
		in.line = line
		in.macros--
		return textValue(w.done()), nil
	})
}

// bindMacro assigns the parameters in the current scope, which is the macro's.
func (in *interp) bindMacro(m *macroDef, a values) error {
	given := len(a.pos)
	extra := newDict(0)
	byName := make([]Value, len(m.params))
	has := make([]bool, len(m.params))
	if m.takes.caller {
		in.scope.set("caller", missingValue(&missing{hint: "no caller defined"}))
	}
next:
	for i, name := range a.names {
		for j, p := range m.params {
			if p == name && j >= given {
				byName[j], has[j] = a.named[i], true
				continue next
			}
		}
		if name == "caller" && m.takes.caller {
			in.scope.set(name, a.named[i])
			continue
		}
		if !m.takes.kwargs {
			return failf("macro '%s' takes no keyword argument '%s'", m.name, name)
		}
		extra.set(String(name), a.named[i])
	}
	if given > len(m.params) && !m.takes.varargs {
		return failf("macro '%s' takes not more than %d argument(s)", m.name, len(m.params))
	}
	for j, p := range m.params {
		v := byName[j]
		switch from := j - (len(m.params) - len(m.defaults)); {
		case j < given:
			v = a.pos[j]
		case has[j]:
		case from >= 0:
			var err error
			if v, err = in.eval(m.defaults[from]); err != nil {
				return err
			}
		default:
			v = missingValue(&missing{hint: "parameter '" + p + "' was not provided"})
		}
		in.scope.set(p, v)
	}
	if m.takes.varargs {
		in.scope.set("varargs", tupleValue(a.pos[min(given, len(m.params)):]...))
	}
	if m.takes.kwargs {
		in.scope.set("kwargs", dictValue(extra))
	}
	return nil
}
