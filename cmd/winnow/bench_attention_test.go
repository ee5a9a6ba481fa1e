package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/tensor"
)

// attentionBenched runs winnow bench --attention on a small world.
func attentionBenched(t *testing.T, args ...string) (results []attentionResult) {
	t.Helper()
	args = append([]string{"bench", "--attention", "--heads", "4", "--kv-heads", "2", "--dim", "32", "--log", "warn", "-t", "1", "--json"}, args...)
	if err := json.Unmarshal([]byte(must(t, "", args...)), &results); err != nil {
		t.Fatal(err)
	}
	return results
}

func TestBenchAttention(t *testing.T) {
	alone(t)
	for _, phase := range []string{"prefill", "decode"} {
		all := attentionBenched(t, "--selectors", "full,streaming", "--keys", "640,2176", "--phase", phase, "--batch", "2", "--recall", "0.8")
		if len(all) != 4 {
			t.Fatalf("%d results", len(all))
		}
		for i, r := range all {
			full := i%2 == 0
			if r.Keys != []int{640, 2176}[i/2] || r.Phase != phase || r.Ms <= 0 || r.MsDense <= 0 || !r.Reached || r.OracleBlocks ||
				math.Abs(r.Speedup-r.MsDense/r.Ms) > 1e-9 || r.OracleDensity <= 0 || r.OracleDensity > r.Density || r.Work > 1 {
				t.Errorf("%+v", r)
			}
			if full && (r.Selector != "full" || r.Density != 1 || r.Work != 1 || r.Recall != 1 || r.MaxError != 0 || r.Knob != "") {
				t.Errorf("%+v", r)
			}
			if !full && (r.Selector != "streaming" || r.Density >= 1 || r.Recall < 0.8 || r.Recall > 0.95 || r.MaxError <= 0 || r.Knob != "recent") {
				t.Errorf("%+v", r)
			}
		}
	}
	// Several recalls come one after the other, beside the same dense attention.
	two := attentionBenched(t, "--selectors", "full,streaming", "--keys", "640", "--recall", "0.9,0.6", "--rounds", "1")
	if len(two) != 4 || two[2].Target != 0.9 || two[3].Target != 0.6 || two[2].Density <= two[3].Density || two[2].OracleDensity <= two[3].OracleDensity ||
		two[0].MsDense != two[3].MsDense || two[3].Measured != 1 {
		t.Errorf("%+v", two)
	}
	// A knob that is given stays, whatever it reaches.
	r := attentionBenched(t, "--selectors", "streaming", "--keys", "640", "--knob", "64", "--recall", "0.99")[0]
	if r.Value != 64 || r.Reached || r.Recall > 0.9 {
		t.Errorf("%+v", r)
	}
	for want, args := range map[string][]string{
		"there are anchor, ":       {"--selectors", "fastest"},
		"prefill or decode":        {"--phase", "both"},
		"multiple of --kv-heads":   {"--kv-heads", "5"},
		"--recall is above 0":      {"--recall", "0.9,2"},
		"--chunks are not":         {"--chunks", "-1"},
		"recent is -1":             {"--selectors", "streaming", "--keys", "64", "--knob", "-1"},
		"no such file":             {"--inputs", "none.safetensors"},
		"unknown command \"demo\"": {"demo"},
	} {
		if _, _, err := winnow(t, "", append([]string{"bench", "--attention", "--log", "warn"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

// Some steps of a prompt see as many keys on average as all of them, so that their time stands for the whole prompt's.
func TestChunksLieAboutTheMiddle(t *testing.T) {
	for _, c := range []struct{ keys, chunks, want int }{{8192, 0, 4}, {32768, 4, 4}, {65536, 4, 4}, {131072, 2, 2}, {32768, 3, 3}, {6144, 5, 3}} {
		f := &field{bench: &attentionBench{chunks: c.chunks}, truth: &truth{in: &attention.Inputs{Heads: 1, Q: tensor.Mat{Rows: c.keys}}}, rows: stepRows}
		runs := f.chunks()
		middle := 0
		for _, r := range runs {
			if r.To-r.From != stepRows || r.From%stepRows != 0 {
				t.Errorf("%+v: %+v", c, r)
			}
			middle += (r.From + r.To) / 2 / len(runs)
		}
		if off := middle - c.keys/2; len(runs) != c.want || off < -stepRows/2 || off > stepRows/2 || len(runs)%2 == 0 && off != 0 {
			t.Errorf("%+v: %+v, their middle at %d", c, runs, middle)
		}
	}
}

// floatTensor is an array of floats that are all alike, by heads and keys.
func floatTensor(name string, heads, keys, dim int, at func(head, key, d int) float32) namedTensor {
	var raw []byte
	for h := range heads {
		for k := range keys {
			for d := range dim {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(at(h, k, d)))
			}
		}
	}
	return namedTensor{name, "F32", []int{heads, keys, dim}, raw}
}

// Where all scores are equal, recall is density, and no selector can do with less than the recall that is asked for.
func TestBenchAttentionOfAFile(t *testing.T) {
	alone(t)
	const keys = 700
	zero := func(int, int, int) float32 { return 0 }
	file := []namedTensor{
		floatTensor("q", 6, keys, 16, zero), floatTensor("k", 3, keys, 16, func(h, k, d int) float32 { return float32(h*k + d) }),
		floatTensor("v", 3, keys, 16, zero),
	}
	if err := writeSafetensors("in.safetensors", file); err != nil {
		t.Fatal(err)
	}
	r := attentionBenched(t, "--inputs", "in.safetensors", "--keys", "640", "--selectors", "streaming", "--recall", "0.9")[0]
	if r.Heads != 6 || r.KVHeads != 3 || r.Dim != 16 || r.Keys != 640 || math.Abs(r.Recall-r.Density) > 1e-5 || r.Recall < 0.9 ||
		r.OracleDensity < 0.9 || r.OracleDensity > 0.95 || r.MaxError != 0 {
		t.Errorf("%+v", r)
	}
	if err := writeSafetensors("odd.safetensors", append(file[:2:2], floatTensor("v", 3, keys-1, 16, zero))); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"odd.safetensors": "do not fit", "in.safetensors": "has 700 keys"} {
		if _, _, err := winnow(t, "", "bench", "--attention", "--inputs", file, "--keys", "701"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}

// Where a gate stands behind no model, the oracle's blocks are read: about as few as there can be, in pages.
func TestOracleBlocks(t *testing.T) {
	in := attention.World{Heads: 4, KV: 2, Dim: 64, Keys: 1500, Alpha: 2, Seed: 3}.Draw()
	d := tensor.Reference()
	for phase, name := range map[string]string{"prefill": "seer", "decode": "seer_decode"} {
		a := &attentionBench{phase: phase, knob: math.NaN(), batch: 1, recalls: []float64{0.95}}
		f, err := newField(a, &truth{device: d, queue: d.Queue(), in: in}, 0)
		if err != nil {
			t.Fatal(err)
		}
		race, err := f.newRace(name)
		if err != nil {
			t.Fatal(err)
		}
		race.Samples = race.Samples[32:40]
		if err := race.fill(); err != nil {
			t.Fatal(err)
		}
		turned, err := a.turn(race, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		all, err := race.Receipts()
		if err != nil {
			t.Fatal(err)
		}
		recall, density := attention.Means(all)
		t.Logf("%s: cut %g, recall %g, density %g", name, turned.Value, recall, density)
		if !turned.Reached || recall < 0.95 || density > 0.4 {
			t.Errorf("%s: cut %g, recall %g, density %g", name, turned.Value, recall, density)
		}
		race.free()
	}
}
