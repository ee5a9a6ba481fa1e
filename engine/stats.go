package engine

import (
	"slices"
	"time"
)

// Stats is what a request took. Queued and Prefill together are the time to its first token. Times are of a monotonic clock. An embedding
// ends with its prompt: it has no Decode.
type Stats struct {
	Prompt    int           // tokens of the prompt
	Cached    int           // of them, found in the prefix cache
	Generated int           // tokens, the last one included
	Preempted int           // how often it lost its pages and was computed again
	Queued    time.Duration // from Generate to the first step with a part of it
	Prefill   time.Duration // from there to the first token
	Decode    time.Duration // from the first token to the last
	Arrived   time.Time     // where Queued begins, and Prefill and Decode follow it
	// Sampling is how long its tokens' choices took, within Prefill for the first one and within Decode for others: of each step that chose
	// one, the whole of the sampling op, which works on the rows of all sequences at once.
	Sampling time.Duration
	Experts  *ExpertStats // nil unless Request.Counted asks
	Sparse   *SparseStats // nil where everything was read
}

// stats sums up a sequence to its newest token.
func (q *sequence) stats() *Stats {
	s := &Stats{
		Prompt: q.prompt, Cached: q.cached, Generated: len(q.tokens) - q.prompt, Preempted: q.preempted,
		Queued:  q.times.started.Sub(q.times.arrived),
		Prefill: q.times.first.Sub(q.times.started),
		Decode:  q.times.last.Sub(q.times.first),
		Arrived: q.times.arrived, Sampling: q.times.sampling,
	}
	if q.use != nil {
		s.Experts = new(q.use.stats)
	}
	if q.reads != nil {
		s.Sparse = new(q.reads.stats)
	}
	return s
}

// Usage is an engine's load at a moment.
type Usage struct {
	Running     int // sequences that hold pages
	Waiting     int // sequences that hold none
	PagesUsed   int // held by sequences
	PagesCached int // held by none, kept for prompts that begin alike
	PagesTotal  int
	Crowd       int // sequences that may generate at once for the sake of experts, see Options.MaxUnique; 0 = as many as run
	Counters
}

// Counters only grow while an engine is open.
type Counters struct {
	Prompt    int64       // tokens of admitted prompts
	Cached    int64       // of them, found in the prefix cache
	Generated int64       // tokens
	Drafted   int64       // tokens that were computed ahead of their time, see Options.Draft
	Accepted  int64       // of them, those that held
	ByModel   DraftCounts // of these, what a draft model foretold
	ByHead    DraftCounts // of these, what a head of the model foretold
	Steps     int64
	Rows      int64 // tokens computed, those of scores and those computed again included
	Preempted int64 // times a sequence lost its pages to an older one
	Evicted   int64 // cached pages that were taken for other tokens
	Restored  int64 // pages that were read from outside, see Options.Prefixes
	Missing   int64 // pages of prompts that were computed since they were neither in memory nor there
	Cancelled int64 // requests whose consumer left before their end
	Failed    int64 // requests that a failed step ended
	Selected
	Histograms
}

// Selected is what selectors of keys did for the tokens that they served, over query heads and layers.
type Selected struct {
	KeysRead    float64
	KeysVisible float64
	Probes      int64   // tokens of which the rest was looked at too
	ProbedMass  float64 // of the softmax over all keys, the share of those that were read, summed over Probes
	Doubled     int64   // times that a budget was doubled since a probe had found too little
	PagesFreed  int64   // pages that sequences gave back while they ran, since no row was to read them whole
}

// Histograms say how long steps take and what their consumers notice of it.
type Histograms struct {
	// Turn is the time of each turn of the loop, in seconds: a step, a part of a chunk, or both. Whoever generates waits so long for a token.
	Turn Histogram
	// StepRows is the tokens that each step computed; a chunk counts when its last part is done.
	StepRows Histogram
	// Gap is the time between two tokens of a sequence, in seconds.
	Gap Histogram
	// Stall is those of the gaps that are longer than gapTime and than five steps in which all generate, in seconds.
	Stall Histogram
}

// stallSteps is how many steps in which all generate a gap must last to be a stall: what the loop itself aims at, and half a step more.
const stallSteps = 5

// Bounds of histograms. Those of times are in seconds.
var (
	turnBounds  = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5}
	rowBounds   = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048}
	gapBounds   = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5}
	stallBounds = []float64{0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5, 10, 30, 60}
)

func newHistograms() Histograms {
	return Histograms{
		Turn: Histogram{Bounds: turnBounds}, StepRows: Histogram{Bounds: rowBounds},
		Gap: Histogram{Bounds: gapBounds}, Stall: Histogram{Bounds: stallBounds},
	}
}

// gap counts the time between two tokens of a sequence.
func (h *Histograms) gap(took, alone time.Duration) {
	h.Gap.add(took.Seconds())
	if alone > 0 && took > gapTime && took > stallSteps*alone {
		h.Stall.add(took.Seconds())
	}
}

// mostBounds is how many bounds a histogram may have.
const mostBounds = 16

// Histogram counts values by size. It is a value: a copy stays as it is.
type Histogram struct {
	Bounds []float64              // ascending; shared by all copies and never changed
	Counts [mostBounds + 1]uint64 // of the values up to each bound and above the one before; after the last bound's, of those above it
	Sum    float64                // of all values
}

func (h *Histogram) add(v float64) {
	i, _ := slices.BinarySearch(h.Bounds, v)
	h.Counts[i]++
	h.Sum += v
}

// usage is the scheduler's load.
func (s *scheduler) usage() Usage {
	counts := s.counts
	switch d := s.drafts.model; {
	case d == nil:
	case d.head != nil:
		counts.ByHead = d.counts
	default:
		counts.ByModel = d.counts
	}
	return Usage{
		Running: len(s.running), Waiting: len(s.waiting),
		PagesUsed: s.pool.used(), PagesCached: s.pool.idle.Len(), PagesTotal: len(s.pool.pages), Crowd: s.crowd,
		Counters: counts,
	}
}
