package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

type wireEmbeddings struct {
	Object string
	Data   []struct {
		Object    string
		Index     int
		Embedding json.RawMessage
	}
	Model    string
	Usage    map[string]int
	Warnings []string
}

// vectors decodes an answer in either encoding, and checks what holds for all of them.
func vectors(t *testing.T, body string) [][]float32 {
	t.Helper()
	a := parse[wireEmbeddings](t, body)
	out := make([][]float32, len(a.Data))
	for i, d := range a.Data {
		if d.Index != i || d.Object != "embedding" || a.Object != "list" || a.Usage["prompt_tokens"] < len(a.Data) || len(a.Usage) != 2 || a.Usage["total_tokens"] != a.Usage["prompt_tokens"] {
			t.Fatalf("item %d: %.300s", i, body)
		}
		if d.Embedding[0] == '"' {
			raw, err := base64.StdEncoding.DecodeString(parse[string](t, string(d.Embedding)))
			if err != nil || len(raw)%4 != 0 {
				t.Fatalf("%d bytes, %v", len(raw), err)
			}
			for b := range slices.Chunk(raw, 4) {
				out[i] = append(out[i], math.Float32frombits(binary.LittleEndian.Uint32(b)))
			}
		} else {
			out[i] = parse[[]float32](t, string(d.Embedding))
		}
		var squares float64
		for _, v := range out[i] {
			squares += float64(v) * float64(v)
		}
		if math.Abs(squares-1) > 1e-5 {
			t.Errorf("item %d: squares add up to %v", i, squares)
		}
	}
	return out
}

// Every form of input, encoding and pooling gives the same vectors, in order.
func TestEmbeddings(t *testing.T) {
	r := start(t, Options{})
	for _, pooling := range []string{``, `,"pooling":"mean"`, `,"pooling":"last"`} {
		var one, other []float32
		for _, c := range []struct {
			input  string
			n      int
			tokens int
		}{
			{`"Once upon a time"`, 1, 5}, {`["Once upon a time"]`, 1, 5}, {`[1,403,407,261,378]`, 1, 5}, {`[[1,403,407,261,378]]`, 1, 5},
			{`["Once upon a time","A dog","Once upon a time"]`, 3, 15}, {`[[1,403,407,261,378],[1],[1,403,407,261,378]]`, 3, 11},
		} {
			_, floats := r.post("/v1/embeddings", `{"input":`+c.input+`,"encoding_format":"float"`+pooling+`}`)
			_, packed := r.post("/embeddings", `{"model":"`+plainModel+`","user":"u","input":`+c.input+`,"encoding_format":"base64"`+pooling+`}`)
			a, b := vectors(t, floats), vectors(t, packed)
			if !slices.EqualFunc(a, b, slices.Equal[[]float32]) {
				t.Errorf("%s%s: base64 is not what the numbers are", c.input, pooling)
			}
			got := parse[wireEmbeddings](t, floats)
			if len(a) != c.n || got.Usage["prompt_tokens"] != c.tokens || got.Model != plainModel || len(got.Warnings) > 0 {
				t.Errorf("%s%s: %d vectors, %+v of %s, %v", c.input, pooling, len(a), got.Usage, got.Model, got.Warnings)
			}
			if one == nil {
				one = a[0]
			}
			if !slices.Equal(a[0], one) || !slices.Equal(a[len(a)-1], one) {
				t.Errorf("%s%s: another vector for the same text", c.input, pooling)
			}
			if c.n == 3 && (slices.Equal(a[1], one) || slices.Equal(a[1], other)) {
				t.Errorf("%s%s: the same vector for another text", c.input, pooling)
			} else if c.n == 3 {
				other = a[1]
			}
		}
	}
	_, body := r.post("/v1/embeddings", `{"input":"x","dimensions":3,"input_type":"query"}`)
	if v := vectors(t, body); len(v[0]) != 3 || !strings.Contains(body, `unknown field \"input_type\" is ignored`) {
		t.Errorf("%s", body)
	}
	r.idle()
}

// As many inputs as a request may have take their turns and refuse nobody, while others generate and embed.
func TestManyEmbeddings(t *testing.T) {
	r := start(t, Options{})
	var all []string
	for i := range mostInputs {
		all = append(all, fmt.Sprintf("[%d]", 3+i%500))
	}
	var busy sync.WaitGroup
	for range 3 {
		busy.Go(func() {
			if status, body := r.post("/v1/completions", `{"max_tokens":20,"n":4,"ignore_eos":true}`); status != 200 {
				t.Errorf("beside it: %d %.200s", status, body)
			}
			if status, body := r.post("/v1/embeddings", `{"input":"Once upon a time"}`); status != 200 {
				t.Errorf("beside it: %d %.200s", status, body)
			}
		})
	}
	_, body := r.post("/v1/embeddings", `{"encoding_format":"base64","input":[`+strings.Join(all, ",")+`]}`)
	busy.Wait()
	got := vectors(t, body)
	if len(got) != mostInputs || !slices.Equal(got[0], got[500]) || slices.Equal(got[0], got[1]) {
		t.Errorf("%d vectors", len(got))
	}
	r.idle()
}

