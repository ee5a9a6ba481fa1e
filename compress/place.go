package compress

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Cluster is what experts are placed on.
type Cluster struct {
	Slots   int // experts that fit, copies counted
	Groups  int // of neighbouring experts, which the router keeps whole
	Nodes   int // machines
	Devices int // on all nodes together
}

func (c Cluster) check(experts int) error {
	switch {
	case experts < 1 || c.Groups < 1 || c.Nodes < 1 || c.Devices < 1 || c.Slots > 1<<20:
		return fmt.Errorf("%w: %d experts on %+v", ErrPlan, experts, c)
	case c.Slots < experts:
		return fmt.Errorf("%w: %d experts in %d slots", ErrPlan, experts, c.Slots)
	case c.Devices%c.Nodes != 0 || c.Slots%c.Devices != 0:
		return fmt.Errorf("%w: %d slots on %d devices of %d nodes: no whole number each", ErrPlan, c.Slots, c.Devices, c.Nodes)
	case experts%c.Groups != 0:
		return fmt.Errorf("%w: %d experts in %d groups: no whole number each", ErrPlan, experts, c.Groups)
	}
	return nil
}

// Place spreads a layer's experts by load over slots, of which each device has as many: busy experts get copies, and devices about the same
// load. It is DeepSeek's EPLB: groups are packed on nodes where they divide evenly, so that the router's groups keep a token on few nodes;
// each node copies what is busiest a copy and packs its slots on its devices. out[slot] is the expert; slots of a device are neighbours.
// ErrPlan: numbers that do not divide, or a load that is no number from 0.
func Place(load []float64, c Cluster) ([]int, error) {
	if err := c.check(len(load)); err != nil {
		return nil, err
	}
	for e, v := range load {
		if !(v >= 0 && v <= math.MaxFloat64) {
			return nil, fmt.Errorf("%w: expert %d has load %v", ErrPlan, e, v)
		}
	}
	if c.Groups%c.Nodes != 0 {
		c.Groups, c.Nodes = 1, 1
	}
	size := len(load) / c.Groups
	sums := make([]float64, c.Groups)
	for e, v := range load {
		sums[e/size] += v
	}
	var out []int
	for _, groups := range pack(sums, c.Nodes) {
		var experts []int // of the node
		for _, g := range groups {
			for e := range size {
				experts = append(experts, g*size+e)
			}
		}
		copies, each := replicate(load, experts, c.Slots/c.Nodes)
		for _, slots := range pack(each, c.Devices/c.Nodes) {
			for _, s := range slots {
				out = append(out, copies[s])
			}
		}
	}
	return out, nil
}

// pack puts items into bins of as many items each, the heaviest first into the lightest bin that has room; lower numbers first among equals.
// Where every bin holds one item they stay in order.
func pack(weight []float64, bins int) [][]int {
	out, room := make([][]int, bins), len(weight)/bins
	order := make([]int, len(weight))
	for i := range order {
		order[i] = i
	}
	if room > 1 {
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(weight[b], weight[a]) })
	}
	sums := make([]float64, bins)
	for i, item := range order {
		best := i
		if room > 1 {
			best = none
			for b := range bins {
				if len(out[b]) < room && (best == none || sums[b] < sums[best]) {
					best = b
				}
			}
		}
		out[best] = append(out[best], item)
		sums[best] += weight[item]
	}
	return out
}

// replicate fills slots with experts: each once, then again and again the one with most load a copy. each is the load of every slot.
func replicate(load []float64, experts []int, slots int) (copies []int, each []float64) {
	count := make([]int, len(experts))
	at := make([]int, 0, slots) // position in experts
	for i := range experts {
		count[i] = 1
		at = append(at, i)
	}
	for len(at) < slots {
		busiest := 0
		for i, e := range experts {
			if load[e]/float64(count[i]) > load[experts[busiest]]/float64(count[busiest]) {
				busiest = i
			}
		}
		count[busiest]++
		at = append(at, busiest)
	}
	for _, i := range at {
		copies, each = append(copies, experts[i]), append(each, load[experts[i]]/float64(count[i]))
	}
	return copies, each
}

