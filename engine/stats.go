package engine

import "time"

// Stats is what a request took. Queued and Prefill together are the time to its first token. Times are of a monotonic clock.
type Stats struct {
	Prompt    int           // tokens of the prompt
	Cached    int           // of them, found in the prefix cache
	Generated int           // tokens, the last one included
	Preempted int           // how often it lost its pages and was computed again
	Queued    time.Duration // from Generate to the first step with a part of it
	Prefill   time.Duration // from there to the first token
	Decode    time.Duration // from the first token to the last
}

// stats sums up a sequence to its newest token.
func (q *sequence) stats() *Stats {
	return &Stats{
		Prompt: q.prompt, Cached: q.cached, Generated: len(q.tokens) - q.prompt, Preempted: q.preempted,
		Queued:  q.times.started.Sub(q.times.arrived),
		Prefill: q.times.first.Sub(q.times.started),
		Decode:  q.times.last.Sub(q.times.first),
	}
}

// Usage is an engine's load at a moment.
type Usage struct {
	Running     int // sequences that hold pages
	Waiting     int // sequences that hold none
	PagesUsed   int // held by sequences
	PagesCached int // held by none, kept for prompts that begin alike
	PagesTotal  int
	Counters
}

// Counters only grow while an engine is open.
type Counters struct {
	Prompt    int64 // tokens of admitted prompts
	Cached    int64 // of them, found in the prefix cache
	Generated int64 // tokens
	Steps     int64
	Rows      int64 // tokens computed, those of scores and those computed again included
	Preempted int64 // times a sequence lost its pages to an older one
	Evicted   int64 // cached pages that were taken for other tokens
	Cancelled int64 // requests whose consumer left before their end
	Failed    int64 // requests that a failed step ended
}

// usage is the scheduler's load.
func (s *scheduler) usage() Usage {
	return Usage{
		Running: len(s.running), Waiting: len(s.waiting),
		PagesUsed: s.pool.used(), PagesCached: s.pool.idle.Len(), PagesTotal: len(s.pool.pages),
		Counters: s.counts,
	}
}