// embedWith is a body with further fields.
func embedWith(fields string) string { return `{"input":"a",` + fields + `}` }

var badEmbeddings = []refusal{
	{``, "", codeJSON}, {`[]`, "", codeJSON}, {`null`, "", codeJSON}, {`{"input":"a"`, "", codeJSON}, {"{\"input\":\"\xff\"}", "", codeJSON},
	{`{"input":` + strings.Repeat("[", 100_000), "", codeJSON}, {`{"input":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "input[0][0]", codeValue},
	{`{}`, "input", codeValue}, {`{"input":null}`, "input", codeValue}, {`{"input":""}`, "input", codeValue}, {`{"input":[]}`, "input", codeValue},
	{`{"input":[""]}`, "input[0]", codeValue}, {`{"input":["a",""]}`, "input[1]", codeValue}, {`{"input":[[]]}`, "input[0]", codeValue},
	{`{"input":[[1],[]]}`, "input[1]", codeValue}, {`{"input":[null]}`, "input[0]", codeValue}, {`{"input":["a",null]}`, "input[1]", codeValue},
	{`{"input":1}`, "input", codeValue}, {`{"input":true}`, "input", codeValue}, {`{"input":{"text":"a"}}`, "input", codeValue},
	{`{"input":[-1]}`, "input[0]", codeValue}, {`{"input":[1,"a"]}`, "input[1]", codeValue}, {`{"input":["a",1]}`, "input[1]", codeValue},
	{`{"input":["a",[1]]}`, "input[1]", codeValue}, {`{"input":[[1],[1.5]]}`, "input[1][0]", codeValue}, {`{"input":[1e10]}`, "input[0]", codeValue},
	{`{"input":[[4294967296]]}`, "input[0][0]", codeValue}, {`{"input":[1e999]}`, "input[0]", codeValue},
	{`{"input":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}]}`, "input[0]", codeValue},
	{`{"input":[` + strings.Repeat(`"a",`, mostInputs) + `"a"]}`, "input", codeValue},
	{embedWith(`"model":1`), "model", codeValue}, {embedWith(`"encoding_format":"int8"`), "encoding_format", codeValue},
	{embedWith(`"encoding_format":1`), "encoding_format", codeValue}, {embedWith(`"encoding_format":""`), "encoding_format", codeValue},
	{embedWith(`"dimensions":0`), "dimensions", codeValue}, {embedWith(`"dimensions":-1`), "dimensions", codeValue},
	{embedWith(`"dimensions":1.5`), "dimensions", codeValue}, {embedWith(`"dimensions":"8"`), "dimensions", codeValue},
	{embedWith(`"dimensions":1e999`), "dimensions", codeValue}, {embedWith(`"dimensions":9223372036854775808`), "dimensions", codeValue},
	{embedWith(`"pooling":"cls"`), "pooling", codeValue}, {embedWith(`"pooling":""`), "pooling", codeValue},
	{embedWith(`"pooling":["mean"]`), "pooling", codeValue}, {embedWith(`"truncate_prompt_tokens":5`), "truncate_prompt_tokens", codeUnsupported},
}

func TestEmbeddingRefusals(t *testing.T) {
	for _, r := range badEmbeddings {
		_, err := parseEmbedding([]byte(r.body))
		f, ok := errors.AsType[*fault](err)
		if !ok || f.Status != 400 || f.Param != r.param || f.Code != r.code {
			t.Errorf("%.120s: %+v, want %s at %q", r.body, err, r.code, r.param)
		}
	}
}

// Items 20, 23 to 25 on the wire. After each the server answers as before.
func TestHostileEmbeddings(t *testing.T) {
	r := start(t, Options{BodyLimit: 4 << 20})
	for _, c := range badEmbeddings {
		if status, body := r.post("/v1/embeddings", c.body); status != 400 || !strings.Contains(body, `"code":"`+c.code+`"`) {
			t.Errorf("%.100s: %d %.200s", c.body, status, body)
		}
	}
	r.healthy()
	ids := func(n int) string { return `[` + strings.Repeat("5,", n-1) + `5]` }
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"input":` + ids(512) + `}`, 200, `"prompt_tokens":512,`},
		{`{"input":` + ids(513) + `}`, 400, `"param":"input"`},
		{`{"input":[[1],` + ids(513) + `]}`, 400, `"message":"input[1]: it has 513 tokens; this model's context is 512 tokens"`},
		{`{"input":[[1],` + ids(513) + `]}`, 400, `"code":"context_length_exceeded"`},
		{`{"input":` + ids(1_000_000) + `}`, 400, "it has 1000000 tokens"},
		{`{"input":"` + strings.Repeat("word ", 200_000) + `"}`, 400, "context_length_exceeded"},
		{`{"input":"` + strings.Repeat("x", 5<<20) + `"}`, 413, "request_too_large"},
		{`{"input":[[1],[511,512]]}`, 400, `"param":"input[1]"`},
		{`{"input":"a","dimensions":65}`, 400, `"message":"dimensions: 65 are asked for, this model has 64"`},
		{`{"input":"a","dimensions":2147483647}`, 400, `"param":"dimensions"`},
		{`{"input":"a","model":"broken"}`, 500, "model_load_failed"},
		{`{"input":"a","model":"../../x\n"}`, 404, "model_not_found"},
		{`{"input":"\u0000\ud800 <s></s>"}`, 200, `"list"`},
	} {
		if status, body := r.post("/v1/embeddings", c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%.80s: %d %.300s, want %d %s", c.body, status, body, c.status, c.want)
		}
		r.healthy()
	}
	r.idle()
	if resp, _ := r.call("GET", "/v1/embeddings", ""); resp.StatusCode != 405 {
		t.Errorf("GET: %d", resp.StatusCode)
	}
}

