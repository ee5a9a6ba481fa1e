package compress

import (
	"context"
	"fmt"
	"iter"
	"regexp"
	"runtime"
	"strings"
	"sync"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// Quantization is what Quantize is asked for: exactly one of To and Policy.
type Quantization struct {
	To      *quant.Format           // of all matrices but the exceptions that Quantize names
	Policy  *moe.Overlay            // formats by layer, expert and tensor; all else is copied
	As      *quant.Format           // of plain floats: what holds the values that the formats leave, in place of them; nil = they do
	Threads int                     // goroutines at work; 0 = one a core
	Replace bool                    // what is in the file's place goes when the new one is whole; else nothing may be there
	See     func(done, total int64) // bytes made; called in turn; nil = nobody asks
}

// Quantized is what was written.
type Quantized struct {
	Bytes    int64          // of all tensors
	Replaced map[string]int // tensors by "Q4_K as Q5_0": what rows that are no whole number of blocks are stored in instead
}

// Quantize writes a checkpoint in other formats: a GGUF to a file, a Hugging Face folder to a folder, for which see quantizeFolder.
//
// To one format: matrices get it, but what a token is looked up in and what logits come from at least Q6_K, as llama.cpp does. By a
// policy: the experts of a layer that have more than one format, or of which some are dropped, are stored in banks. In both, norms, routers,
// biases and other vectors become F32, unless the file has them quantised; a quantised tensor never grows; rows that a format of 256 values
// cannot hold get one of 32.
//
// Layout: bank B of layer N is the stacks blk.N.ffn_{gate,up,down}_exps.qB.weight, each of one type; B counts from 0. blk.N.ffn_exps_map, I32,
// experts x 2, has the bank and the row in it of every expert that the router knows; -1, -1 of those that are dropped.
//
// The result depends on the checkpoint and the formats only. ErrUnsupported: the checkpoint holds tensors that Winnow cannot
// read. ErrWritable, moe.ErrOverlay: what is asked for cannot be. store.ErrExists: path is taken, and is not to be replaced. What fails or is
// cancelled leaves nothing, and what was at path as it was.
//
// With As, what gets another quantised format is rounded to it and back and then stored as As, so that a model can be measured in formats that a
// GGUF has no type for. In F32 the values are exactly theirs. Such a file is no smaller.
func Quantize(ctx context.Context, c *store.Checkpoint, path string, q Quantization) (Quantized, error) {
	if (q.To == nil) == (q.Policy == nil) {
		return Quantized{}, fmt.Errorf("%w: one of a format and a policy is needed", ErrWritable)
	}
	if p := q.Policy; p != nil && p.Model != "" && p.Model != c.Fingerprint() {
		return Quantized{}, fmt.Errorf("%w: model: the policy was made for another one, whose tensors have other names, shapes or formats", moe.ErrOverlay)
	}
	if q.Threads < 1 {
		q.Threads = runtime.GOMAXPROCS(0)
	}
	if c.Kind != store.GGUF {
		made, err := quantizeFolder(ctx, c, path, q)
		if err != nil {
			err = fmt.Errorf("quantise %s to %s: %w", c.Path, path, err)
		}
		return made, err
	}
	if err := q.check(); err != nil {
		return Quantized{}, err
	}
	w := &quantizing{c: c, q: q, out: Quantized{Replaced: map[string]int{}}}
	if err := w.plan(); err != nil {
		return Quantized{}, fmt.Errorf("quantise %s: %w", c.Path, err)
	}
	g := store.NewGGUF{Meta: describe(c, w.tensors), Keys: []string{"general.architecture"}, Tensors: w.tensors, Replace: q.Replace}
	if err := store.WriteGGUF(ctx, path, g, nil); err != nil {
		return Quantized{}, fmt.Errorf("quantise %s to %s: %w", c.Path, path, err)
	}
	return w.out, nil
}

// check refuses formats that the file cannot hold.
func (q *Quantization) check() error {
	find := Writable
	if q.As != nil {
		if find = Known; q.As != quant.F32 && q.As != quant.F16 && q.As != quant.BF16 {
			return fmt.Errorf("%w: values as %s, want F32, F16 or BF16", ErrWritable, q.As)
		}
	}
	if q.To != nil {
		_, err := find(q.To.Name)
		return err
	}
	return checkFormats(q.Policy, find)
}

// quantizing is a file as far as it is written.
type quantizing struct {
	c       *store.Checkpoint
	q       Quantization
	tensors []store.NewTensor
	done    int64
	out     Quantized
}

// plan lists the tensors to write.
func (w *quantizing) plan() error {
	banked := map[int]bool{} // layers whose experts are written
	for _, name := range w.c.Names() {
		t, err := w.c.Tensor(name)
		if err != nil {
			return err
		}
		m := networkName.FindStringSubmatch(name)
		if layer := 0; w.q.Policy != nil && m != nil && m[3] == "_exps" {
			if layer = blockOf(m[1]); w.changes(layer) {
				if !banked[layer] {
					banked[layer] = true
					if err := w.experts(layer); err != nil {
						return err
					}
				}
				continue
			}
		}
		w.add(name, t.Shape, []store.Tensor{t}, w.wanted(t))
	}
	if p := w.q.Policy; p != nil {
		return w.all(p, banked)
	}
	return nil
}

// all checks that the file has what a policy is about.
func (w *quantizing) all(p *moe.Overlay, banked map[int]bool) error {
	for layer := range p.Bits {
		if !banked[layer] {
			return fmt.Errorf("%w: bits of layer %d, which has no stacks of experts, gate, up and down", moe.ErrOverlay, layer)
		}
	}
	for layer := range p.Layers {
		if !banked[layer] {
			return fmt.Errorf("%w: layer %d has no stacks of experts, gate, up and down", moe.ErrOverlay, layer)
		}
	}
	for name := range p.Tensors {
		if t, err := w.c.Tensor(name); err != nil {
			return fmt.Errorf("%w: %w", moe.ErrOverlay, err)
		} else if !quantisable(t) {
			return fmt.Errorf("%w: %.100q is not quantised", moe.ErrOverlay, name)
		}
	}
	return nil
}

// exact names what stays in F32: each of its numbers decides much, and there are few.
var exact = regexp.MustCompile(`_norm\.|\.ffn_gate_inp|\.ffn_gate_tree|\.ffn_gate_leaf|\.ffn_gate_shortlist|\.ffn_gate_digit|\.ffn_gate_share\.|exp_probs_b|\.bias$|rope_freqs|\.ssm_`)

// quantisable says whether a tensor is one that is quantised.
func quantisable(t store.Tensor) bool {
	return len(t.Shape) >= 2 && t.Format.Decode != nil && strings.HasSuffix(t.Name, ".weight") && !exact.MatchString(t.Name)
}

// wanted is the format that a tensor is to have; its own for one to be copied.
func (w *quantizing) wanted(t store.Tensor) *quant.Format {
	if !quantisable(t) {
		if t.Format.Decode != nil && t.Format.Block == 1 {
			return quant.F32
		}
		return t.Format
	}
	to := w.q.To
	if w.q.Policy != nil {
		if to = quant.ByName(w.q.Policy.Tensors[t.Name]); to == nil {
			return t.Format
		}
	} else if (t.Name == "token_embd.weight" || t.Name == "output.weight") && to.Bytes*quant.Q6_K.Block < quant.Q6_K.Bytes*to.Block {
		to = quant.Q6_K
	}
	f := stored(t, to)
	w.count(t, to, f)
	return f
}

// count notes a tensor that gets another format than was asked for and than it has.
func (w *quantizing) count(t store.Tensor, asked, to *quant.Format) {
	if asked != nil && to != asked && to != t.Format {
		w.out.Replaced[asked.Name+" as "+to.Name]++
	}
}

// add enters a tensor that is made of others, one after the other, in one format.
func (w *quantizing) add(name string, shape []int, from []store.Tensor, to *quant.Format) {
	as := to
	if w.q.As != nil && to.Block > 1 && to != from[0].Format {
		as = w.q.As
	}
	w.enter(store.NewTensor{Name: name, Format: as, Shape: shape, Pieces: func(yield func([]byte) bool) {
		for _, f := range from {
			for piece := range w.encoded(f, to, as) {
				if !yield(piece) {
					return
				}
			}
			w.c.Release(f.Data)
		}
	}})
}

func (w *quantizing) enter(t store.NewTensor) {
	w.tensors = append(w.tensors, t)
	w.out.Bytes += tensorBytes(t)
}

// tensorBytes is how much room a tensor takes.
func tensorBytes(t store.NewTensor) int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n / int64(t.Format.Block) * int64(t.Format.Bytes)
}

