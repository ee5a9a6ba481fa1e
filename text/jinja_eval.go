package text

import (
	"errors"
	"time"
)

// Limits bound one render. A zero field means its default.
type Limits struct {
	Steps  int              // expressions and entries visited, and a step for each 32 bytes of text handled; default 5 million
	Depth  int              // macro calls inside macro calls; default 64
	Output int              // bytes of the result, and of each string on the way; default 16 MiB
	Now    func() time.Time // the clock of strftime_now; default time.Now
}

func (l Limits) filled() Limits {
	if l.Steps <= 0 {
		l.Steps = 5_000_000
	}
	if l.Depth <= 0 {
		l.Depth = 64
	}
	if l.Output <= 0 {
		l.Output = 16 << 20
	}
	if l.Now == nil {
		l.Now = time.Now
	}
	return l
}

// Bounds within Go's stack, whatever the limits say.
const (
	maxEvalNesting = 5000 // expressions inside expressions, over all macros
	maxWalkNesting = 200  // lists inside lists that are compared or printed
	bytesPerStep   = 32
	maxMacroDepth  = 1000
)

// interp is one render: where it is, what it has written and what it may still do.
type interp struct {
	vars    *dict
	scope   *scope
	out     *markedWriter
	lim     Limits
	line    int
	steps   int // left
	macros  int // calls under way
	nesting int // expressions under way
	filters map[string]filter
	tests   map[string]test
}

// Render runs the template over vars, a dict, and returns what it writes as runs of one origin. The error is a *TemplateError.
func (t *Template) Render(vars Value, lim Limits) ([]Span, error) {
	if vars.kind != kindDict {
		return nil, failf("variables are %s, not dict", vars.typeName())
	}
	lim = lim.filled()
	in := &interp{
		vars: vars.dict(), scope: &scope{}, out: &markedWriter{}, lim: lim, steps: lim.Steps,
		filters: filterTable, tests: testTable,
	}
	if _, err := in.run(t.body); err != nil {
		return nil, in.locate(err)
	}
	return in.out.done().spans(), nil
}

// locate adds the line of the last statement to an error without one.
func (in *interp) locate(err error) error {
	var te *TemplateError
	if errors.As(err, &te) && te.Line == 0 {
		at := *te
		at.Line = in.line
		return &at
	}
	return err
}

// scope holds the variables that a block assigns. Lookups go up to the template's own, then to what the caller passed.
type scope struct {
	up    *scope
	names []string
	vals  []Value
	held  bool // a macro still looks into it
}

func (s *scope) set(name string, v Value) {
	for i := range s.names {
		if s.names[i] == name {
			s.vals[i] = v
			return
		}
	}
	s.names, s.vals = append(s.names, name), append(s.vals, v)
}

// hold keeps s and what is above it from being used for another round of a loop.
func (s *scope) hold() {
	for ; s != nil && !s.held; s = s.up {
		s.held = true
	}
}

// charge takes n steps.
func (in *interp) charge(n int) error {
	if in.steps -= n; in.steps < 0 {
		in.steps = 0
		return limitError("too many steps")
	}
	return nil
}

// chargeText takes the steps for a string of n bytes that is about to be made.
func (in *interp) chargeText(n int) error {
	if n < 0 || n > in.lim.Output {
		return limitError("text is too long")
	}
	return in.charge(n / bytesPerStep)
}

// chargeItems takes the steps for a list of n entries that is about to be made.
func (in *interp) chargeItems(n int) error {
	if n < 0 || n > in.lim.Steps {
		return limitError("list is too long")
	}
	return in.charge(n)
}

// chargeRead takes the steps for looking at all of v once.
func (in *interp) chargeRead(v Value) error {
	if v.kind == kindString {
		return in.charge(v.size() / bytesPerStep)
	}
	return in.charge(v.size())
}

// eval is how every part of an expression is evaluated: it counts.
func (in *interp) eval(e expression) (Value, error) {
	if err := in.charge(1); err != nil {
		return Value{}, err
	}
	if in.nesting++; in.nesting > maxEvalNesting {
		return Value{}, limitError("expressions are nested too deep")
	}
	v, err := e.eval(in)
	in.nesting--
	return v, err
}

// run executes statements until one jumps.
func (in *interp) run(b block) (flow, error) {
	for _, s := range b {
		if err := in.charge(1); err != nil {
			return flowOn, err
		}
		if f, err := s.exec(in); err != nil || f != flowOn {
			return f, err
		}
	}
	return flowOn, nil
}

// runIn executes b in a new scope under up, with what it writes going to out.
func (in *interp) runIn(b block, s *scope, out *markedWriter) (flow, error) {
	outerScope, outerOut := in.scope, in.out
	in.scope, in.out = s, out
	f, err := in.run(b)
	in.scope, in.out = outerScope, outerOut
	return f, err
}

// captured executes b in its own scope and returns what it writes.
func (in *interp) captured(b block) (Value, flow, error) {
	var w markedWriter
	f, err := in.runIn(b, &scope{up: in.scope}, &w)
	return textValue(w.done()), f, err
}

// write appends text to the output.
func (in *interp) write(m marked) error {
	if in.out.size()+len(m.s) > in.lim.Output {
		return limitError("output is too long")
	}
	in.out.add(m)
	return in.charge(len(m.s) / bytesPerStep)
}

func (in *interp) find(name string) Value {
	for s := in.scope; s != nil; s = s.up {
		for i := range s.names {
			if s.names[i] == name {
				return s.vals[i]
			}
		}
	}
	if v, ok := in.vars.lookup(name); ok {
		return v
	}
	if g, ok := globals[name]; ok {
		return g
	}
	return missingValue(&missing{name: name})
}

// assign stores v in t, unpacking it where t has parts.
func (in *interp) assign(t *target, v Value) error {
	switch {
	case t.parts != nil:
		items, err := in.iterate(v)
		if err != nil {
			return err
		}
		if len(items) != len(t.parts) {
			return failf("cannot unpack %d values into %d", len(items), len(t.parts))
		}
		for i := range t.parts {
			if err := in.assign(&t.parts[i], items[i]); err != nil {
				return err
			}
		}
	case t.field != "":
		ns := in.find(t.name)
		if ns.kind != kindNamespace {
			return failf("cannot assign attribute on non-namespace object")
		}
		ns.ref.(*namespace).vars.set(String(t.field), v)
	default:
		in.scope.set(t.name, v)
	}
	return nil
}
