package httpapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/serve"
)

// Whether pages are kept is read, and how many were is said.
func TestPagesOnTheWire(t *testing.T) {
	for sent, want := range map[string]string{`"pages":"all"`: "all", `"pages":"few"`: "few", `"pages":null`: "", `"decode":"s2"`: ""} {
		d, err := parseChat([]byte(`{"sparse":{` + sent + `},` + hello + `}`))
		if err != nil {
			t.Errorf("%s: %v", sent, err)
			continue
		}
		if have := d.(*chatRequest).Sparse; have == nil || have.Pages != want {
			t.Errorf("%s: %+v", sent, have)
		}
	}
	for sent, param := range map[string]string{`"pages":"none"`: "sparse.pages", `"pages":7`: "sparse.pages", `"page":"all"`: `sparse."page"`} {
		_, err := parseChat([]byte(`{"sparse":{` + sent + `},` + hello + `}`))
		if f, ok := err.(*fault); !ok || f.Param != param {
			t.Errorf("%s: %v", sent, err)
		}
	}
	one := func(held, freed int) serve.Usage {
		return serve.Usage{Sparse: &serve.SparseUsage{Read: 1, Visible: 4, Held: held, Freed: freed}}
	}
	b, err := json.Marshal(tallySparse([]serve.Usage{one(5, 7), {}, one(6, 0)}))
	if want := `"pages_held":11,"pages_freed":7`; err != nil || !strings.Contains(string(b), want) {
		t.Errorf("no %s in %s, %v", want, b, err)
	}
}
