package cpu_test

import (
	"flag"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/attention/attentiontest"
	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/tensor"
)

var long = flag.Bool("long", false, "selectors on long sequences too, and how fast they are: minutes on a machine that does nothing else")

// fastest is the device with the machine's best kernels; plain Go takes too long for what asks for it.
func fastest(t *testing.T) tensor.Device {
	t.Helper()
	d, err := cpu.New(cpu.Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	if d == tensor.Reference() {
		t.Skip("no kernels for this machine")
	}
	return d
}

func TestKinds(t *testing.T) {
	lengths := []int{4096}
	if *long {
		lengths = append(lengths, 16384, 65536)
	}
	attentiontest.Kinds(t, fastest(t), lengths...)
}

// A selector at its default may be useless, but it must not cost more than a thirtieth of what it stands for.
func TestPace(t *testing.T) {
	if !*long {
		t.Skip("a measurement: -long")
	}
	d := fastest(t)
	for name, phase := range map[string]attention.Phases{"prefill": attention.Prefill, "decode": attention.Decode} {
		for _, kind := range attention.Kinds(phase) {
			t.Run(name+" "+kind, func(t *testing.T) {
				for _, keys := range []int{8192, 32768} {
					pace := attentiontest.Pace(t, d, attention.KindOf(kind), phase, keys)
					if t.Logf("%d keys: %.3f of dense", keys, pace); pace > 1.03 {
						t.Errorf("%s takes %.3f times as long as dense attention at %d keys", kind, pace, keys)
					}
				}
			})
		}
	}
}
