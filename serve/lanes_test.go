package serve

import (
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// A context may be longer than the cache where answers give pages back, and then it is one that they can have.
func TestContextsBeyondTheCache(t *testing.T) {
	spec, err := model.Describe(checkpoint(t, demo.Name))
	if err != nil {
		t.Fatal(err)
	}
	page := int64(spec.PageBytes(model.KV{Format: quant.F32}))
	reads := func(text string) SparsePolicy {
		x, err := model.ParseSparsity(text)
		if err != nil {
			t.Fatal(err)
		}
		return SparsePolicy{Default: x}
	}
	const few = "prefill=s2,decode=s2,prefill_from=0,s2.stride=8,s2.kv=1,s2.dense_every=0,s2.offset=0"
	for text, want := range map[string]string{
		few:                "",
		few + ",pages=all": "are allowed",
		strings.Replace(few, "prefill=s2", "prefill=full", 1):           "are allowed",
		strings.Replace(few, "s2.dense_every=0", "s2.dense_every=2", 1): "at most",
	} {
		l := engine.NewLoop()
		m, err := Open("x", checkpoint(t, demo.Name), Options{
			Device: tensor.Reference(), Loop: l, DType: model.Float32, Context: 2048, CacheBytes: 26 * page, Sparse: reads(text),
		})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if err == nil {
			if m.Context() != 2048 || m.Engine().Context() != 26*64 {
				t.Errorf("contexts of %d, and of %d for who keeps all", m.Context(), m.Engine().Context())
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		l.Close()
	}
}
