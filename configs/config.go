// Package configs holds the one configuration of Winnow: defaults, then winnow.yaml, then WINNOW_* variables, then flags, each
// overriding what came before. It is the only room that reads YAML or the environment.
package configs

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"time"
)

// ErrConfig is wrapped by every refusal of a key or of its value.
var ErrConfig = errors.New("configuration")

// Config is every setting. A field's koanf tag is its key: `cache_bytes` in winnow.yaml, WINNOW_CACHE_BYTES in the environment,
// --cache-bytes on a command line. Its help tag is what --help says.
type Config struct {
	Addr   string `koanf:"addr" help:"address to listen on, host:port"`
	Models string `koanf:"models" help:"folder of models, in ollama's layout or as plain files"`

	Identity    string `koanf:"identity" help:"file of the key that registries know you by; made when it is first needed"`
	HuggingFace string `koanf:"huggingface" help:"base address of the hub that hf.co/... names are pulled from"`

	Memory    Bytes         `koanf:"memory" help:"most memory for loaded models, weights and caches together; 0 = three quarters of the machine's"`
	MaxLoaded int           `koanf:"max_loaded" help:"most models loaded at once; 0 = as many as memory has room for"`
	KeepAlive time.Duration `koanf:"keep_alive" help:"how long a model stays loaded that nobody asks for; below 0 = for ever"`
	Pinned    []string      `koanf:"pinned" help:"models that are loaded at the start and stay"`
	LoadWait  time.Duration `koanf:"load_wait" help:"how long a request waits for its model to be loaded, or for room"`

	Threads int    `koanf:"threads" help:"CPU threads; 0 = all cores"`
	CPU     string `koanf:"cpu" help:"kernels of the CPU device: amx, avx512, avx2, dotprod, neon or go; auto = the best the machine has"`
	NUMA    string `koanf:"numa" help:"on machines of several memory nodes: distribute spreads memory and threads over them, off leaves it to the system"`

	PackedCache      string `koanf:"packed_cache" help:"folder in which weights are kept as the CPU's kernels read them, of models whose packing takes more than 2 s; auto = in the user's cache, off = nowhere"`
	PackedCacheBytes Bytes  `koanf:"packed_cache_bytes" help:"most bytes in packed_cache, e.g. 100GiB; what was not used longest goes first; 0 = no limit"`

	DType   string `koanf:"dtype" help:"native computes in the file's formats, f32 widens weights and rounds nothing"`
	Context int    `koanf:"context" help:"longest sequence in tokens; 0 = as the model says, within the cache"`
	KVType  string `koanf:"kv_type" help:"how keys and values are cached: f32, f16, q8_0, q4_0, or pruned: mustafar-50 or mustafar-70; auto = f16, or f32 where dtype is f32"`
	// Names as llama.cpp has them.
	RopeScaling  string  `koanf:"rope_scaling" help:"how models read more tokens than they were made for: none, linear, dynamic or yarn; empty = as the model says"`
	RopeScale    float64 `koanf:"rope_scale" help:"by how much rope_scaling makes their context longer, 1 or more"`
	RopeFreqBase float64 `koanf:"rope_freq_base" help:"base of the frequencies of rotary embeddings; 0 = as the model says"`
	YarnOrigCtx  int     `koanf:"yarn_orig_ctx" help:"tokens that models were made for before any rope_scaling; 0 = as the model says"`

	CacheBytes       Bytes  `koanf:"cache_bytes" help:"memory for cached keys and values of a model, e.g. 2GiB; 0 = chosen by the engine"`
	PrefixCache      string `koanf:"prefix_cache" help:"folder in which what models computed of prompts is kept, so that it survives them; empty = nowhere"`
	PrefixCacheBytes Bytes  `koanf:"prefix_cache_bytes" help:"most bytes in prefix_cache, e.g. 10GiB; what was not used longest goes first; 0 = no limit"`
	Sequences        int    `koanf:"sequences" help:"requests a model advances at once; 0 = chosen by the engine"`
	Rows             int    `koanf:"rows" help:"tokens a model computes in one step; 0 = chosen by the engine"`
	Queue            int    `koanf:"queue" help:"requests of a model that may wait before further ones are refused; 0 = chosen by the engine"`

	Speculative string   `koanf:"speculative" help:"compute tokens ahead: off, ngram those that stood behind the same few ones before, draft those too that a draft model foretells, or without one a layer of the model for that (MTP), all where that is faster, or always; auto = draft where there is one of these, else ngram; the answers are the same"`
	DraftModel  []string `koanf:"draft_model" help:"a smaller model of the same vocabulary that foretells what the first model will say, or an overlay FILE.json by which it does so itself with fewer experts; NAME=MODEL for the model NAME"`
	DraftMax    int      `koanf:"draft_max" help:"tokens that a draft model, or a layer of the model, foretells at once at most, 1 to 7"`
	DraftMinP   float64  `koanf:"draft_min_p" help:"a draft ends before the first token that the draft model itself thinks less likely than this"`

	ExpertOverlays []string `koanf:"expert_overlays" flag:"expert-overlay" help:"serve the first model with the experts that an overlay leaves, FILE, or as another one beside it, NAME=FILE"`
	ExpertProfiles []string `koanf:"expert_profiles" flag:"expert-profile" help:"compare how a model's experts are chosen with its profile in this file, which winnow experts profile wrote"`
	ExpertMemory   Bytes    `koanf:"expert_memory" help:"memory for the experts of a model, e.g. 2GiB; others are read when tokens choose them; 0 = all, or what memory has room for"`
	ForceOverlay   bool     `koanf:"force_overlay" help:"take overlays that were made for models with other tensors"`

	Moe          string `koanf:"moe" help:"with how few experts answers make do whose request does not say, as in top_k=4,mass=0.9; empty = the models' own"`
	MoeLimit     string `koanf:"moe_limit" help:"how far requests may go with fewer experts, field by field, as in top_k=2,mass=0.8; empty = as they like"`
	MoeMaxUnique int    `koanf:"moe_max_unique" help:"different experts of a layer that a step is meant to run at most: fewer requests are then answered at once; 0 = any number"`
	MoeRequests  bool   `koanf:"moe_requests" help:"requests may choose with how few experts they make do"`
	MoeReturnIDs bool   `koanf:"moe_return_ids" help:"requests may ask which experts ran for each token"`

	Sparse         string `koanf:"sparse" help:"which keys answers read whose request does not say, as in prefill=anchor,decode=quest,recall=0.98,budget=4096; auto = as a sparse_profile says, all without one; empty = all"`
	SparseLimit    string `koanf:"sparse_limit" help:"how closely requests must read, as in budget=1024,recall=0.95; empty = as they like"`
	SparseRequests bool   `koanf:"sparse_requests" help:"requests may choose which keys they read, by the selectors that sparse names"`

	SparseProfiles []string `koanf:"sparse_profiles" flag:"sparse-profile" help:"how far selectors must be turned, layer by layer, for a recall: a file that winnow attention calibrate wrote"`
	DuoHeads       []string `koanf:"duo_heads" help:"which heads the selector duo has read everything: a published full_attention_heads.tsv, or the folder with it and its config.json"`
	Gates          []string `koanf:"gates" help:"trained gates that the selectors seer and seer_decode score with, a file of winnow gates"`

	Hosts        []string      `koanf:"hosts" help:"names under which the server may be called, besides loopback names"`
	Origins      []string      `koanf:"origins" help:"web origins that may call the API, besides the server's own and local ones; * = all"`
	Keys         string        `koanf:"keys" help:"file of API keys, which winnow key writes; empty = whoever reaches the server may call"`
	Requests     int           `koanf:"requests" help:"requests for text in progress before further ones are refused"`
	BodyBytes    Bytes         `koanf:"body_bytes" help:"largest request body"`
	BodyTimeout  time.Duration `koanf:"body_timeout" help:"time for a request's body to arrive"`
	WriteTimeout time.Duration `koanf:"write_timeout" help:"time for a client to take one write"`
	DrainTimeout time.Duration `koanf:"drain_timeout" help:"time that running requests have to end after SIGTERM"`
	Ping         time.Duration `koanf:"ping" help:"silence after which a stream gets a comment, so that nobody closes it"`

	LogFormat string `koanf:"log_format" help:"form of log lines: text or json"`

	// The four debug switches.
	Log    slog.Level `koanf:"log" help:"least severe log lines shown: debug, info, warn or error"`
	Trace  string     `koanf:"trace" help:"write the time, bytes and arithmetic of every op to this file, as Chrome trace events"`
	Shadow bool       `koanf:"shadow" help:"run every op a second time in plain Go and stop at the first difference"`
	Check  bool       `koanf:"check" help:"check the engine's own state after every step, and the plans of keys before they are read"`

	// Telemetry comes from the OTEL_* variables alone.
	Telemetry Telemetry `koanf:"-"`

	// HubToken comes from the variable HF_TOKEN alone.
	HubToken string `koanf:"-"`

	// Overlay comes from --expert-overlay of the verbs that load one model alone: the file of its overlay.
	Overlay string `koanf:"-"`

	// Key comes from the variable WINNOW_KEY alone: what verbs that ask a running server show it.
	Key string `koanf:"-"`
}

