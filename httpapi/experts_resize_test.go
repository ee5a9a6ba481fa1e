package httpapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

// slots is how many experts the demo has room for, once its counts say so.
func (r *rig) slots(is func(int) bool) (n int) {
	r.t.Helper()
	for range 500 { // counts are those of the last second
		_, body := r.call("GET", "/debug/moe", "")
		heat := parse[struct {
			Models []struct {
				Layers []struct{ Resident struct{ Slots int } }
			}
		}](r.t, body)
		n = 0
		for _, m := range heat.Models {
			for _, l := range m.Layers {
				n += l.Resident.Slots
			}
		}
		if is(n) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return n
}

// taken is what the pool's models take.
func (r *rig) taken() int64 { return r.server.pool.Counters().Memory }

// The memory for experts changes while the server runs: answers stay, and the pool's books follow.
func TestExpertsResized(t *testing.T) {
	const expert = someExperts / 30
	r := start(t, Options{})
	text := r.ask("").Choices[0].Text
	before, first := r.taken(), r.slots(func(n int) bool { return n > 0 })
	resize := func(experts int) int64 {
		t.Helper()
		status, body := r.post("/debug/moe", fmt.Sprintf(`{"model":"demo-moe","expert_memory":%d}`, experts*expert))
		got := parse[struct {
			Model string
			Bytes int64 `json:"expert_memory"`
		}](t, body)
		if status != 200 || got.Model != "demo-moe" || got.Bytes <= 0 || got.Bytes > int64(max(experts, 56)*expert) {
			t.Fatalf("%d experts: %d %s", experts, status, body)
		}
		if again := r.ask("").Choices[0].Text; again != text {
			t.Errorf("room for %d experts: %q, before %q", experts, again, text)
		}
		return got.Bytes
	}
	few := resize(21)
	if n := r.slots(func(n int) bool { return n < first }); n >= first {
		t.Errorf("%d slots, before %d", n, first)
	}
	small := r.taken()
	many := resize(46)
	if n := r.slots(func(n int) bool { return n > first }); n <= first {
		t.Errorf("%d slots, before %d", n, first)
	}
	if large := r.taken(); small >= before || large <= before || large-small != many-few {
		t.Errorf("models take %d bytes with few experts, %d at first and %d with many; experts take %d and %d", small, before, large, few, many)
	}
	for _, bad := range []struct {
		body, says string
		status     int
	}{
		{`{"model":"demo-moe","expert_memory":1000}`, `"param":"expert_memory"`, 400},
		{`{"model":"demo-moe","expert_memory":-1}`, `"param":"expert_memory"`, 400},
		{`{"model":"demo-moe","expert_memory":"2GiB"}`, `"param":"expert_memory"`, 400},
		{`{"model":"demo-moe","expert_memory":9223372036854775807}`, `"param":"expert_memory"`, 400},
		{`{"model":"demo-moe"}`, `"param":"expert_memory"`, 400},
		{`{"expert_memory":1000000}`, `"param":"model"`, 400},
		{`{"model":"demo-moe","expert_memory":1000000000,"now":true}`, `now`, 400},
		{`{"model":"nobody","expert_memory":1000000000}`, `nobody`, 404},
		{`{"model":"` + plainModel + `","expert_memory":1000000000}`, `all experts are loaded`, 400},
		{`[]`, `JSON object`, 400},
	} {
		if status, body := r.post("/debug/moe", bad.body); status != bad.status || !strings.Contains(body, bad.says) {
			t.Errorf("%s: %d %s, want %d and %s", bad.body, status, body, bad.status, bad.says)
		}
	}
}

// A model does not take more than the pool allows, and what it gives back another may take.
func TestExpertsResizedWithinMemory(t *testing.T) {
	alone := start(t, Options{})
	alone.ask("")
	memory := alone.taken()
	r := startPool(t, Options{}, serve.PoolOptions{Models: serve.Sources(sources(t)), Memory: memory})
	text := r.ask("").Choices[0].Text
	if status, body := r.post("/debug/moe", fmt.Sprintf(`{"model":"demo-moe","expert_memory":%d}`, someExperts*3/2)); status != 400 || !strings.Contains(body, "model_too_large") {
		t.Errorf("more than there is: %d %s", status, body)
	}
	if taken := r.taken(); taken != memory {
		t.Errorf("%d bytes are taken after that, want %d", taken, memory)
	}
	for _, experts := range []int64{22, 28} {
		if status, body := r.post("/debug/moe", fmt.Sprintf(`{"model":"demo-moe","expert_memory":%d}`, experts*someExperts/30)); status != 200 {
			t.Errorf("%d experts: %d %s", experts, status, body)
		}
	}
	if again := r.ask("").Choices[0].Text; again != text || r.taken() > memory {
		t.Errorf("%q, before %q, in %d bytes", again, text, r.taken())
	}
}
