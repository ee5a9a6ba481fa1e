package compress

import (
	"encoding/json"
	"maps"
	"reflect"
	"testing"
)

func TestSetField(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{}`, "{\n  \"k\": [1]}"},
		{"{ }\n", "{ \n  \"k\": [1]}\n"},
		{`{"k":2}`, `{"k":[1]}`},
		{`{ "a": {"k": 3}, "k" : null, "b":"k" }`, `{ "a": {"k": 3}, "k" : [1], "b":"k" }`},
		{"{\n \"a\": 1\n}", "{\n \"a\": 1,\n  \"k\": [1]\n}"},
	} {
		got, err := setField([]byte(c.in), "k", []int{1})
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v; want %s", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{``, `[]`, `{"k":1`, `{"k":1,"k":2}`, `{"a"}`} {
		if got, err := setField([]byte(bad), "k", 1); err == nil {
			t.Errorf("%s: %s", bad, got)
		}
	}
}

// FuzzSetField sets a field of any object: all others stay what they were.
func FuzzSetField(f *testing.F) {
	f.Add([]byte(`{"a": {"k": 3}, "k" : null, "b":"k" }`), "k")
	f.Add([]byte(`{ }`), "")
	f.Fuzz(func(t *testing.T, raw []byte, field string) {
		was := map[string]any{}
		if json.Unmarshal(raw, &was) != nil || was == nil {
			return
		}
		out, err := setField(raw, field, 7)
		if err != nil {
			return
		}
		is := map[string]any{}
		if err := json.Unmarshal(out, &is); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		want := maps.Clone(was)
		want[string([]rune(field))] = 7.0
		if !reflect.DeepEqual(is, want) {
			t.Errorf("%q has %v, want %v", out, is, want)
		}
	})
}