// Objective is what a placement without copies costs: Load times the largest load of a device, plus Apart times the tokens that chose two
// experts which are on different devices.
type Objective struct {
	Load, Apart float64
	Loads       []float64 // by expert
	Together    [][]int64 // tokens that chose both, of which the half below the diagonal is read; nil = not counted
	Within      []int     // by expert: Improve swaps those of one number only; nil = any
}

// Cost is that of a placement: device[e] is where expert e is, from 0.
func (o Objective) Cost(device []int) float64 {
	loads := make([]float64, slices.Max(device)+1)
	var apart float64
	for e, d := range device {
		loads[d] += o.Loads[e]
		for f := range e {
			if o.Together != nil && device[f] != d {
				apart += float64(o.Together[e][f])
			}
		}
	}
	return o.Load*slices.Max(loads) + o.Apart*apart
}

// Improve swaps pairs of experts between devices as long as a swap lowers the cost; the pair of lowest experts that does comes first. Devices
// keep their counts. It returns another placement, and leaves the given one as it is.
func (o Objective) Improve(device []int) []int {
	out := slices.Clone(device)
	if len(out) == 0 {
		return out
	}
	s := o.search(out)
	for improved := true; improved; {
		improved = false
		for i := range out {
			for j := i + 1; j < len(out); j++ {
				if out[i] != out[j] && s.may(i, j) && s.gain(i, j) < -1e-12*(1+s.scale) {
					s.swap(i, j)
					improved = true
				}
			}
		}
	}
	return out
}

// search keeps what a swap changes: the loads of devices, and for each expert the tokens that it shares with each device's.
type search struct {
	Objective
	device []int
	loads  []float64
	shared [][]float64
	scale  float64 // of costs, for what counts as lower
}

func (o Objective) search(device []int) *search {
	devices := slices.Max(device) + 1
	s := &search{Objective: o, device: device, loads: make([]float64, devices), shared: make([][]float64, len(device)), scale: o.Cost(device)}
	for e, d := range device {
		s.loads[d] += o.Loads[e]
		s.shared[e] = make([]float64, devices)
		for f, g := range device {
			if f != e {
				s.shared[e][g] += s.together(e, f)
			}
		}
	}
	return s
}

// together reads one half, as Cost does: a search over what is not symmetric might never end.
func (s *search) together(e, f int) float64 {
	if s.Together == nil {
		return 0
	}
	return float64(s.Together[max(e, f)][min(e, f)])
}

// gain is by how much the cost grows when two experts change places.
func (s *search) gain(i, j int) float64 {
	p, q := s.device[i], s.device[j]
	apart := s.shared[i][p] - s.shared[i][q] + s.shared[j][q] - s.shared[j][p] + 2*s.together(i, j)
	before, after, moved := 0.0, 0.0, s.Loads[j]-s.Loads[i]
	for d, v := range s.loads {
		before = max(before, v)
		switch d {
		case p:
			v += moved
		case q:
			v -= moved
		}
		after = max(after, v)
	}
	return s.Load*(after-before) + s.Apart*apart
}

func (s *search) may(i, j int) bool { return s.Within == nil || s.Within[i] == s.Within[j] }

func (s *search) swap(i, j int) {
	p, q := s.device[i], s.device[j]
	for e := range s.device {
		change := 0.0
		if e != i {
			change += s.together(e, i)
		}
		if e != j {
			change -= s.together(e, j)
		}
		s.shared[e][p] -= change
		s.shared[e][q] += change
	}
	moved := s.Loads[j] - s.Loads[i]
	s.loads[p] += moved
	s.loads[q] -= moved
	s.device[i], s.device[j] = q, p
}
