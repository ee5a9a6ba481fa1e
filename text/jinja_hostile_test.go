package text

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestHostileTemplates: whatever a template tries, it ends soon and with a typed error.
func TestHostileTemplates(t *testing.T) {
	long := strings.Repeat
	for name, src := range map[string]string{
		"long range":          `{% for i in range(1000000000) %}x{% endfor %}`,
		"nested loops":        `{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}`,
		"silent loops":        `{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}`,
		"string times":        `{{ 'a' * 10 ** 9 }}`,
		"string times max":    `{{ 'ab' * 9223372036854775807 }}`,
		"list times":          `{{ [1] * 10 ** 9 }}`,
		"doubling text":       `{% set ns = namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}`,
		"doubling by plus":    `{% set ns = namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}`,
		"doubling list":       `{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}`,
		"deep list":           `{% set ns = namespace(s=[1]) %}{% for i in range(50000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}`,
		"deep compare":        `{% set ns = namespace(s=[1], r=[1]) %}{% for i in range(5000) %}{% set ns.s = [ns.s] %}{% set ns.r = [ns.r] %}{% endfor %}{{ ns.s == ns.r }}`,
		"deep json":           `{% set ns = namespace(s=[1]) %}{% for i in range(5000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s | tojson }}`,
		"wide json":           `{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}`,
		"wide list":           `{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}`,
		"namespace in itself": `{% set ns = namespace() %}{% set ns.s = ns %}{{ ns }}`,
		"macro recursion":     `{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}`,
		"macro tree":          `{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}`,
		"caller recursion":    `{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() }}`,
		"parentheses":         `{{ ` + long("(", 60000) + `1` + long(")", 60000) + ` }}`,
		"brackets":            `{{ ` + long("[", 60000) + long("]", 60000) + ` }}`,
		"braces":              `{{ ` + long("{1:", 60000) + `1` + long("}", 60000) + ` }}`,
		"nots":                `{{ ` + long("not ", 60000) + `1 }}`,
		"minuses":             `{{ ` + long("-", 60000) + `1 }}`,
		"differences":         `{{ 1` + long("-1", 60000) + ` }}`,
		"long sum":            `{{ 1` + long("+1", 60000) + `+'' }}`,
		"powers":              `{{ 1` + long("**1", 60000) + ` }}`,
		"attributes":          `{{ x` + long(".a", 60000) + ` }}`,
		"filters":             `{{ 'x'` + long("|trim", 60000) + ` }}`,
		"calls":               `{{ x` + long("()", 60000) + ` }}`,
		"inline ifs":          `{{ 1` + long(" if 1 else 1", 60000) + ` }}`,
		"ors":                 `{{ 0` + long(" or 0", 60000) + ` }}`,
		"ifs":                 long("{% if 1 %}", 60000) + long("{% endif %}", 60000),
		"fors":                long("{% for a in b %}", 30000) + long("{% endfor %}", 30000),
		"targets":             `{% set ` + long("(", 60000) + `a` + long(")", 60000) + ` = 1 %}`,
		"10 MB":               long("x", 10<<20),
		"class":               `{{ ''.__class__.__mro__[1].__subclasses__() }}`,
		"class call":          `{{ ''.__class__() }}`,
		"globals":             `{{ range.__globals__['os'] }}`,
		"init":                `{{ namespace.__init__.__globals__ }}`,
		"include":             `{% include '/etc/passwd' %}`,
		"import":              `{% from 'x' import y %}`,
		"extends":             `{% extends 'x' %}`,
		"filter":              `{{ 1 | nosuch }}`,
		"pad":                 `{{ 'a'.ljust(10 ** 12) }}`,
		"center":              `{{ 'a' | center(10 ** 12) }}`,
		"zfill":               `{{ '-1'.zfill(10 ** 12) }}`,
		"percent width":       `{{ '%1000000000d' % 1 }}`,
		"percent precision":   `{{ '%.1000000000f' % 1 }}`,
		"format width":        `{{ '{:>1000000000}'.format(1) }}`,
		"indent":              `{{ ('a\n' * 100000) | indent(100000) }}`,
		"indent width":        `{{ 'a' | indent(10 ** 12) }}`,
		"json indent":         `{{ [1] | tojson(indent=10 ** 9) }}`,
		"replace":             `{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}`,
		"replace empty":       `{{ ('a' * 1000000).replace('', 'b' * 1000000) }}`,
		"join":                `{{ ('a' * 1000000).join(range(100000) | map('string')) }}`,
		"power":               `{{ 10 ** 10 ** 10 }}`,
		"big power":           `{{ 9 ** 99999999 }}`,
		"overflow":            `{{ 9223372036854775807 + 1 }}`,
		"batch":               `{{ [1] | batch(10 ** 12, 'x') | list }}`,
		"slice":               `{{ [1] | slice(10 ** 12) | list }}`,
		"index loop":          `{% set s = 'é' * 1000000 %}{% for i in range(100000) %}{% if s[i] == s %}{% endif %}{% endfor %}`,
		"compare loop":        `{% set a = 'a' * 8000000 %}{% set b = a ~ '' %}{% for i in range(100000) %}{% if a == b %}{% endif %}{% endfor %}`,
		"contains loop":       `{% set a = 'a' * 8000000 %}{% for i in range(100000) %}{% if 'b' in a %}{% endif %}{% endfor %}`,
		"key loop":            `{% set a = 'a' * 8000000 %}{% set b = a ~ '' %}{% set d = {a: 1} %}{% for i in range(100000) %}{% if d[b] %}{% endif %}{% if d.get(b) %}{% endif %}{% if b in d %}{% endif %}{% endfor %}`,
		"output":              `{% set a = 'a' * 1000000 %}{% for i in range(100000) %}{{ a }}{% endfor %}`,
		"captures":            `{% for i in range(100000) %}{% set a %}{{ 'a' * 1000000 }}{% endset %}{% endfor %}`,
		"closures":            `{% set ns = namespace(f=none) %}{% for i in range(100000) %}{% macro f() %}{{ i }}{% endmacro %}{% set ns.f = [f, ns.f] %}{% endfor %}{{ ns.f | tojson }}`,
		"sort":                `{{ range(100000) | map('string') | sort | map('length') | sum * range(100000) | sum * 10 ** 9 }}`,
		"sums of lists":       `{{ range(100000) | batch(1) | sum(start=[]) }}`,
		"empty tag":           `{%`,
		"empty tag end":       `{% %}`,
		"lone minus":          `{{ - }}`,
		"spread":              `{% macro f() %}{{ varargs }}{% endmacro %}{{ f(*range(100000) | batch(1) | list * 1000) }}`,
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			tmpl, err := ParseTemplate(src)
			if err == nil {
				_, err = tmpl.Render(Dict(), Limits{})
			}
			if !errors.Is(err, ErrTemplate) {
				t.Errorf("error %v is not typed", err)
			}
			var te *TemplateError
			if errors.As(err, &te) && len(te.Why) > 300 {
				t.Errorf("the error quotes %d bytes", len(te.Why))
			}
			if took := time.Since(start); took > time.Minute { // without limits it would be hours, or all memory
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	loop := mustParse(t, `{% for i in range(100) %}0123456789{% endfor %}`)
	if _, err := loop.Render(Dict(), Limits{Output: 1000, Steps: 1000}); err != nil {
		t.Errorf("within the limits: %v", err)
	}
	for _, lim := range []Limits{{Output: 999}, {Steps: 100}} {
		if _, err := loop.Render(Dict(), lim); !errors.Is(err, ErrTemplateLimit) {
			t.Errorf("%+v: %v", lim, err)
		}
	}
	nested := mustParse(t, `{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}.{% endmacro %}{{ f(4) }}`)
	if _, err := nested.Render(Dict(), Limits{Depth: 5}); err != nil {
		t.Errorf("within the depth: %v", err)
	}
	if _, err := nested.Render(Dict(), Limits{Depth: 4}); !errors.Is(err, ErrTemplateLimit) {
		t.Errorf("beyond the depth: %v", err)
	}
	if _, err := nested.Render(List(), Limits{}); !errors.Is(err, ErrTemplate) {
		t.Errorf("variables that are no dict: %v", err)
	}
}

func TestTemplateErrors(t *testing.T) {
	_, err := mustParse(t, "\n{{ 1 }}\n{{ raise_exception('roles must alternate') }}").Render(Dict(), Limits{})
	var te *TemplateError
	if !errors.As(err, &te) || !errors.Is(err, ErrTemplateRaised) || te.Line != 3 || te.Why != "roles must alternate" {
		t.Errorf("raised: %v", err)
	}
	_, err = ParseTemplate("a\n{% if x %}\n{{ 1 + }}{% endif %}")
	if !errors.As(err, &te) || !errors.Is(err, ErrTemplateSyntax) || te.Line != 3 {
		t.Errorf("syntax: %v", err)
	}
}

// TestVariablesAreNotChanged renders twice with the same variables.
func TestVariablesAreNotChanged(t *testing.T) {
	vars := mustJSON(t, `{"m": [{"a": 1}], "x": 1}`)
	tmpl := mustParse(t, `{% set x = x + 1 %}{% set m = m + [{'a': 2}] %}{% set m = m | reverse | list %}{{ x }}{{ m }}`)
	first, err := tmpl.Render(vars, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	second, _ := tmpl.Render(vars, Limits{})
	if spanText(first) != spanText(second) || spanText(first) != "2[{'a': 2}, {'a': 1}]" {
		t.Errorf("%+q, then %+q", spanText(first), spanText(second))
	}
}

func TestParseJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"b": 1, "a": [1, -2.5, 1e3, true, false, null, "x"], "b": 2}`: `{"b": 2, "a": [1, -2.5, 1000.0, true, false, null, "x"]}`,
		` [ ] `: `[]`, `{}`: `{}`, `"\u00e9\ud83e\udd99\n\/"`: `"é🦙\n/"`, `"\ud800x"`: `"�x"`, "\"\xff\"": `"�"`,
		`9223372036854775807`: `9223372036854775807`, `9223372036854775808`: `9.223372036854776e+18`, `-0`: `0`, `-0.0`: `-0.0`,
	} {
		v, err := ParseJSON([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		spans, err := mustParse(t, `{{ v | tojson }}`).Render(Dict(Pair{"v", v}), Limits{})
		if err != nil || spanText(spans) != want {
			t.Errorf("%s: got %s %v, want %s", in, spanText(spans), err, want)
		}
	}
	for _, in := range []string{
		``, `{`, `[`, `[1,]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{1:2}`, `nul`, `tru`, `01`, `1.`, `.5`, `1e`, `-`, `+1`, `NaN`, `1e999`, `"`, `"\`,
		`"\x"`, `"\u12"`, `"\ud800\u"`, "\"\n\"", `1 2`, `[1 2]`, `'a'`, `{"a" 1}`,
		strings.Repeat("[", 100000), strings.Repeat(`{"a":`, 100000), strings.Repeat("[", 200) + strings.Repeat("]", 200),
	} {
		if _, err := ParseJSON([]byte(in)); !errors.Is(err, ErrValue) {
			t.Errorf("%.20q: %v", in, err)
		}
	}
}
