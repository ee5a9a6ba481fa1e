package serve

import (
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
)

// A prompt that was answered before a restart is found cached after it, by the same build, and the pool counts what is kept.
func TestPromptCachedBeforeARestart(t *testing.T) {
	dir, ids := t.TempDir(), make([]int32, 200)
	for i := range ids {
		ids[i] = int32(i % 100)
	}
	ask := func(build string) (string, int, store.PrefixCounts) {
		t.Helper()
		disk, err := store.OpenPrefixes(dir, 0, func(line string) { t.Error(line) })
		if err != nil {
			t.Fatal(err)
		}
		opt := small()
		opt.Prefixes, opt.Build = disk, build
		m := open(t, demo.Name, opt)
		got := joined(t, m.Complete(t.Context(), CompletionRequest{IDs: ids, Generation: greedy(6)}))
		m.engine.Close()
		return got.Text, got.Usage.Cached, NewPool(PoolOptions{Prefixes: disk}).Prefixes()
	}
	text, cached, counts := ask("one")
	if cached != 0 || counts.Pages != 3 {
		t.Errorf("%d tokens cached, then %+v", cached, counts)
	}
	if again, cached, counts := ask("one"); again != text || cached != 192 || counts.Pages != 3 {
		t.Errorf("%q with %d tokens cached, before the restart %q; %+v", again, cached, text, counts)
	}
	if other, cached, counts := ask("another"); other != text || cached != 0 || counts.Pages != 6 {
		t.Errorf("another build: %q with %d tokens cached; %+v", other, cached, counts)
	}
	if n := NewPool(PoolOptions{}).Prefixes(); n != (store.PrefixCounts{}) {
		t.Errorf("%+v where nothing is kept", n)
	}
}
