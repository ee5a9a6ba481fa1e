package tensortest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/winnow-llm/winnow/tensor"
)

// Seed is the seed of the listed cases; fuzzing takes others.
const Seed = 1

// Run checks a device against the references of all dense ops, and that rows stand alone.
func Run(t *testing.T, d tensor.Device) {
	RunCases(t, d, Cases())
}

// RunCases checks each case, and that the rows of its batch stand alone.
func RunCases(t *testing.T, d tensor.Device, cases []Case) {
	d = &single{d, d.Queue()}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			Check(t, d, c, Seed)
			StandsAlone(t, d, c)
		})
	}
}

// single is a device with one queue for all ops: they run one by one, and a queue may be dear to make.
type single struct {
	tensor.Device
	queue tensor.Queue
}

func (d *single) Queue() tensor.Queue { return d.queue }

// Check runs a case on the device and by Reference, and compares every output; inputs and whatever lies beside operands must stay.
func Check(t testing.TB, d tensor.Device, c Case, seed uint64) {
	t.Helper()
	want, have := c.Make(c.NewWorld(seed, c.All())), c.Make(c.NewWorld(seed, c.All()))
	p, err := Place(d, have.Op)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	defer p.Free()
	before := p.Inputs()
	p.Queue.Run(have.Op)
	if err := p.Queue.Sync(); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	want.Op.Reference()
	_, outs := want.Op.Operands()
	_, got := have.Op.Operands()
	for i, out := range outs {
		if !out.Present() {
			continue
		}
		if m, differ := tensor.Compare(want.Op, out, p.Read(*got[i])); differ {
			t.Errorf("seed %d: %v", seed, m)
		}
	}
	if name := p.Changed(before); name != "" {
		t.Errorf("seed %d: %s has been written to, or memory beside it", seed, name)
	}
}

// StandsAlone checks that a row's bits do not depend on the rows beside it, nor on where in the batch it is: each row alone, the batch
// backwards and the batch in two parts give the bits of the whole.
func StandsAlone(t testing.TB, d tensor.Device, c Case) {
	t.Helper()
	whole := c.bits(t, d, c.All())
	for _, picked := range c.parts() {
		for n, have := range c.bits(t, d, picked) {
			if want := whole[picked[n]]; !bytes.Equal(have, want) {
				t.Errorf("seed %d: row %d of the batch has other bits as row %d of %v", Seed, picked[n], n, picked)
				return
			}
		}
	}
}

// parts are the batches in which rows are tried.
func (c Case) parts() [][]int {
	all := c.All()
	back := make([]int, 0, c.Rows)
	var out [][]int
	for i := range all {
		back = append(back, all[c.Rows-1-i])
		if c.Rows > 1 && (c.Rows < 10 || i%(c.Rows/3) == 1) {
			out = append(out, all[i:i+1])
		}
	}
	if c.Rows > 2 {
		at := c.Rows/3 + 1
		out = append(out, all[:at], all[at:])
	}
	return append(out, back)
}

// bits runs some rows of a case and gives, for each, its part of the outputs.
func (c Case) bits(t testing.TB, d tensor.Device, picked []int) [][]byte {
	t.Helper()
	trial := c.Make(c.NewWorld(Seed, picked))
	p, err := Place(d, trial.Op)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Free()
	p.Queue.Run(trial.Op)
	if err := p.Queue.Sync(); err != nil {
		t.Fatal(err)
	}
	out := make([][]byte, len(picked))
	for _, m := range trial.ByRow {
		raw := p.Read(*m)
		size := len(raw) / (len(picked) + Spare)
		for i := range out {
			out[i] = append(out[i], raw[i*size:(i+1)*size]...)
		}
	}
	return out
}

// Fuzz checks cases of random shape on a device: drawn makes one from a random source.
func Fuzz(f *testing.F, d tensor.Device, drawn func(r *rand.Rand) Case) {
	for seed := range uint64(32) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		c := drawn(rand.New(rand.NewPCG(seed, 0)))
		t.Log(c.Name)
		Check(t, d, c, seed)
	})
}

// Bench runs the large cases and prints what each reaches in bytes and operations a second, as its Cost counts them. Operands lie several
// times in memory and take turns, so that weights come from there and not from a cache.
func Bench(b *testing.B, d tensor.Device, cases []Case) {
	const memory = 96 << 20
	for _, c := range cases {
		b.Run(c.Name, func(b *testing.B) {
			var ops []tensor.Op
			var queue tensor.Queue
			var size, flops int64
			for size = 0; len(ops) < 1 || len(ops) < 16 && size*int64(len(ops)) < memory; {
				trial := c.Make(c.NewWorld(Seed, c.All()))
				size, flops = trial.Op.Cost()
				p, err := Place(d, trial.Op)
				if err != nil {
					b.Fatal(err)
				}
				defer p.Free()
				ops, queue = append(ops, trial.Op), p.Queue
			}
			n := 0
			for b.Loop() {
				queue.Run(ops[n%len(ops)])
				if err := queue.Sync(); err != nil {
					b.Fatal(err)
				}
				n++
			}
			each := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(float64(size)/each/1e9, "GB/s")
			b.ReportMetric(float64(flops)/each/1e9, "GFLOP/s")
		})
	}
}

// Labels makes a case's name from parts.
func Labels(op string, parts ...any) string {
	name := op
	for i, p := range parts {
		sep := " "
		if i == 0 {
			sep = "/"
		}
		name += sep + fmt.Sprint(p)
	}
	return name
}
