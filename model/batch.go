package model

import (
	"fmt"
	"unsafe"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Step is one step's batch as plain columns on the host: what the scheduler plans, before any device sees it.
//
// Rows Start[s] to Start[s+1] are the tokens that sequence s advances by; it has Past[s] tokens cached and the page table Pages[s],
// which covers them and the new ones.
type Step struct {
	IDs   []int32                        // rows: token ids
	Start []int32                        // sequences+1
	Past  []int32                        // sequences
	Pages [][]int32                      // sequences: logical page -> page of the cache, or a row of lanes, see attention.LanesEntry
	Dense [][]int32                      // sequences: of a cache that prunes full pages, logical page -> dense page, from the page of the first row on
	Want  []int32                        // rows whose logits are wanted, ascending
	Draws [][tensor.SampleDraws]int32    // per wanted row, for Sample; empty when nothing is sampled
	Param [][tensor.SampleParams]float32 // per wanted row, for Sample
	Edits [][]Edit                       // per wanted row, for Sample: at most MostEdits

	Prompts  []int32   // sequences: tokens of the prompt
	Policies []*Policy // sequences: which keys their tokens read; empty, or nil for one of them, where they read everything

	Wishes [][]float32 // sequences: with how few experts they make do, see Spec.Wish; empty where all take the model's own

	Pool      []int32     // rows whose hidden states are summed, ascending
	PoolStart []int32     // sums+1: Pool[PoolStart[i]:PoolStart[i+1]] are the rows of sum i
	Sums      [][]float32 // sums: dim values that each begins with

	Hidden []float32 // of a head's step alone, rows x dim: what each row's token stands behind, see Model.LoadHead
}

// Edit changes how likely an id is to be chosen.
type Edit struct {
	ID    int32
	Seen  bool    // in the prompt or the answer: the penalty for repetition holds
	Count int32   // how often it was generated, for the other penalties
	Bias  float32 // added to the logit
}

// Reset empties the step and keeps its memory.
func (s *Step) Reset() {
	s.IDs, s.Past, s.Pages, s.Dense, s.Want = s.IDs[:0], s.Past[:0], s.Pages[:0], s.Dense[:0], s.Want[:0]
	s.Draws, s.Param, s.Edits, s.Start = s.Draws[:0], s.Param[:0], s.Edits[:0], append(s.Start[:0], 0)
	s.Prompts, s.Policies, s.Wishes = s.Prompts[:0], s.Policies[:0], s.Wishes[:0]
	s.Pool, s.PoolStart, s.Sums = s.Pool[:0], append(s.PoolStart[:0], 0), s.Sums[:0]
	s.Hidden = s.Hidden[:0]
}

// Limits are the sizes that a model's buffers are made for.
type Limits struct {
	Rows      int // rows a step
	Sequences int // sequences a step
	Wanted    int // rows a step whose logits are wanted
	Pages     int // pages of the cache, for all sequences
	Context   int // tokens a sequence
}

// MostAlternatives is how many of the best ids a wanted row can report.
const MostAlternatives = 20

// MostEdits is how many ids of a wanted row can have an Edit.
const MostEdits = 4096

// Batch is one step as columns on the device, at fixed addresses that Fill overwrites.
type Batch struct {
	IDs    tensor.Mat // rows x 1, I32: token ids
	Want   tensor.Mat // wanted x 1, I32: rows whose output is wanted
	Wanted tensor.Mat // 1 x 1, I32: how many
	Layout attention.Layout
	Logits tensor.Mat    // wanted x vocab, F32: what Forward writes
	Sample tensor.Sample // chooses an id for every wanted row
	Pooled Pooled        // sums of hidden states
	Hidden tensor.Mat    // rows x dim, F32: what a head reads beside the tokens; absent in other models

	wishes   wishes
	tiles    tiles
	receipts receipts
	limits   Limits
	seq      []int32 // scratch of Fill, as all below
	pos      []int32
	table    []int32
	start    []int32
	edits    [][tensor.EditColumns]int32
	biases   []float32
}

// newBatch allocates a batch on a device.
func newBatch(d tensor.Device, opt *Options, spec *Spec) (*Batch, error) {
	lim := opt.Limits
	b := &Batch{limits: lim}
	b.Layout.Pages = make([]tensor.Mat, 1)
	pages := (lim.Context + attention.PageTokens - 1) / attention.PageTokens
	b.table = make([]int32, lim.Sequences*pages)
	for _, m := range []struct {
		mat        *tensor.Mat
		format     *quant.Format
		rows, cols int
	}{
		{&b.IDs, quant.I32, lim.Rows, 1},
		{&b.Want, quant.I32, lim.Wanted, 1},
		{&b.Wanted, quant.I32, 1, 1},
		{&b.Layout.Start, quant.I32, lim.Sequences + 1, 1},
		{&b.Layout.Past, quant.I32, lim.Sequences, 1},
		{&b.Layout.Prompt, quant.I32, lim.Sequences, 1},
		{&b.Layout.Pages[0], quant.I32, lim.Sequences, pages},
		{&b.Layout.Seq, quant.I32, lim.Rows, 1},
		{&b.Layout.Pos, quant.I32, lim.Rows, 1},
		{&b.Layout.Rows, quant.I32, 1, 1},
		{&b.Logits, quant.F32, lim.Wanted, spec.Vocab},
		{&b.Sample.Params, quant.F32, lim.Wanted, tensor.SampleParams},
		{&b.Sample.Draws, quant.I32, lim.Wanted, tensor.SampleDraws},
		{&b.Sample.Start, quant.I32, lim.Wanted + 1, 1},
		{&b.Sample.Edits, quant.I32, lim.Wanted * MostEdits, tensor.EditColumns},
		{&b.Sample.Biases, quant.F32, lim.Wanted * MostEdits, 1},
		{&b.Sample.IDs, quant.I32, lim.Wanted, 1},
		{&b.Sample.Best, quant.I32, lim.Wanted, MostAlternatives},
		{&b.Sample.Probs, quant.F32, lim.Wanted, 1 + MostAlternatives},
	} {
		var err error
		if *m.mat, err = tensor.NewMat(d, m.format, m.rows, m.cols); err != nil {
			b.free(d)
			return nil, fmt.Errorf("batch: %w", err)
		}
	}
	b.Sample.Logits, b.Sample.N = b.Logits, b.Wanted
	kv, err := opt.KV()
	if err == nil && kv.Pruned > 0 {
		b.Layout.Dense, err = tensor.NewMat(d, quant.I32, lim.Sequences, pages)
	}
	if err != nil {
		b.free(d)
		return nil, fmt.Errorf("batch: %w", err)
	}
	if b.Pooled, err = newPooled(d, lim, spec.Dim); err != nil {
		b.free(d)
		return nil, err
	}
	if b.wishes, err = newWishes(d, lim, spec); err != nil {
		b.free(d)
		return nil, err
	}
	if len(opt.Sparse) > 0 {
		if b.tiles, err = newTiles(d, lim, &b.Layout.Tiles); err != nil {
			b.free(d)
			return nil, err
		}
	}
	return b, nil
}

// Fill writes a step to the device. A step beyond the batch's limits is a bug of the scheduler.
func (b *Batch) Fill(q tensor.Queue, s *Step) {
	if len(s.IDs) > b.limits.Rows || len(s.Past) > b.limits.Sequences || len(s.Want) > b.limits.Wanted {
		panic(fmt.Sprintf("winnow: bug: model: step of %d rows, %d sequences, %d wanted beyond %+v", len(s.IDs), len(s.Past), len(s.Want), b.limits))
	}
	b.seq, b.pos = b.seq[:0], b.pos[:0]
	width := b.Layout.Pages[0].Cols
	for i, past := range s.Past {
		for row := s.Start[i]; row < s.Start[i+1]; row++ {
			b.seq = append(b.seq, int32(i))
			b.pos = append(b.pos, past+row-s.Start[i])
		}
		copy(b.table[i*width:(i+1)*width], s.Pages[i])
	}
	write(q, b.IDs, s.IDs)
	write(q, b.Want, s.Want)
	write(q, b.Wanted, []int32{int32(len(s.Want))})
	write(q, b.Layout.Start, s.Start)
	write(q, b.Layout.Past, s.Past)
	write(q, b.Layout.Pages[0], b.table[:len(s.Past)*width])
	if b.Layout.Dense.Present() {
		for i, own := range s.Dense {
			copy(b.table[i*width : (i+1)*width][s.Past[i]/attention.PageTokens:], own)
		}
		write(q, b.Layout.Dense, b.table[:len(s.Past)*width])
	}
	write(q, b.Layout.Seq, b.seq)
	write(q, b.Layout.Pos, b.pos)
	write(q, b.Layout.Rows, []int32{int32(len(s.IDs))})
	write(q, b.Sample.Params, s.Param)
	write(q, b.Sample.Draws, s.Draws)
	b.fillEdits(q, s)
	b.Pooled.fill(q, s)
	b.wishes.fill(q, s)
	write(q, b.Layout.Prompt, s.Prompts)
	b.tiles.fill(q, s, b.pos)
	b.receipts.fill(q, s, b.pos)
	write(q, b.Hidden, s.Hidden)
}

// fillEdits writes the edits of all wanted rows, one after another.
func (b *Batch) fillEdits(q tensor.Queue, s *Step) {
	b.start, b.edits, b.biases = append(b.start[:0], 0), b.edits[:0], b.biases[:0]
	for _, row := range s.Edits {
		if len(row) > MostEdits {
			panic(fmt.Sprintf("winnow: bug: model: %d edits of one row, more than %d", len(row), MostEdits))
		}
		for _, e := range row {
			columns := [tensor.EditColumns]int32{tensor.EditID: e.ID, tensor.EditCount: e.Count}
			if e.Seen {
				columns[tensor.EditSeen] = 1
			}
			b.edits, b.biases = append(b.edits, columns), append(b.biases, e.Bias)
		}
		b.start = append(b.start, int32(len(b.edits)))
	}
	write(q, b.Sample.Start, b.start)
	write(q, b.Sample.Edits, b.edits)
	write(q, b.Sample.Biases, b.biases)
}

// column is what a step's columns are made of: 32-bit numbers.
type column interface {
	int32 | float32 | [2]int32 | [tensor.SampleDraws]int32 | [tensor.SampleParams]float32 | [tensor.EditColumns]int32
}

func write[T column](q tensor.Queue, m tensor.Mat, v []T) {
	if len(v) > 0 {
		q.Write(m.Buf, m.Off, unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0]))))
	}
}

