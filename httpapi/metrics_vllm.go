package httpapi

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// alias is a metric by the name that vLLM gives it, for dashboards and autoscalers that know that one.
type alias struct {
	name string // vLLM's
	from string // ours, which has the same meaning, kind and unit
}

// aliases have the label model_name, and finished_reason where ours have finish. Metrics that differ in other labels are added up.
var aliases = []alias{
	{"vllm:num_requests_running", "winnow_sequences_running"},
	{"vllm:num_requests_waiting", "winnow_sequences_waiting"},
	{"vllm:kv_cache_usage_perc", "winnow_pages_usage_ratio"}, // 1 = all
	{"vllm:prefix_cache_queries_total", "winnow_prefix_cache_queries_total"},
	{"vllm:prefix_cache_hits_total", "winnow_prefix_cache_hits_total"},
	{"vllm:prompt_tokens_total", "winnow_prefix_cache_queries_total"}, // every prompt is looked up once
	{"vllm:generation_tokens_total", "winnow_generated_tokens_total"},
	{"vllm:num_preemptions_total", "winnow_preemptions_total"},
	{"vllm:spec_decode_num_draft_tokens_total", "winnow_drafted_tokens_total"},
	{"vllm:spec_decode_num_accepted_tokens_total", "winnow_accepted_tokens_total"},
	{"vllm:request_success_total", "winnow_answers_total"},
	{"vllm:iteration_tokens_total", "winnow_step_rows"},
	{"vllm:time_to_first_token_seconds", "winnow_time_to_first_token_seconds"},
	{"vllm:inter_token_latency_seconds", "winnow_inter_token_latency_seconds"},
	{"vllm:time_per_output_token_seconds", "winnow_inter_token_latency_seconds"}, // the older name of the one above
	{"vllm:request_time_per_output_token_seconds", "winnow_time_per_output_token_seconds"},
	{"vllm:e2e_request_latency_seconds", "winnow_request_duration_seconds"},
	{"vllm:request_queue_time_seconds", "winnow_answer_queue_time_seconds"},
	{"vllm:request_prefill_time_seconds", "winnow_answer_prefill_time_seconds"},
	{"vllm:request_decode_time_seconds", "winnow_answer_decode_time_seconds"},
	{"vllm:request_inference_time_seconds", "winnow_answer_inference_time_seconds"},
}

// kept says how vLLM calls the labels that it has too.
var kept = map[string]string{"model": "model_name", "finish": "finished_reason"}

// withAliases gathers what g has, and its aliases beside it.
func withAliases(g prometheus.Gatherer) prometheus.GathererFunc {
	return func() ([]*dto.MetricFamily, error) {
		families, err := g.Gather()
		ours := map[string]*dto.MetricFamily{}
		for _, f := range families {
			ours[f.GetName()] = f
		}
		for _, a := range aliases {
			if f := ours[a.from]; f != nil {
				if named := a.of(f); len(named.Metric) > 0 {
					families = append(families, named)
				}
			}
		}
		slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
		return families, err
	}
}

// of is our family by vLLM's name. Metrics without a model are requests that no model was found for, which vLLM does not count.
func (a *alias) of(f *dto.MetricFamily) *dto.MetricFamily {
	out := &dto.MetricFamily{Name: &a.name, Help: new("The same as " + a.from), Type: f.Type}
	have := map[string]*dto.Metric{} // by the labels that are kept
	for _, m := range f.Metric {
		var labels []*dto.LabelPair
		key, model := "", ""
		for _, l := range m.Label {
			if name, ok := kept[l.GetName()]; ok {
				labels = append(labels, &dto.LabelPair{Name: &name, Value: l.Value})
				key += l.GetValue() + "\x00"
			}
			if l.GetName() == "model" {
				model = l.GetValue()
			}
		}
		switch sum := have[key]; {
		case model == "":
		case sum != nil:
			add(sum, m)
		default:
			have[key] = &dto.Metric{Label: labels}
			add(have[key], m)
			out.Metric = append(out.Metric, have[key])
		}
	}
	return out
}

// add makes sum that of itself and of a metric of the same kind and bounds.
func add(sum, m *dto.Metric) {
	switch {
	case m.Counter != nil:
		sum.Counter = &dto.Counter{Value: new(sum.GetCounter().GetValue() + m.Counter.GetValue())}
	case m.Gauge != nil:
		sum.Gauge = &dto.Gauge{Value: new(sum.GetGauge().GetValue() + m.Gauge.GetValue())}
	case m.Histogram != nil:
		was, now := sum.Histogram, &dto.Histogram{}
		now.SampleCount = new(was.GetSampleCount() + m.Histogram.GetSampleCount())
		now.SampleSum = new(was.GetSampleSum() + m.Histogram.GetSampleSum())
		for i, b := range m.Histogram.Bucket {
			n := b.GetCumulativeCount()
			if was != nil {
				n += was.Bucket[i].GetCumulativeCount()
			}
			now.Bucket = append(now.Bucket, &dto.Bucket{UpperBound: b.UpperBound, CumulativeCount: &n})
		}
		sum.Histogram = now
	}
}
