package main

import (
	"os"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/compress"
)

func TestExpertsPlace(t *testing.T) {
	alone(t)
	demoProfile(t, "p.json", 1<<16, func(p *compress.Profile) { p.Layers[2] = compress.LayerProfile{} })
	out := must(t, "", "experts", "place", "p.json", "--devices", "4", "--apart", "0", "-o", "map.json")
	if !strings.HasPrefix(out, "LAYER  BUSIEST OVER MEAN  PLACED  J ") || !strings.Contains(out, "\n0      2.208              1.656   2.208  1.656   4      0 7 | 2 5 | 3 4 | 1 6\n") {
		t.Error(out)
	}
	raw, err := os.ReadFile("map.json")
	if err != nil {
		t.Fatal(err)
	}
	row := "  [0,7,2,5,3,4,1,6],\n"
	if want := "{\n \"physical_to_logical_map\": [\n" + row + row + "  [0,1,2,3,4,5,6,7],\n" + row + row + strings.TrimSuffix(row, ",\n") + "\n ]\n}\n"; string(raw) != want {
		t.Errorf("%s", raw)
	}
	if out = must(t, "", "experts", "place", "p.json", "--devices", "4", "--replicas", "12"); !strings.Contains(out, "  -  -  ") {
		t.Error(out)
	}
	for _, c := range []struct{ args, want string }{
		{"p.json", `"devices" not set`},
		{"p.json --devices 3", "experts place: layer 0: compress: no plan: 8 slots on 3 devices"},
		{"p.json --devices 4 --replicas 7", "8 experts in 7 slots"},
		{"map.json --devices 4", "map.json"},
		{"none.json --devices 4", "none.json"},
		{"p.json --devices 4 -o nowhere/x.json", "nowhere"},
	} {
		if _, _, err := winnow(t, "", append([]string{"experts", "place"}, strings.Fields(c.args)...)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}
