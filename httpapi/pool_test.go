package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

// third is a second copy of the chat model, under a name and weights of its own.
const third = "twin"

// sized are the three models of the tests of room, the third the second once more, and what they take together.
func sized(t *testing.T) (models serve.Sources, total int64) {
	all := sources(t)
	twin := all[1]
	twin.Name, twin.Weights = third, third
	models = serve.Sources{all[0], all[1], twin}
	for i := range models {
		m, err := models[i].Open()
		if err != nil {
			t.Fatal(err)
		}
		memory := m.Memory()
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		models[i].Memory = func() (int64, error) { return memory, nil }
		total += memory
	}
	return models, total
}

// mixed is a request of the mixed load: some are streams.
type mixed struct {
	model, prompt string
	stream        bool
}

// ask sends it and gives the answer's text.
func (m mixed) ask(r *rig) (string, error) {
	body := fmt.Sprintf(`{"model":%q,"prompt":%q,"max_tokens":4,"temperature":0,"ignore_eos":true,"stream":%v}`, m.model, m.prompt, m.stream)
	resp, raw := r.call("POST", "/v1/completions", body)
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %d %s", m.model, resp.StatusCode, raw)
	}
	chunks := []string{raw}
	if m.stream {
		chunks = events(r.t, raw)
		if n := len(chunks) - 1; chunks[n] != "[DONE]" {
			return "", fmt.Errorf("%s: the stream ends with %s", m.model, chunks[n])
		}
		chunks = chunks[:len(chunks)-1]
	}
	text := ""
	for _, c := range chunks {
		var part struct {
			Model   string
			Choices []struct{ Text string }
		}
		if err := json.Unmarshal([]byte(c), &part); err != nil || part.Model != m.model {
			return "", fmt.Errorf("%s answers %s: %v", m.model, c, err)
		}
		for _, choice := range part.Choices {
			text += choice.Text
		}
	}
	return text, nil
}

// Three models under a budget for two answer mixed requests of many clients as each would alone.
func TestMixedRequestsUnderABudget(t *testing.T) {
	models, total := sized(t)
	r := startPool(t, Options{}, serve.PoolOptions{Models: models, Memory: total - 1, LoadWait: 5 * time.Minute, KeepAlive: time.Minute})
	alone := map[mixed]string{}
	var kinds []mixed
	for _, s := range models {
		for _, prompt := range []string{"Once", "The dog"} {
			for _, stream := range []bool{false, true} {
				m := mixed{s.Name, prompt, stream}
				text, err := m.ask(r)
				if err != nil || text == "" {
					t.Fatalf("%+v alone: %q, %v", m, text, err)
				}
				alone[m] = text
				kinds = append(kinds, m)
			}
		}
	}
	before := r.server.pool.Counters()
	if before.Loads != 3 || before.Unloads != 1 {
		t.Errorf("one after another: %+v", before)
	}
	var clients sync.WaitGroup
	for client := range 8 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(client)))
			for range 25 {
				m := kinds[random.IntN(len(kinds))]
				if text, err := m.ask(r); err != nil || text != alone[m] {
					t.Errorf("%+v: %q, alone %q, %v", m, text, alone[m], err)
				}
				if c := r.server.pool.Counters(); c.Memory > c.Budget || c.Loaded > 2 {
					t.Errorf("%+v", c)
				}
			}
		})
	}
	clients.Wait()
	r.idle()
	c := r.server.pool.Counters()
	if c.Memory > c.Budget || c.Waiting != 0 || c.Loaded != int(c.Loads-c.Unloads) || c.Failures != 0 || c.Loads <= before.Loads {
		t.Errorf("at the end %+v", c)
	}
	t.Logf("%d loads", c.Loads)
	_, page := r.call("GET", "/metrics", "")
	for _, want := range []string{
		fmt.Sprintf("winnow_model_loads_total %d\n", c.Loads), fmt.Sprintf("winnow_models_memory_limit_bytes %v\n", float64(c.Budget)),
		fmt.Sprintf("winnow_models_loaded %d\n", c.Loaded), "winnow_model_load_duration_seconds_total ",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
}

// Under a budget for one, the model in use keeps its room. Who waits for it is told to come again, in the answer or as the last event of a
// stream that has begun.
func TestRequestsThatWaitInVain(t *testing.T) {
	models, total := sized(t)
	r := startPool(t, Options{Ping: 5 * time.Millisecond}, serve.PoolOptions{Models: models, Memory: total / 2, LoadWait: 50 * time.Millisecond})
	lease, err := r.server.pool.Acquire(t.Context(), chatModel)
	for errors.Is(err, serve.ErrBusy) { // a slow machine
		lease, err = r.server.pool.Acquire(t.Context(), chatModel)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range []bool{false, true} {
		resp, out := r.call("POST", "/v1/completions", fmt.Sprintf(`{"model":%q,"max_tokens":2,"stream":%v}`, third, stream))
		refused := resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != ""
		pinged := stream && resp.StatusCode == http.StatusOK && strings.HasPrefix(out, ": ping\n\n")
		if !refused && !pinged || !strings.Contains(out, `"code":"model_not_loaded"`) {
			t.Errorf("stream %v: %d %v %s", stream, resp.StatusCode, resp.Header, out)
		}
	}
	if l := r.server.pool.Loaded(); len(l) != 1 || l[0].Name != chatModel {
		t.Errorf("loaded %+v", l)
	}
	lease.Release()
}

// A running stream keeps its model, and one that waits for the room hears that the connection lives.
func TestStreamsThatWaitForRoom(t *testing.T) {
	models, total := sized(t)
	r := startPool(t, Options{Ping: time.Millisecond}, serve.PoolOptions{Models: models, Memory: total / 2})
	body := `{"model":%q,"max_tokens":%d,"ignore_eos":true,"stream":true,"prompt":"Once"}`
	first := r.begin(fmt.Sprintf(body, chatModel, 100))
	defer first.Body.Close()
	second := r.begin(fmt.Sprintf(body, third, 2))
	defer second.Body.Close()
	for i, begins := range []string{"", ": ping\n\n"} {
		out, err := io.ReadAll([]*http.Response{first, second}[i].Body)
		if err != nil || !strings.HasPrefix(string(out), begins) || !strings.HasSuffix(string(out), "data: [DONE]\n\n") {
			t.Errorf("%.200s, %v", out, err)
		}
	}
	if c := r.server.pool.Counters(); c.Loads != 2 || c.Unloads != 1 {
		t.Errorf("%+v", c)
	}
}

// begin sends a request for a stream and waits until it has begun.
func (r *rig) begin(body string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), "POST", r.url+"/v1/completions", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

// Before the first ping a stream whose model cannot be loaded gets a status of its own.
func TestStreamsOfModelsThatDoNotLoad(t *testing.T) {
	models, _ := sized(t)
	models[1].Memory = func() (int64, error) { return 1 << 40, nil }
	r := startPool(t, Options{}, serve.PoolOptions{Models: append(models, sources(t)[2]), Memory: 1 << 30})
	for model, want := range map[string]string{
		chatModel: "400 model_too_large 1099511627776 bytes, 1073741824 are allowed", "broken": "500 model_load_failed", "nobody": "404 model_not_found",
	} {
		status, body := r.post("/v1/completions", fmt.Sprintf(`{"model":%q,"stream":true}`, model))
		for _, word := range strings.SplitN(want, " ", 3) {
			if !strings.Contains(fmt.Sprint(status, body), word) {
				t.Errorf("%s: %d %s, want %s", model, status, body, word)
			}
		}
	}
}
