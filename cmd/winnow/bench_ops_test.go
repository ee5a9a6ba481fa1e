package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/tensor"
)

func TestBenchOps(t *testing.T) {
	alone(t)
	args := []string{"bench", "demo", "--ops", "-p", "64,128", "-t", "1", "--log", "warn"}
	var r opsResult
	if err := json.Unmarshal([]byte(must(t, "", append(args, "-n", "4", "--json")...)), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Phases) != 2 || r.NThreads != 1 || r.RoofGBs <= 0 || r.RoofGFlops <= 0 || r.RoofFormat != "Q8_0" {
		t.Fatalf("%+v", r)
	}
	for i, want := range []opPhase{{Phase: "prefill", Tokens: 64}, {Phase: "decode", Tokens: 4}} {
		p := r.Phases[i]
		if p.Phase != want.Phase || p.Tokens != want.Tokens {
			t.Errorf("%s of %d tokens, want %+v", p.Phase, p.Tokens, want)
		}
		calls, shares, sum := map[string]int{}, map[string]float64{}, 0.0
		for _, c := range p.Ops {
			calls[c.Op], shares[c.Op] = c.Calls, c.RoofShare
			sum += c.Share
			if c.Seconds <= 0 || c.GBs < 0 || c.RoofShare < 0 || math.Abs(c.Share-c.Seconds/p.Seconds) > 1e-9 {
				t.Errorf("%s: %+v", p.Phase, c)
			}
		}
		steps := 1
		if p.Phase == "decode" {
			steps = 4
		}
		if calls["moe.FFN"] != 6*steps || calls["attention.Attend"] != 6*steps || sum > 1 || shares["moe.FFN"] <= 0 {
			t.Errorf("%s: %v, together %.3f of the time", p.Phase, calls, sum)
		}
	}
	out := must(t, "", append(args, "-n", "0")...)
	if !strings.Contains(out, "prefill: 64 tokens") || strings.Contains(out, "decode") || !strings.Contains(out, "moe.FFN") || !strings.Contains(out, "of roof") {
		t.Error(out)
	}
}

func TestRoofShare(t *testing.T) {
	sums := &opSums{}
	sums.add(tensor.Span{Op: "unseen", Duration: time.Second})
	sums.start()
	for range 2 {
		sums.add(tensor.Span{Op: "slow", Duration: time.Second, Bytes: 5e9, Flops: 1e9})
	}
	sums.add(tensor.Span{Op: "busy", Duration: time.Second, Bytes: 1e9, Flops: 50e9})
	all := sums.stop()
	if len(all) != 2 || all[0].Op != "slow" || all[0].Calls != 2 {
		t.Fatalf("%+v", all)
	}
	for i, want := range []opCost{{Share: 0.5, GBs: 5, GFlops: 1, RoofShare: 0.5}, {Share: 0.25, GBs: 1, GFlops: 50, RoofShare: 0.5}} {
		all[i].rate(4, 10, 100) // 4 s, 10 GB/s, 100 GFLOP/s
		if c := all[i]; c.Share != want.Share || c.GBs != want.GBs || c.GFlops != want.GFlops || c.RoofShare != want.RoofShare {
			t.Errorf("%+v, want %+v", c, want)
		}
	}
}
