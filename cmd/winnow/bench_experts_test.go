package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// What is read of experts that are not in memory is said, and nothing where all of them are.
func TestBenchSaysWhatIsRead(t *testing.T) {
	alone(t)
	args := []string{"bench", "demo", "-p", "0", "-n", "8", "-r", "1", "--log", "warn"}
	var got []benchResult
	if err := json.Unmarshal([]byte(must(t, "", append(args, "--expert-memory", "4MiB", "--json")...)), &got); err != nil {
		t.Fatal(err)
	}
	if x := got[0].ExpertsRead; x == nil || x.HitRate <= 0 || x.HitRate > 1 || x.BytesPerToken < 0 {
		t.Errorf("%+v", x)
	}
	if out := must(t, "", append(args, "--expert-memory", "4MiB")...); !strings.Contains(out, "of the experts needed were in memory") {
		t.Error(out)
	}
	if out := must(t, "", args...); strings.Contains(out, "were in memory") {
		t.Error(out)
	}
}
