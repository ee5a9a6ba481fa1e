package store

import (
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/ollama/ollama/api"
)

// parameters are the types of ollama's options by name.
var parameters = optionTypes()

func optionTypes() map[string]reflect.Kind {
	out := map[string]reflect.Kind{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[api.Options]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		kind := f.Type.Kind()
		if kind == reflect.Pointer {
			kind = f.Type.Elem().Kind()
		}
		if name != "" {
			out[name] = kind
		}
	}
	return out
}

// maxExact is the largest whole number up to which a float64 holds all of them.
const maxExact = 1<<53 - 1

// parseParameter reads a value as a Modelfile writes it.
func parseParameter(name, text string) (v any, err error) {
	switch parameters[name] {
	case reflect.Int:
		var n int64
		n, err = strconv.ParseInt(text, 10, 64)
		v = n
	case reflect.Float32:
		v, err = strconv.ParseFloat(text, 64)
	case reflect.Bool:
		v, err = strconv.ParseBool(text)
	default:
		v = text
	}
	if err != nil {
		return nil, badParameter(name, text)
	}
	return checkParameter(name, v)
}

// checkParameter gives a value in the type that JSON has for it.
func checkParameter(name string, v any) (any, error) {
	kind, known := parameters[name]
	if !known {
		return nil, badModelfile(quoted("parameter", name), ErrUnsupported, "there is none of that name")
	}
	value := reflect.ValueOf(v)
	switch {
	case kind == reflect.Bool && value.Kind() == reflect.Bool:
		return v, nil
	case kind == reflect.Slice:
		return checkTexts(name, v)
	case kind == reflect.Bool || v == nil:
		return nil, badParameter(name, v)
	}
	var f float64
	switch {
	case value.CanFloat():
		f = value.Float()
	case value.CanInt():
		f = float64(value.Int())
	default:
		return nil, badParameter(name, v)
	}
	whole := f == math.Trunc(f) && math.Abs(f) <= maxExact
	if kind == reflect.Int && !whole || math.IsNaN(f) || math.Abs(f) > math.MaxFloat32 {
		return nil, badParameter(name, v)
	}
	return f, nil
}

// checkTexts makes a list of one text or of several. None may be empty.
func checkTexts(name string, v any) (any, error) {
	var out []any
	switch v := v.(type) {
	case string:
		out = []any{v}
	case []string:
		for _, s := range v {
			out = append(out, s)
		}
	case []any:
		out = v
	default:
		return nil, badParameter(name, v)
	}
	for _, one := range out {
		if s, ok := one.(string); !ok || s == "" {
			return nil, badParameter(name, one)
		}
	}
	return out, nil
}

func badParameter(name string, v any) error {
	want := map[reflect.Kind]string{reflect.Int: "a whole number", reflect.Float32: "a number", reflect.Bool: "true or false"}[parameters[name]]
	if want == "" {
		want = "texts that are not empty"
	}
	return badModelfile(quoted("parameter", name), ErrFormat, "%.100q, should be %s", textOf(v), want)
}

func textOf(v any) string {
	if v == nil {
		return "null"
	}
	return strings.Join(parameterTexts(v), " ")
}
