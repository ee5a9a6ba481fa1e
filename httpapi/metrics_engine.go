package httpapi

import (
	"context"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/winnow-llm/winnow/serve"
)

// EngineMetrics are what the engines of a pool's loaded models know of themselves, by model: how busy they are, what they did, how long
// their steps take. They are looked up when a reader asks, so that counting them costs requests nothing. GET /metrics has them; other
// readers take them as their producer.
func EngineMetrics(pool *serve.Pool) sdk.Producer { return &engines{pool: pool, since: time.Now()} }

type engines struct {
	pool  *serve.Pool
	since time.Time // that counters count from
}

// figure is a number of an engine.
type figure struct {
	name, unit, what string
	grows            bool
	label            string // that tells its values apart, beside the model; "" = it has one value
	of               func(l *serve.Listing) []value
}

type value struct {
	label string
	n     float64
}

func gauge(name, what string, of func(l *serve.Listing) int) figure {
	return figure{name: name, what: what, of: func(l *serve.Listing) []value { return []value{{n: float64(of(l))}} }}
}

func counter(name, what string, of func(l *serve.Listing) int64) figure {
	return figure{name: name, what: what, grows: true, of: func(l *serve.Listing) []value { return []value{{n: float64(of(l))}} }}
}

// selected is a figure of the selectors of keys; a model that has none has no such figure.
func selected(name, what string, of func(s *serve.Selected) float64) figure {
	return figure{name: name, what: what, grows: true, of: func(l *serve.Listing) []value {
		if l.Engine.KeysVisible == 0 {
			return nil
		}
		return []value{{n: of(&l.Engine.Selected)}}
	}}
}

// modelled is a figure of a draft model; 0 where there is none.
func modelled(name, unit, what string, of func(d *serve.DraftCounts) float64) figure {
	return figure{name: name, unit: unit, what: what, grows: true, of: func(l *serve.Listing) []value {
		return []value{{n: of(&l.Engine.ByModel)}}
	}}
}

// headed is a figure of a model's own layer that foretells tokens; 0 where there is none.
func headed(name, unit, what string, of func(d *serve.DraftCounts) float64) figure {
	return figure{name: name, unit: unit, what: what, grows: true, of: func(l *serve.Listing) []value {
		return []value{{n: of(&l.Engine.ByHead)}}
	}}
}

// layered is a figure of each layer of experts.
func layered(name string, grows bool, what string, of func(c *serve.ExpertCounts) float64) figure {
	return figure{name: name, what: what, grows: grows, label: "layer", of: func(l *serve.Listing) (all []value) {
		for i := range l.Experts {
			all = append(all, value{strconv.Itoa(l.Experts[i].Layer), of(&l.Experts[i])})
		}
		return all
	}}
}

// read is a figure for each layer of experts of which not all are in memory.
func read(name string, grows bool, what string, of func(t *serve.ExpertTraffic) float64) figure {
	return figure{name: name, what: what, grows: grows, label: "layer", of: func(l *serve.Listing) (all []value) {
		for i := range l.Experts {
			if x := &l.Experts[i]; x.Traffic != nil {
				all = append(all, value{strconv.Itoa(x.Layer), of(x.Traffic)})
			}
		}
		return all
	}}
}

