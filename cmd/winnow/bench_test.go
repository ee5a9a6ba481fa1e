package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestBenchSpeaksLlamaBench(t *testing.T) {
	alone(t)
	out := must(t, "", "bench", "demo", "-p", "64", "-n", "4", "-d", "0,64", "-t", "1", "-r", "2", "--json", "--log", "warn")
	var rows []map[string]any
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatal(err)
	}
	var tests []string
	for _, r := range rows {
		var one benchResult
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &one); err != nil {
			t.Fatal(err)
		}
		tests = append(tests, one.label())
		for _, key := range []string{"n_prompt", "n_gen", "n_depth", "n_threads", "avg_ts", "samples_ts"} {
			if _, ok := r[key]; !ok {
				t.Errorf("%s lacks %s", one.label(), key)
			}
		}
		mean, _ := meanAndDeviation(one.SamplesTS)
		if len(one.SamplesTS) != 2 || one.AvgTS <= 0 || mean != one.AvgTS || one.NThreads != 1 || one.RoofGBs <= 0 {
			t.Errorf("%+v", one)
		}
		// Two of eight experts, the rest of 6 layers and the output matrix, a byte a weight and a scale for 32.
		if active := 3.4e6 * 34 / 32; one.NGen > 0 && math.Abs(one.BytesPerToken-active) > 0.2*active {
			t.Errorf("%s reads %.0f bytes a token, about %.0f are active", one.label(), one.BytesPerToken, active)
		}
		if one.NPrompt > 0 && one.BytesPerToken > 0.5*7.4e6 {
			t.Errorf("%s reads %.0f bytes a token of a batch", one.label(), one.BytesPerToken)
		}
	}
	if got := strings.Join(tests, ", "); got != "pp64, tg4, pp64 @ d64, tg4 @ d64" {
		t.Errorf("tests %s", got)
	}
}

func TestZeroLeavesATestOut(t *testing.T) {
	alone(t)
	out := must(t, "", "bench", "demo", "-p", "0", "-n", "2", "-r", "1", "-t", "1,2", "-o", "json", "--log", "warn")
	var rows []benchResult
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[0].NGen != 2 || rows[0].NThreads != 1 || rows[1].NThreads != 2 {
		t.Errorf("%+v", rows)
	}
	if out := must(t, "", "bench", "demo", "-p", "64", "-n", "0", "-r", "1", "-t", "1", "--log", "warn"); !strings.Contains(out, "pp64") || strings.Contains(out, "tg") {
		t.Errorf("%s", out)
	}
}

func TestMeanAndDeviation(t *testing.T) {
	if m, d := meanAndDeviation([]float64{1, 2, 3}); m != 2 || math.Abs(d-1) > 1e-12 {
		t.Error(m, d)
	}
	if m, d := meanAndDeviation([]float64{5}); m != 5 || d != 0 {
		t.Error(m, d)
	}
}
