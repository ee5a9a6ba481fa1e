"""Renders the templates of cases/*.json with Python's jinja2 and rewrites what they are expected to write.

    python3 -m venv v && v/bin/pip install jinja2 && v/bin/python reference.py

Each file holds pairs of a template and its output; an output that starts with "ERR " means that the reference raises. The
environment is the one in which the transformers library renders chat templates; vars.json holds the variables.
"""
import copy
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("body", [])
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(form):
    return datetime.datetime(2026, 11, 23, 9, 5, 7).strftime(form)


env = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = strftime_now

here = pathlib.Path(__file__).parent
variables = json.loads((here / "vars.json").read_text())
for path in sorted((here / "cases").glob("*.json")):
    cases = json.loads(path.read_text())
    for case in cases:
        try:
            want = env.from_string(case[0]).render(**copy.deepcopy(variables))
        except Exception as e:
            want = f"ERR {type(e).__name__}: {e}"
        case[1:] = [want]
    lines = (json.dumps(case, ensure_ascii=False) for case in cases)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
