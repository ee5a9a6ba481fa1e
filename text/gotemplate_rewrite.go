package text

import (
	"fmt"
	"slices"
	"strconv"
	"text/template"
	"text/template/parse"
)

// Limits of a Go template's tree.
const (
	maxGoNodes = 20_000
	maxGoArgs  = 64 // of one call
)

// Functions that only the rewriter can put into a template: a source that names them is refused, as they are unknown when it is parsed.
const (
	tickName  = "winnowTick"
	plainName = "winnowPlain"
)

// lastName is the template that writes the last turn, see writeTurns.
const lastName = "\x00last"

// lookers are the functions that look at strings as such. Their operands come to them without marks, so that a mark changes no answer.
var lookers = []string{"eq", "ne", "lt", "le", "gt", "ge", "len", "index"}

// rewriter walks a template's trees: it refuses what is not to be run, lets every list that may run again count its steps, and keeps marks
// from functions that look at strings.
type rewriter struct {
	nodes   int // all
	since   int // those of the list that is being walked
	nesting int
	clock   bool
	calls   map[string][]string // which template calls which
	caller  string
}

// all rewrites a template and those that it defines.
func (r *rewriter) all(set *template.Template) error {
	r.calls = map[string][]string{}
	for _, t := range set.Templates() {
		if t.Tree == nil || t.Root == nil {
			continue
		}
		r.caller = t.Name()
		if err := r.body(t.Root); err != nil {
			return err
		}
	}
	done := map[string]bool{}
	for name := range r.calls {
		if err := r.acyclic(name, nil, done); err != nil {
			return err
		}
	}
	return nil
}

// acyclic refuses templates that call themselves.
func (r *rewriter) acyclic(name string, path []string, done map[string]bool) error {
	switch {
	case done[name]:
		return nil
	case slices.Contains(path, name):
		return syntaxError(0, fmt.Sprintf("template %.64q calls itself", name))
	case len(path) > maxNesting:
		return limitError("templates call each other too deep")
	}
	path = append(path, name)
	for _, called := range r.calls[name] {
		if err := r.acyclic(called, path, done); err != nil {
			return err
		}
	}
	done[name] = true
	return nil
}

// body rewrites a list that may run many times: it begins with a count of what one run takes.
func (r *rewriter) body(l *parse.ListNode) error {
	outer := r.since
	r.since = 1
	if err := r.list(l); err != nil {
		return err
	}
	l.Nodes = slices.Insert(l.Nodes, 0, tick(r.since))
	r.since = outer
	return nil
}

// tick is a statement that counts n steps.
func tick(n int) parse.Node {
	number := &parse.NumberNode{NodeType: parse.NodeNumber, IsInt: true, Int64: int64(n), Text: strconv.Itoa(n)}
	return &parse.ActionNode{NodeType: parse.NodeAction, Pipe: pipe(command(tickName, number))}
}

func command(name string, args ...parse.Node) *parse.CommandNode {
	return &parse.CommandNode{NodeType: parse.NodeCommand, Args: slices.Insert(args, 0, parse.Node(parse.NewIdentifier(name)))}
}

func pipe(cmds ...*parse.CommandNode) *parse.PipeNode {
	return &parse.PipeNode{NodeType: parse.NodePipe, Cmds: cmds}
}

func (r *rewriter) list(l *parse.ListNode) error {
	if l == nil {
		return nil
	}
	if r.nesting++; r.nesting > maxNesting {
		return limitError("nested too deep")
	}
	defer func() { r.nesting-- }()
	for _, n := range l.Nodes {
		if err := r.statement(n); err != nil {
			return err
		}
	}
	return nil
}

func (r *rewriter) statement(n parse.Node) error {
	r.since++
	if r.nodes++; r.nodes > maxGoNodes {
		return limitError(fmt.Sprintf("more than %d nodes", maxGoNodes))
	}
	switch n := n.(type) {
	case *parse.ActionNode:
		return r.pipe(n.Pipe)
	case *parse.IfNode:
		return r.branch(&n.BranchNode)
	case *parse.WithNode:
		return r.branch(&n.BranchNode)
	case *parse.RangeNode:
		if err := r.pipe(n.Pipe); err != nil {
			return err
		}
		if last := n.Pipe.Cmds[len(n.Pipe.Cmds)-1]; len(last.Args) == 1 && last.Args[0].Type() == parse.NodeNumber {
			return syntaxError(n.Line, "a loop over a number")
		}
		if err := r.body(n.List); err != nil {
			return err
		}
		return r.list(n.ElseList)
	case *parse.TemplateNode:
		if n.Name == lastName {
			return syntaxError(n.Line, "a template that is not there")
		}
		r.calls[r.caller] = append(r.calls[r.caller], n.Name)
		return r.pipe(n.Pipe)
	}
	return nil
}

