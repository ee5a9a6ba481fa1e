package compress

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// drawnLayer is a layer of n experts that some are chosen more than others, and some together.
func drawnLayer(n int, seed uint64) LayerProfile {
	r := rand.New(rand.NewPCG(seed, 9))
	l := blank(n, 2)
	l.Together = matrix[int64](n, n)
	for e := range n {
		l.Usage[e] = 1 + r.Int64N(1000)
		for f := range e {
			l.Together[e][f] = r.Int64N(50)
			l.Together[f][e] = l.Together[e][f]
		}
	}
	return l
}

// Each expert has a slot, what is busiest is less busy, J is no larger than after packing alone, and nodes keep the router's groups.
func TestPlacementOfLayers(t *testing.T) {
	for seed := range uint64(4) {
		p := &Profile{Layers: []LayerProfile{{}, drawnLayer(16, seed), drawnLayer(16, seed+10)}}
		for _, how := range []Placing{
			{Cluster{0, 1, 1, 4}, 0}, {Cluster{0, 1, 1, 4}, 3}, {Cluster{24, 1, 1, 8}, 1}, {Cluster{0, 4, 2, 4}, 1}, {Cluster{0, 1, 2, 4}, 1}, {Cluster{0, 1, 1, 1}, 1},
		} {
			placed, err := p.Place(how)
			if err != nil || len(placed) != 2 || placed[0].Layer != 1 || placed[1].Layer != 2 {
				t.Fatal(placed, err)
			}
			for i, out := range placed {
				checkPlacement(t, &p.Layers[i+1], how, out)
			}
			if again, err := p.Place(how); err != nil || !slices.Equal(again[1].Slots, placed[1].Slots) {
				t.Errorf("%+v: %v, and again %v", how, placed[1].Slots, again[1].Slots)
			}
		}
	}
}

func checkPlacement(t *testing.T, l *LayerProfile, how Placing, out Placement) {
	t.Helper()
	n, c := len(l.Usage), how.Cluster
	c.Slots = max(c.Slots, n)
	load := make([]float64, n)
	for e, v := range l.Usage {
		load[e] = float64(v)
		if !slices.Contains(out.Slots, e) {
			t.Errorf("%+v: expert %d has no slot in %v", how, e, out.Slots)
		}
	}
	packed, err := Place(load, c)
	if err != nil || len(out.Slots) != c.Slots || out.EvenNow < 1 || out.EvenNow > out.Even && how.Apart == 0 {
		t.Errorf("%+v: %+v, %v", how, out, err)
	}
	o := l.objective(load, c.Devices, how.Apart)
	if c.Slots == n && (out.CostNow > o.Cost(devicesOf(packed, c))+1e-9 || out.CostNow != o.Cost(devicesOf(out.Slots, c))) {
		t.Errorf("%+v: J is %v, after packing %v", how, out.CostNow, o.Cost(devicesOf(packed, c)))
	}
	if c.Slots > n && out.CostNow != 0 {
		t.Errorf("%+v: J is %v with copies", how, out.CostNow)
	}
	for _, node := range chunks(out.Slots, c.Nodes) {
		for _, e := range node {
			if g := e / (n / c.Groups); c.Groups%c.Nodes == 0 && c.Slots == n && !slices.Contains(node, (g+1)*(n/c.Groups)-1) {
				t.Errorf("%+v: group %d is on several nodes: %v", how, g, out.Slots)
			}
		}
	}
}

// Where the file's own order is as good as any, nothing moves: devices are numbered by who holds what already.
func TestPlacementMovesNoMoreThanItMust(t *testing.T) {
	l := blank(8, 2)
	l.Usage = []int64{4, 4, 5, 5, 8, 8, 7, 7}
	l.Together = matrix[int64](8, 8)
	for e := 0; e < 8; e += 2 {
		l.Together[e][e+1], l.Together[e+1][e] = 4, 4
	}
	placed, err := (&Profile{Layers: []LayerProfile{l}}).Place(Placing{Cluster{0, 1, 1, 4}, 100})
	if err != nil || placed[0].Moved != 0 || !slices.Equal(placed[0].Slots, []int{0, 1, 2, 3, 4, 5, 6, 7}) || placed[0].CostNow != placed[0].Cost {
		t.Errorf("%+v, %v", placed, err)
	}
}

func TestPlacementRefuses(t *testing.T) {
	p := &Profile{Layers: []LayerProfile{{}, drawnLayer(8, 1)}}
	for want, how := range map[string]Placing{
		"layer 1: compress: no plan: 8 slots on 3 devices": {Cluster{0, 1, 1, 3}, 1},
		"8 experts in 4 slots":                             {Cluster{4, 1, 1, 2}, 1},
		"8 experts in 3 groups":                            {Cluster{0, 3, 1, 2}, 1},
		"8 experts on {Slots:8 Groups:1 Nodes:1 Devices:0": {Cluster{0, 1, 1, 0}, 1},
		"pairs apart weigh -1":                             {Cluster{0, 1, 1, 2}, -1},
	} {
		if _, err := p.Place(how); !errors.Is(err, ErrPlan) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := (&Profile{Layers: []LayerProfile{{}}}).Place(Placing{Cluster{0, 1, 1, 1}, 1}); !errors.Is(err, ErrPlan) {
		t.Error(err)
	}
}
