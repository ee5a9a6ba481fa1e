package httpapi

import (
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/serve"
)

// The page counts what the pool's cache found, and nothing where there is no cache.
func TestCacheMetrics(t *testing.T) {
	r := start(t, Options{})
	_, page := r.call("GET", "/metrics", "")
	for _, want := range []string{`winnow_cache_hits_total{kind="rendered"} 0`, `winnow_cache_misses_total{kind="tokenised"} 0`,
		"winnow_prefix_disk_pages 0", "winnow_prefix_disk_bytes 0", "winnow_prefix_disk_errors_total 0",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
	cache, err := serve.NewCache(serve.CacheOptions{Written: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	pool := serve.NewPool(serve.PoolOptions{Models: serve.Sources(sources(t)), Cache: cache})
	if got := pool.Cache(); got != (serve.CacheCounters{}) {
		t.Errorf("%+v", got)
	}
}