// Auto is what Sparse is where a model's profile says which keys are read, and PackedCache where the user's cache is it; with Off there is none.
const (
	Auto = "auto"
	Off  = "off"
)

// Default is the configuration of a machine where nothing is set.
func Default() Config {
	return Config{
		Addr:         "127.0.0.1:11435",
		Models:       "~/.winnow/models",
		Identity:     "~/.winnow/id_ed25519",
		HuggingFace:  "https://huggingface.co",
		KeepAlive:    5 * time.Minute,
		LoadWait:     2 * time.Minute,
		CPU:          "auto",
		DType:        "native",
		KVType:       "auto",
		Speculative:  "auto",
		DraftMax:     7,
		DraftMinP:    0.5,
		MoeRequests:  true,
		MoeReturnIDs: true,

		Sparse:         Auto,
		SparseRequests: true,

		PrefixCacheBytes: 10 << 30,

		NUMA:             "distribute",
		PackedCache:      Auto,
		PackedCacheBytes: 64 << 30,

		Requests:     1024,
		BodyBytes:    8 << 20,
		BodyTimeout:  30 * time.Second,
		WriteTimeout: 30 * time.Second,
		DrainTimeout: 30 * time.Second,
		Ping:         15 * time.Second,
		LogFormat:    "text",
		Log:          slog.LevelInfo,
	}
}