var figures = []figure{
	gauge("winnow.sequences.running", "Sequences that hold pages of the cache", func(l *serve.Listing) int { return l.Engine.Running }),
	gauge("winnow.sequences.waiting", "Sequences that wait for their turn", func(l *serve.Listing) int { return l.Engine.Waiting }),
	{
		name: "winnow.pages", what: "Pages of the cache: used by sequences, cached for prompts that begin alike, free", label: "state",
		of: func(l *serve.Listing) []value {
			u := l.Engine
			return []value{
				{"used", float64(u.PagesUsed)}, {"cached", float64(u.PagesCached)}, {"free", float64(u.PagesTotal - u.PagesUsed - u.PagesCached)},
			}
		},
	},
	{
		name: "winnow.pages.usage", unit: "1", what: "Share of the cache's pages that sequences use",
		of: func(l *serve.Listing) []value {
			return []value{{n: float64(l.Engine.PagesUsed) / float64(max(1, l.Engine.PagesTotal))}}
		},
	},
	counter("winnow.steps", "Steps of the engine", func(l *serve.Listing) int64 { return l.Engine.Steps }),
	counter("winnow.rows", "Tokens that steps computed", func(l *serve.Listing) int64 { return l.Engine.Rows }),
	counter("winnow.generated_tokens", "Tokens that steps chose", func(l *serve.Listing) int64 { return l.Engine.Generated }),
	counter("winnow.drafted_tokens", "Tokens that were foretold and computed along with the ones before", func(l *serve.Listing) int64 { return l.Engine.Drafted }),
	counter("winnow.accepted_tokens", "Of these, tokens that held", func(l *serve.Listing) int64 { return l.Engine.Accepted }),
	modelled("winnow.draft_model.drafted_tokens", "", "Of the drafted tokens, those that a draft model foretold", func(d *serve.DraftCounts) float64 { return float64(d.Drafted) }),
	modelled("winnow.draft_model.accepted_tokens", "", "Of these, tokens that held", func(d *serve.DraftCounts) float64 { return float64(d.Accepted) }),
	modelled("winnow.draft_model.rows", "", "Tokens that a draft model computed, those of prompts included", func(d *serve.DraftCounts) float64 { return float64(d.Rows) }),
	modelled("winnow.draft_model.time", "s", "Time that a draft model took", func(d *serve.DraftCounts) float64 { return d.Seconds }),
	modelled("winnow.draft_model.failures", "", "Times that the device failed a draft model", func(d *serve.DraftCounts) float64 { return float64(d.Failed) }),
	headed("winnow.mtp.drafted_tokens", "", "Of the drafted tokens, those that the model's own layer for that foretold", func(d *serve.DraftCounts) float64 { return float64(d.Drafted) }),
	headed("winnow.mtp.accepted_tokens", "", "Of these, tokens that held", func(d *serve.DraftCounts) float64 { return float64(d.Accepted) }),
	headed("winnow.mtp.rows", "", "Tokens that this layer computed, those of prompts included", func(d *serve.DraftCounts) float64 { return float64(d.Rows) }),
	headed("winnow.mtp.time", "s", "Time that this layer took", func(d *serve.DraftCounts) float64 { return d.Seconds }),
	headed("winnow.mtp.failures", "", "Times that the device failed this layer", func(d *serve.DraftCounts) float64 { return float64(d.Failed) }),
	counter("winnow.prefix_cache.queries", "Tokens of prompts that were looked up in the cache", func(l *serve.Listing) int64 { return l.Engine.Prompt }),
	counter("winnow.prefix_cache.hits", "Tokens of prompts that were found in the cache", func(l *serve.Listing) int64 { return l.Engine.Cached }),
	counter("winnow.prefix_disk.hits", "Pages of prompts that were read from disk in place of computed", func(l *serve.Listing) int64 { return l.Engine.Restored }),
	counter("winnow.prefix_disk.misses", "Pages of prompts that were neither in memory nor on disk, where pages are kept there", func(l *serve.Listing) int64 { return l.Engine.Missing }),
	counter("winnow.preemptions", "Times a sequence lost its pages to another", func(l *serve.Listing) int64 { return l.Engine.Preempted }),
	counter("winnow.pages.evicted", "Cached pages that were taken for other tokens", func(l *serve.Listing) int64 { return l.Engine.Evicted }),
	counter("winnow.sequences.cancelled", "Sequences whose consumer left before their end", func(l *serve.Listing) int64 { return l.Engine.Cancelled }),
	selected("winnow.sparse.keys_read", "Keys that tokens read whose keys selectors chose, over query heads and layers", func(s *serve.Selected) float64 { return s.KeysRead }),
	selected("winnow.sparse.keys_visible", "Keys that these tokens would have read without selectors", func(s *serve.Selected) float64 { return s.KeysVisible }),
	selected("winnow.sparse.probes", "Tokens of which the keys were looked at that they did not read", func(s *serve.Selected) float64 { return float64(s.Probes) }),
	selected("winnow.sparse.probed_mass", "Of the softmax over all keys, the share that probed tokens read, summed over them", func(s *serve.Selected) float64 { return s.ProbedMass }),
	selected("winnow.sparse.pages_freed", "Pages of the cache that sequences gave back while they ran, since no row was to read them whole", func(s *serve.Selected) float64 { return float64(s.PagesFreed) }),
	selected("winnow.sparse.budget_doublings", "Times that a budget of keys was doubled since a probe had found too little", func(s *serve.Selected) float64 { return float64(s.Doubled) }),
	layered("winnow.moe.tokens", true, "Tokens that came by a layer of experts", func(c *serve.ExpertCounts) float64 { return float64(c.Rows) }),
	layered("winnow.moe.expert_load_cv", false, "How unevenly a layer's experts are chosen: standard deviation beside the mean",
		func(c *serve.ExpertCounts) float64 { return c.Variation() }),
	{
		name: "winnow.moe.unique_experts_per_step", what: "Different experts of a layer that a step ran lately, the mean", label: "layer",
		of: func(l *serve.Listing) (all []value) {
			for i := range l.Experts {
				if x := &l.Experts[i]; x.Steps > 0 {
					all = append(all, value{strconv.Itoa(x.Layer), x.Unique()})
				}
			}
			return all
		},
	},
	read("winnow.moe.slots", false, "Experts of a layer that there is room for", func(t *serve.ExpertTraffic) float64 { return float64(t.Slots) }),
	read("winnow.moe.cache_hits", true, "Experts that a step needed and that were in memory", func(t *serve.ExpertTraffic) float64 { return float64(t.Hits) }),
	read("winnow.moe.cache_misses", true, "Experts that a step needed and that were read", func(t *serve.ExpertTraffic) float64 { return float64(t.Misses) }),
	read("winnow.moe.read_bytes", true, "Bytes of experts that were read", func(t *serve.ExpertTraffic) float64 { return float64(t.Bytes) }),
	read("winnow.moe.prefetched", true, "Missing experts that were asked for ahead", func(t *serve.ExpertTraffic) float64 { return float64(t.Guessed) }),
	read("winnow.moe.prefetched_used", true, "Experts that were asked for ahead and needed", func(t *serve.ExpertTraffic) float64 { return float64(t.Came) }),
	gauge("winnow.moe.crowd", "Sequences that may generate at once for the sake of experts; 0 = as many as a step holds",
		func(l *serve.Listing) int { return l.Engine.Crowd }),
	{
		name: "winnow.moe.router_nan", what: "Logits of routers that were no numbers", grows: true,
		of: func(l *serve.Listing) []value {
			if len(l.Experts) == 0 {
				return nil
			}
			n := int64(0)
			for i := range l.Experts {
				n += l.Experts[i].NaN
			}
			return []value{{n: float64(n)}}
		},
	},
	{
		name: "winnow.moe.drift", unit: "1", what: "How far the last tokens' choices of experts are from those of the model's profile: total variation, the most of any layer",
		of: func(l *serve.Listing) (all []value) {
			for i := range l.Experts {
				if d := l.Drift(&l.Experts[i]); d != nil && (all == nil || *d > all[0].n) {
					all = []value{{n: *d}}
				}
			}
			return all
		},
	},
	counter("winnow.sequences.failed", "Sequences that a failed step ended", func(l *serve.Listing) int64 { return l.Engine.Failed }),
}