// A client that leaves frees what its inputs held, those that wait for their turn included.
func TestEmbeddingClientLeaves(t *testing.T) {
	r := start(t, Options{})
	r.post("/v1/embeddings", `{"input":"a"}`)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		body := `{"input":[` + strings.Repeat(`"Once upon a time there was a little girl",`, 1000) + `"x"]}`
		req, err := http.NewRequestWithContext(ctx, "POST", r.url+"/v1/embeddings", strings.NewReader(body))
		if err != nil {
			left <- err
			return
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		left <- err
	}()
	for r.server.pool.Loaded()[0].Engine.Running == 0 {
		time.Sleep(time.Millisecond)
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("it was answered before: %v", err)
	}
	r.idle()
	r.healthy()
	if u := r.server.pool.Loaded()[0].Engine; u.Prompt > 9000 {
		t.Errorf("all %d tokens were computed", u.Prompt)
	}
}

// A request is one span, and its tokens are counted.
func TestEmbeddingTelemetry(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	r := start(t, Options{Tracer: sdk.NewTracerProvider(sdk.WithSpanProcessor(spans))})
	r.post("/v1/embeddings", `{"model":"`+plainModel+`","input":["Once upon a time","secret"],"dimensions":8,"encoding_format":"base64"}`)
	r.post("/v1/embeddings", `{"input":""}`)
	ended := requestSpans(spans)
	if len(ended) != 2 || ended[0].Name() != "embeddings "+plainModel {
		t.Fatalf("%d spans, %v", len(ended), ended)
	}
	attrs := fmt.Sprint(ended[0].Attributes())
	for _, want := range []string{attrOperation, attrProvider, attrModel, attrEncodings, "base64", attrDimensions, attrAnswering, attrInputTokens} {
		if !strings.Contains(attrs, want) {
			t.Errorf("no %s in %s", want, attrs)
		}
	}
	if strings.Contains(attrs, "secret") || strings.Contains(attrs, attrResponseID) {
		t.Errorf("input or an id in %s", attrs)
	}
	_, page := r.call("GET", "/metrics", "")
	for _, want := range []string{
		`winnow_requests_total{model="` + plainModel + `",operation="embeddings",status="ok"} 1`,
		`winnow_requests_total{model="",operation="embeddings",status="invalid_value"} 1`,
		`winnow_tokens_total{kind="prompt",model="` + plainModel + `"} 11`,
		`winnow_request_duration_seconds_count{model="` + plainModel + `",operation="embeddings"} 1`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in %s", want, page)
		}
	}
}

// FuzzEmbeddingBody: no body makes the parser panic, and what it lets pass can be embedded.
func FuzzEmbeddingBody(f *testing.F) {
	for _, r := range badEmbeddings {
		if len(r.body) < 1<<10 {
			f.Add([]byte(r.body))
		}
	}
	f.Add([]byte(`{"model":"m","input":[[1,2],[3]],"dimensions":8,"encoding_format":"base64","pooling":"mean","user":"u"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseEmbedding(body)
		if err != nil {
			if f, ok := errors.AsType[*fault](err); !ok || f.Status != 400 || f.Message == "" {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		if n := len(r.ask.Inputs); n < 1 || n > mostInputs || r.ask.Dimensions < 0 || len(r.warnings) > mostWarnings {
			t.Fatalf("%q: %+v", body, r)
		}
		for _, in := range r.ask.Inputs {
			if in.Text == "" && len(in.IDs) == 0 {
				t.Fatalf("%q: an empty input", body)
			}
		}
	})
}