// Keys lists the keys in the order of the fields.
func Keys() []string {
	var out []string
	for _, f := range fields() {
		out = append(out, f.Tag.Get("koanf"))
	}
	return out
}

// fields are those of Config that have a key.
func fields() []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(reflect.TypeFor[Config]()), func(f reflect.StructField) bool {
		return f.Tag.Get("koanf") == "-"
	})
}

// check refuses values that no later layer would understand.
func (c *Config) check() error {
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		return fmt.Errorf("%w: addr is %q, want host:port", ErrConfig, c.Addr)
	}
	for _, v := range []struct {
		key, value string
		allowed    []string
	}{
		{"cpu", c.CPU, []string{"auto", "amx", "avx512", "avx2", "dotprod", "neon", "go"}},
		{"numa", c.NUMA, []string{"distribute", Off}},
		{"dtype", c.DType, []string{"native", "f32"}},
		{"kv_type", c.KVType, []string{"auto", "f32", "f16", "q8_0", "q4_0", "mustafar-50", "mustafar-70"}},
		{"speculative", c.Speculative, []string{"auto", "off", "ngram", "draft", "always"}},
		{"log_format", c.LogFormat, []string{"text", "json"}},
	} {
		if !slices.Contains(v.allowed, v.value) {
			return fmt.Errorf("%w: %s is %q, want one of %s", ErrConfig, v.key, v.value, strings.Join(v.allowed, ", "))
		}
	}
	switch {
	case c.DraftMax < 1 || c.DraftMax > 7:
		return fmt.Errorf("%w: draft_max is %d, want 1 to 7", ErrConfig, c.DraftMax)
	case !(c.DraftMinP >= 0 && c.DraftMinP <= 1):
		return fmt.Errorf("%w: draft_min_p is %v, want 0 to 1", ErrConfig, c.DraftMinP)
	}
	values := reflect.ValueOf(*c)
	for _, f := range fields() {
		if v := values.FieldByIndex(f.Index); f.Name != "Log" && f.Name != "KeepAlive" && v.CanInt() && v.Int() < 0 {
			return fmt.Errorf("%w: %s is %v, want 0 or more", ErrConfig, f.Tag.Get("koanf"), v)
		}
	}
	return nil
}
