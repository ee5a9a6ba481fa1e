package tensor

import "sync"

// Columns of Sample.Params. A value that switches its step off stands behind it.
const (
	Temperature  = iota // logits are divided by it; 0 takes the largest
	TopK                // keep the k most likely; 0
	TopP                // keep the fewest most likely whose probabilities reach p; 1
	MinP                // keep what is at least min_p times as likely as the most likely; 0
	TypicalP            // keep the fewest most typical whose probabilities reach p; 1
	Repetition          // logits of ids seen before: those above 0 are divided by it, others multiplied; 1
	Presence            // taken from the logits of generated ids; 0
	Frequency           // taken from the logits of generated ids, once for each time; 0
	SampleParams        // number of columns
)

// Columns of Sample.Draws.
const (
	SeedLow      = iota // low half of the seed
	SeedHigh            // high half
	Position            // position that the new token will take in its sequence
	Alternatives        // how many of the best ids to report beside the chosen one; -1: no log-probabilities at all
	SampleDraws         // number of columns
)

// Columns of Sample.Edits.
const (
	EditID      = iota
	EditSeen    // 1: the id is in the prompt or the answer, so the penalty for repetition holds for it
	EditCount   // how often it was generated
	EditColumns // number of columns
)

// Sample chooses one id for every row: penalties and biases, temperature, top-k, typical-p, top-p and min-p, then a draw that depends on
// (seed, position) alone. Ties go to the lower id.
type Sample struct {
	Logits Mat // rows x vocab, F32
	Params Mat // rows x SampleParams, F32
	Draws  Mat // rows x SampleDraws, I32
	Start  Mat // rows+1 x 1, I32: row i's edits are Start[i]:Start[i+1] of Edits and Biases
	Edits  Mat // most edits x EditColumns, I32: ids with penalties or a bias; no id twice in a row
	Biases Mat // most edits x 1, F32: added to the id's logit after the penalties
	IDs    Mat // rows x 1, I32: the chosen ids
	Best   Mat // rows x most alternatives, I32: the best ids by logit, as many as the row asked for
	Probs  Mat // rows x 1+most alternatives, F32: log-probability under the plain softmax of the chosen id, then of Best
	N      Mat // 1 x 1, I32: rows in use
}

// Reference works row by row, several at a time.
func (o *Sample) Reference() {
	var rows sync.WaitGroup
	for i := range Live(o.N, o.Logits.Rows) {
		rows.Go(func() { o.row(i) })
	}
	rows.Wait()
}

func (o *Sample) row(i int) {
	logits, params := rowOf(o.Logits.F32(), i, o.Logits.Cols), rowOf(o.Params.F32(), i, SampleParams)
	draws, start := rowOf(o.Draws.I32(), i, SampleDraws), o.Start.I32()
	from, to := int(start[i]), int(start[i+1])
	id := choose(edit(logits, params, o.Edits.I32()[from*EditColumns:to*EditColumns], o.Biases.F32()[from:to]), params, draws)
	o.IDs.I32()[i] = id
	if n := int(draws[Alternatives]); n >= 0 {
		report(logits, id, rowOf(o.Best.I32(), i, o.Best.Cols)[:n], rowOf(o.Probs.F32(), i, o.Probs.Cols))
	}
}

func rowOf[T any](v []T, i, cols int) []T { return v[i*cols : (i+1)*cols] }

// uniform is a number in [0, 1) that depends on (seed, position) alone: two rounds of the splitmix64 finaliser (Steele et al. 2014).
func uniform(draws []int32) float64 {
	seed := uint64(uint32(draws[SeedHigh]))<<32 | uint64(uint32(draws[SeedLow]))
	x := mix(mix(seed) + uint64(uint32(draws[Position])))
	return float64(x>>11) / (1 << 53)
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// report writes the best ids and the log-probabilities of the chosen id and of the best.
func report(logits []float32, id int32, best []int32, probs []float32) {
	r := &row{logits, logits[argmax(logits)], 1}
	weights, _ := r.pieces()
	norm := float64(r.top) + ln(added(weights))
	probs[0] = float32(float64(logits[id]) - norm)
	for i, c := range r.likeliest(len(best)) {
		best[i] = c.id
		probs[1+i] = float32(float64(logits[c.id]) - norm)
	}
}

// Operands lists logits, parameters, draws, edits and count, then ids, best and probabilities.
func (o *Sample) Operands() (in, out []*Mat) {
	return []*Mat{&o.Logits, &o.Params, &o.Draws, &o.Start, &o.Edits, &o.Biases, &o.N}, []*Mat{&o.IDs, &o.Best, &o.Probs}
}

// Cost counts one read of the logits and one operation a value.
func (o *Sample) Cost() (bytes, flops int64) {
	n := int64(Live(o.N, o.Logits.Rows) * o.Logits.Cols)
	return 4 * n, n
}
