package serve_test

import (
	"log/slog"
	"testing"

	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

// What does not fit is served with fewer experts in memory, within the memory that there is, and what is expected of it is what it takes.
func TestFit(t *testing.T) {
	d, err := cpu.New(cpu.Options{Log: func(line string) { slog.Debug(line) }})
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := d.(interface{ Close() error }); ok {
		defer c.Close()
	}
	l := engine.NewLoop()
	defer l.Close()
	opt := serve.Options{Device: d, Loop: l, CacheBytes: 1 << 20, Context: 128, Rows: 32, Sequences: 2}
	weigh := func(opt serve.Options) int64 {
		t.Helper()
		n, err := serve.Weigh(checkpoint(t), opt)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	whole := weigh(opt)
	for _, memory := range []int64{0, whole} {
		if fit, err := serve.Fit(checkpoint(t), opt, memory); err != nil || fit.ExpertBytes != 0 {
			t.Errorf("in %d bytes: %d for experts, %v", memory, fit.ExpertBytes, err)
		}
	}
	memory := whole - whole/8
	fit, err := serve.Fit(checkpoint(t), opt, memory)
	if err != nil || fit.ExpertBytes <= 0 {
		t.Fatalf("%d bytes for experts: %v", fit.ExpertBytes, err)
	}
	less := weigh(fit)
	if less > memory || less < memory-memory/20 {
		t.Errorf("fitted to %d bytes it takes %d", memory, less)
	}
	m, err := serve.Open("demo", checkpoint(t), fit)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if took := m.Memory(); took > less+less/50 || took < less-less/20 {
		t.Errorf("%d bytes are taken, %d were expected", took, less)
	}
	if fixed, err := serve.Fit(checkpoint(t), fit, whole*2); err != nil || fixed.ExpertBytes != fit.ExpertBytes {
		t.Errorf("what was said becomes %d, %v", fixed.ExpertBytes, err)
	}
	if small, err := serve.Fit(checkpoint(t), opt, 1<<20); err != nil || small.ExpertBytes != 0 {
		t.Errorf("where not even the rest fits: %d bytes for experts, %v", small.ExpertBytes, err)
	}
}

func checkpoint(t *testing.T) *store.Checkpoint {
	t.Helper()
	c, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
