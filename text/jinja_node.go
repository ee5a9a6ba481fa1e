package text

// expression is a part of a template that has a value.
type expression interface {
	eval(in *interp) (Value, error)
}

// statement is a part of a template that writes, assigns or branches.
type statement interface {
	exec(in *interp) (flow, error)
}

// flow says how to go on after a statement.
type flow uint8

const (
	flowOn flow = iota
	flowBreak
	flowContinue
)

type block []statement

type (
	constant struct{ v Value }
	variable struct{ name string }
	// sequenceOf is a list literal, or a tuple.
	sequenceOf struct {
		kind  valueKind
		items []expression
	}
	dictOf    struct{ keys, vals []expression }
	attribute struct {
		of   expression
		name string
	}
	subscript struct{ of, at expression }
	slicing   struct{ of, lo, hi, step expression } // nil where left out
	call      struct {
		of   expression
		args arguments
	}
	filtered struct {
		of   expression // nil: the body of a filter block
		name string
		f    filter // nil: there is none of this name, which fails when it is reached
		args arguments
	}
	tested struct {
		of   expression
		name string
		f    test
		args arguments
	}
	negated struct{ of expression } // not x
	signed  struct {
		op byte
		of expression
	}
	binary struct {
		op          string
		left, right expression
	}
	sum     struct{ parts []expression } // the first plus the second plus ...
	logical struct {
		op          string // "and" or "or"
		left, right expression
	}
	// compared is a chain: first op[0] rest[0] op[1] rest[1] ...
	compared struct {
		first expression
		ops   []string
		rest  []expression
	}
	conditional struct{ then, cond, otherwise expression }
	concat      struct{ parts []expression }
)

// arguments are the arguments of a call as written.
type arguments struct {
	pos         []expression
	names       []string
	named       []expression
	rest, extra expression // *rest and **extra; nil where left out
}

func (a *arguments) empty() bool {
	return len(a.pos) == 0 && len(a.names) == 0 && a.rest == nil && a.extra == nil
}

type (
	// output writes text as it stands.
	output struct{ text marked }
	// printed writes the value of an expression.
	printed struct {
		line int
		of   expression
	}
	branch struct {
		line int
		cond expression
		then block
	}
	// choice runs the first branch that holds, else otherwise.
	choice struct {
		branches  []branch
		otherwise block
	}
	loopOver struct {
		line      int
		into      target
		over      expression
		where     expression // nil where left out
		body      block
		otherwise block
	}
	assignment struct {
		line int
		to   target
		from expression
	}
	// capture assigns what its body writes, filtered.
	capture struct {
		line    int
		to      target
		body    block
		filters expression // over the variable capturedName; nil for none
	}
	// macroDef defines a macro; a call block is an unnamed one.
	macroDef struct {
		line     int
		name     string
		params   []string
		defaults []expression // of the last params
		body     block
		takes    macroTakes
	}
	callBlock struct {
		line   int
		call   *call
		caller *macroDef
	}
	filterBlock struct {
		line    int
		filters expression
		body    block
	}
	// scoped runs its body in a scope of its own, with variables of its own.
	scoped struct {
		line  int
		names []target
		vals  []expression
		body  block
	}
	jump struct{ to flow }
)

// macroTakes are the special variables that a macro's body reads, and so accepts arguments for.
type macroTakes struct{ varargs, kwargs, caller bool }

// target is what an assignment or a loop assigns to.
type target struct {
	name  string   // a variable
	field string   // if not empty, the field of the namespace in name
	parts []target // if not nil, the sequence is unpacked
}

// capturedName is the variable that holds a block's text while its filters run. No template can spell it.
const capturedName = " captured"
