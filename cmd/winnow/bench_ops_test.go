package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

func TestBenchOps(t *testing.T) {
	alone(t)
	args := []string{"bench", "demo", "--ops", "-p", "64,128", "-t", "1", "--log", "warn"}
	var r opsResult
	if err := json.Unmarshal([]byte(must(t, "", append(args, "-n", "4", "--json")...)), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Phases) != 2 || r.NThreads != 1 || r.RoofGBs <= 0 || r.RoofGBs1 <= 0 || r.peak(cpu.PeakF32) <= 0 || r.peak(cpu.PeakInt16) <= 0 {
		t.Fatalf("%+v", r)
	}
	for i, want := range []opPhase{{Phase: "prefill", Tokens: 64}, {Phase: "decode", Tokens: 4}} {
		p := r.Phases[i]
		if p.Phase != want.Phase || p.Tokens != want.Tokens {
			t.Errorf("%s of %d tokens, want %+v", p.Phase, p.Tokens, want)
		}
		calls, shares, sum := map[string]int{}, map[string]float64{}, 0.0
		for _, c := range p.Ops {
			calls[c.Op+" "+c.Weights], shares[c.Op] = c.Calls, c.RoofShare
			sum += c.Share
			if c.Seconds <= 0 || c.GBs < 0 || c.RoofShare != max(c.ReadShare, c.PeakShare) || c.Peak == "" || math.Abs(c.Share-c.Seconds/p.Seconds) > 1e-9 {
				t.Errorf("%s: %+v", p.Phase, c)
			}
		}
		steps := 1
		if p.Phase == "decode" {
			steps = 4
		}
		if calls["moe.FFN Q8_0"] != 6*steps || calls["attention.Attend "] != 6*steps || sum > 1 || shares["moe.FFN"] <= 0 {
			t.Errorf("%s: %v, together %.3f of the time", p.Phase, calls, sum)
		}
	}
	out := must(t, "", append(args, "-n", "0")...)
	if !strings.Contains(out, "prefill: 64 tokens") || strings.Contains(out, "decode") || !strings.Contains(out, "moe.FFN") || !strings.Contains(out, "nearer roof") || !strings.Contains(out, "peaks in Gop/s") {
		t.Error(out)
	}
}

func TestRoofShare(t *testing.T) {
	sums := &opSums{}
	sums.add(tensor.Span{Op: "unseen", Duration: time.Second})
	sums.start()
	for range 2 {
		sums.add(tensor.Span{Op: "product", Weights: quant.BF16, Duration: time.Second, Bytes: 5e9, Flops: 1e9})
	}
	tiles := &quant.Format{Name: "Q4_0 in tiles", Block: 32} // as a device has it
	sums.add(tensor.Span{Op: "product", Weights: tiles, Duration: time.Second, Bytes: 1e9, Flops: 50e9})
	sums.add(tensor.Span{Op: "add", Duration: time.Second / 2})
	all := sums.stop()
	if len(all) != 3 {
		t.Fatalf("%+v", all)
	}
	r := &opsResult{RoofGBs: 10, RoofPeaks: []roofPeak{{cpu.PeakF32, 50}, {cpu.PeakInt16, 100}}}
	for i, want := range []opCost{
		{Op: "product", Weights: "BF16", Calls: 2, Seconds: 2, Share: 0.5, GBs: 5, ReadShare: 0.5, Gops: 1, Peak: cpu.PeakF32, PeakShare: 0.02, Bound: "memory", RoofShare: 0.5},
		{Op: "product", Weights: "Q4_0", Calls: 1, Seconds: 1, Share: 0.25, GBs: 1, ReadShare: 0.1, Gops: 50, Peak: cpu.PeakInt16, PeakShare: 0.5, Bound: cpu.PeakInt16, RoofShare: 0.5},
		{Op: "add", Calls: 1, Seconds: 0.5, Share: 0.125, Peak: cpu.PeakF32, Bound: "memory"},
	} {
		have := all[i]
		have.rate(4, r)
		if have.bytes, have.flops = 0, 0; have != want {
			t.Errorf("%+v, want %+v", have, want)
		}
	}
}