// stride is how many values a goroutine encodes at a time.
const stride = 1 << 17

// encoded is a tensor rounded to a format, as that one or as plain floats, so many rows at a time as the goroutines share.
func (w *quantizing) encoded(t store.Tensor, to, as *quant.Format) iter.Seq[[]byte] {
	cols := cols(t)
	rows, from, into := numbers(t)/cols, t.Format.RowBytes(cols), as.RowBytes(cols)
	each := max(1, stride/cols)
	return func(yield func([]byte) bool) {
		rounds := to != as && to != t.Format
		var buf []byte
		if rounds || t.Format != as {
			buf = make([]byte, min(rows, each*w.q.Threads)*into)
		}
		for r := 0; r < rows; r += each * w.q.Threads {
			n := min(rows-r, each*w.q.Threads)
			src := t.Data[r*from : (r+n)*from]
			dst := src
			if buf != nil {
				dst = buf[:n*into]
				var group sync.WaitGroup
				for i := 0; i < n; i += each {
					m := min(each, n-i)
					group.Go(func() {
						values := make([]float32, m*cols)
						t.Format.Decode(values, src[i*from:(i+m)*from])
						if rounds {
							rounded := make([]byte, m*to.RowBytes(cols))
							to.Encode(rounded, values)
							to.Decode(values, rounded)
						}
						as.Encode(dst[i*into:(i+m)*into], values)
					})
				}
				group.Wait()
			}
			if w.done += int64(len(dst)); w.q.See != nil {
				w.q.See(w.done, w.out.Bytes)
			}
			if !yield(dst) {
				return
			}
		}
	}
}