// WriteF32 writes the first rows of an F32 matrix.
func WriteF32(q tensor.Queue, m tensor.Mat, src []float32) { write(q, m, src) }

// ReadF32 reads the first rows of an F32 matrix and waits for them.
func ReadF32(q tensor.Queue, m tensor.Mat, dst []float32) { read(q, m, dst) }

// ReadI32 reads the first rows of an I32 matrix and waits for them.
func ReadI32(q tensor.Queue, m tensor.Mat, dst []int32) { read(q, m, dst) }

func read[T int32 | float32](q tensor.Queue, m tensor.Mat, v []T) {
	if len(v) > 0 {
		q.Read(unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v)), m.Buf, m.Off)
	}
}

// free gives the batch's memory back to its device.
func (b *Batch) free(d tensor.Device) {
	for _, m := range []tensor.Mat{
		b.IDs, b.Want, b.Wanted, b.Layout.Start, b.Layout.Past, b.Layout.Prompt, b.Layout.Pages[0], b.Layout.Dense, b.Layout.Seq, b.Layout.Pos, b.Layout.Rows,
		b.Logits, b.Sample.Params, b.Sample.Draws, b.Sample.Start, b.Sample.Edits, b.Sample.Biases, b.Sample.IDs, b.Sample.Best,
		b.Sample.Probs,
	} {
		if m.Present() {
			d.Free(m.Buf)
		}
	}
	b.Pooled.free(d)
	b.wishes.free(d)
	b.tiles.free(d)
}
