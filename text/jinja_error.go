package text

import (
	"errors"
	"fmt"
)

// What a *TemplateError is, for errors.Is. ErrTemplate is all of them.
var (
	ErrTemplate       = errors.New("chat template")                           // whatever goes wrong with a template
	ErrTemplateSyntax = errors.New("chat template: bad syntax")               // when parsing: the text is no template
	ErrTemplateRaised = errors.New("chat template: refused the conversation") // when rendering: the template called raise_exception
	ErrTemplateLimit  = errors.New("chat template: limit reached")            // too large, too deep, too long, too many steps
)

// ErrValue: text is not JSON, or too large or too deep to be a Value.
var ErrValue = errors.New("bad JSON value")

// TemplateError says where and why a template failed.
type TemplateError struct {
	When error  // one of the ErrTemplate errors
	Line int    // of the template, from 1; 0 if no line is to blame
	Why  string // for a template that refuses, its own words
}

func (e *TemplateError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%v: %s", e.When, e.Why)
	}
	return fmt.Sprintf("%v: line %d: %s", e.When, e.Line, e.Why)
}

// Unwrap makes every TemplateError an ErrTemplate and the more exact error.
func (e *TemplateError) Unwrap() []error { return []error{ErrTemplate, e.When} }

func syntaxError(line int, why string) error {
	return &TemplateError{When: ErrTemplateSyntax, Line: line, Why: why}
}

// failf returns an error of rendering. The line is filled in where the statement is known.
func failf(format string, args ...any) error {
	return &TemplateError{When: ErrTemplate, Why: fmt.Sprintf(format, args...)}
}

func limitError(what string) error { return &TemplateError{When: ErrTemplateLimit, Why: what} }