// spread is a histogram of an engine.
type spread struct {
	name, unit, what string
	of               func(l *serve.Listing) *serve.Histogram
}

var spreads = []spread{
	{"winnow.step.duration", "s", "Time of a turn of the engine: a step, a part of a long prompt, or both; whoever generates waits so long for a token",
		func(l *serve.Listing) *serve.Histogram { return &l.Engine.Turn }},
	{"winnow.step.rows", "", "Tokens that a step computed", func(l *serve.Listing) *serve.Histogram { return &l.Engine.StepRows }},
	{"winnow.inter_token_latency", "s", "Time between two tokens of a sequence", func(l *serve.Listing) *serve.Histogram { return &l.Engine.Gap }},
	{"winnow.decode_stall", "s", "Those of the times between two tokens that are above 100 ms and above five steps in which all generate",
		func(l *serve.Listing) *serve.Histogram { return &l.Engine.Stall }},
}

// Produce is called by readers of metrics.
func (e *engines) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	loaded := e.pool.Loaded()
	if len(loaded) == 0 {
		return nil, nil
	}
	out := metricdata.ScopeMetrics{Scope: instrumentation.Scope{Name: scope}}
	now := time.Now()
	for i := range figures {
		out.Metrics = append(out.Metrics, figures[i].read(loaded, e.since, now))
	}
	for i := range spreads {
		out.Metrics = append(out.Metrics, spreads[i].read(loaded, e.since, now))
	}
	return []metricdata.ScopeMetrics{out}, nil
}

func (f *figure) read(loaded []serve.Listing, since, now time.Time) metricdata.Metrics {
	var points []metricdata.DataPoint[float64]
	for i := range loaded {
		for _, v := range f.of(&loaded[i]) {
			of := []attribute.KeyValue{attribute.String("model", loaded[i].Name)}
			if f.label != "" {
				of = append(of, attribute.String(f.label, v.label))
			}
			points = append(points, metricdata.DataPoint[float64]{Attributes: attribute.NewSet(of...), StartTime: since, Time: now, Value: v.n})
		}
	}
	m := metricdata.Metrics{Name: f.name, Description: f.what, Unit: f.unit, Data: metricdata.Gauge[float64]{DataPoints: points}}
	if f.grows {
		m.Data = metricdata.Sum[float64]{DataPoints: points, Temporality: metricdata.CumulativeTemporality, IsMonotonic: true}
	}
	return m
}

func (s *spread) read(loaded []serve.Listing, since, now time.Time) metricdata.Metrics {
	var points []metricdata.HistogramDataPoint[float64]
	for i := range loaded {
		h := s.of(&loaded[i])
		p := metricdata.HistogramDataPoint[float64]{
			Attributes: attribute.NewSet(attribute.String("model", loaded[i].Name)), StartTime: since, Time: now,
			Bounds: h.Bounds, BucketCounts: h.Counts[:len(h.Bounds)+1], Sum: h.Sum,
		}
		for _, n := range p.BucketCounts {
			p.Count += n
		}
		points = append(points, p)
	}
	return metricdata.Metrics{Name: s.name, Description: s.what, Unit: s.unit,
		Data: metricdata.Histogram[float64]{DataPoints: points, Temporality: metricdata.CumulativeTemporality}}
}