func (r *rewriter) branch(b *parse.BranchNode) error {
	if err := r.pipe(b.Pipe); err != nil {
		return err
	}
	if err := r.list(b.List); err != nil {
		return err
	}
	return r.list(b.ElseList)
}

// pipe rewrites the commands of a pipeline.
func (r *rewriter) pipe(p *parse.PipeNode) error {
	if p == nil {
		return nil
	}
	if r.nesting++; r.nesting > maxNesting {
		return limitError("nested too deep")
	}
	defer func() { r.nesting-- }()
	var cmds []*parse.CommandNode
	for i, c := range p.Cmds {
		if len(c.Args) > maxGoArgs {
			return limitError(fmt.Sprintf("a call with more than %d operands", maxGoArgs))
		}
		for _, a := range c.Args {
			if err := r.operand(a); err != nil {
				return err
			}
		}
		if f, ok := c.Args[0].(*parse.IdentifierNode); ok && slices.Contains(lookers, f.Ident) {
			if i > 0 {
				cmds = append(cmds, command(plainName))
			}
			for k, a := range c.Args[1:] {
				switch a.Type() {
				case parse.NodeString, parse.NodeNumber, parse.NodeBool, parse.NodeNil:
				default:
					c.Args[1+k] = pipe(command(plainName, a))
				}
			}
		}
		cmds = append(cmds, c)
	}
	p.Cmds = cmds
	return nil
}

func (r *rewriter) operand(n parse.Node) error {
	r.since++
	if r.nodes++; r.nodes > maxGoNodes {
		return limitError(fmt.Sprintf("more than %d nodes", maxGoNodes))
	}
	switch n := n.(type) {
	case *parse.PipeNode:
		return r.pipe(n)
	case *parse.IdentifierNode:
		r.clock = r.clock || n.Ident == "currentDate" || n.Ident == "yesterdayDate"
	case *parse.StringNode:
		if touched(n.Text) {
			return syntaxError(0, "it has a character that stands for no text")
		}
	case *parse.FieldNode:
		return fieldNames(n.Ident)
	case *parse.VariableNode:
		return fieldNames(n.Ident[1:])
	case *parse.ChainNode:
		if err := fieldNames(n.Field); err != nil {
			return err
		}
		return r.operand(n.Node)
	}
	return nil
}

// fieldNames refuses the one method that values have: to print them is to call it, under the limit on what is printed.
func fieldNames(names []string) error {
	if slices.Contains(names, "String") {
		return syntaxError(0, "a call of a method")
	}
	return nil
}

// cutAnswer takes from a list what stands behind the response, and the response. It reports whether there was one.
func cutAnswer(l *parse.ListNode) bool {
	if l == nil {
		return false
	}
	for i, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			if readsAnswer(n.Pipe) {
				l.Nodes = l.Nodes[:i]
				return true
			}
		case *parse.IfNode:
			if cutBranch(&n.BranchNode) {
				l.Nodes = l.Nodes[:i+1]
				return true
			}
		case *parse.WithNode:
			if cutBranch(&n.BranchNode) {
				l.Nodes = l.Nodes[:i+1]
				return true
			}
		case *parse.RangeNode:
			if cutBranch(&n.BranchNode) {
				l.Nodes = l.Nodes[:i+1]
				return true
			}
		}
	}
	return false
}

func cutBranch(b *parse.BranchNode) bool {
	then, otherwise := cutAnswer(b.List), cutAnswer(b.ElseList)
	return then || otherwise
}

// readsAnswer reports whether a pipeline has the response.
func readsAnswer(p *parse.PipeNode) bool {
	if p == nil {
		return false
	}
	for _, c := range p.Cmds {
		for _, a := range c.Args {
			switch a := a.(type) {
			case *parse.FieldNode:
				if slices.Contains(a.Ident, "Response") {
					return true
				}
			case *parse.PipeNode:
				if readsAnswer(a) {
					return true
				}
			}
		}
	}
	return false
}
