package compress

import (
	"fmt"
	"slices"
)

// Placement is on which device each expert of a layer is to be, and what that is worth. Balances are the busiest device's load over the mean one's;
// costs are J, see Placing, and are 0 with copies of experts.
type Placement struct {
	Layer         int
	Slots         []int // the expert of each slot; slots of a device are neighbours, its experts rise
	Even, EvenNow float64
	Cost, CostNow float64
	Moved         int // slots whose expert is none that the device had
}

// Placing is how experts are placed. Each layer is placed by itself: by Place; without copies then by swaps of experts, within each node, as long as J
// falls, which is the busiest device's load over the mean one's plus Apart times the share of pairs chosen together that are on different devices.
// At last devices, and nodes, are numbered so that as few experts move as can be from their order in the file.
type Placing struct {
	Cluster         // Slots 0 = one an expert
	Apart   float64 // in the order of the busiest device's load over the mean one's
}

// Place places the experts of all layers by what a profile has seen. The values before are those of experts in the order of the file. ErrPlan: a
// layer's numbers do not divide, or no layer has experts.
func (p *Profile) Place(how Placing) ([]Placement, error) {
	if !(how.Apart >= 0 && how.Apart <= 1e6) {
		return nil, fmt.Errorf("%w: pairs apart weigh %v, want 0 to 1e6", ErrPlan, how.Apart)
	}
	var out []Placement
	for l := range p.Layers {
		if len(p.Layers[l].Usage) == 0 {
			continue
		}
		placed, err := p.Layers[l].place(how)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", l, err)
		}
		placed.Layer = l
		out = append(out, placed)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: the profile is of a model without experts", ErrPlan)
	}
	return out, nil
}

func (l *LayerProfile) place(how Placing) (out Placement, err error) {
	load, c := make([]float64, len(l.Usage)), how.Cluster
	for e, n := range l.Usage {
		load[e] = float64(n)
	}
	if c.Slots == 0 {
		c.Slots = len(load)
	}
	slots, err := Place(load, c)
	if err != nil {
		return out, err
	}
	first := make([]int, c.Slots) // as the file has them; copies follow
	for s := range first {
		first[s] = s % len(load)
	}
	o, copies := l.objective(load, c.Devices, how.Apart), c.Slots > len(load)
	if !copies {
		slots = o.swapped(slots, c)
	}
	if slots, err = renumbered(slots, first, c.Nodes); err != nil {
		return out, err
	}
	for _, part := range chunks(slots, c.Nodes) {
		had := first[len(out.Slots):][:len(part)]
		if part, err = renumbered(part, had, c.Devices/c.Nodes); err != nil {
			return out, err
		}
		out.Slots = append(out.Slots, part...)
	}
	for d, part := range chunks(out.Slots, c.Devices) {
		slices.Sort(part)
		out.Moved += len(part) - common(part, first[d*len(part):][:len(part)])
	}
	if !copies {
		out.Cost, out.CostNow = o.Cost(devicesOf(first, c)), o.Cost(devicesOf(out.Slots, c))
	}
	out.Even, out.EvenNow = evenness(load, first, c.Devices), evenness(load, out.Slots, c.Devices)
	return out, nil
}

// objective is J of a layer.
func (l *LayerProfile) objective(load []float64, devices int, apart float64) Objective {
	var sum, pairs float64
	for e, v := range load {
		sum += v
		for f := range e {
			if l.Together != nil {
				pairs += float64(l.Together[e][f])
			}
		}
	}
	o := Objective{Loads: load, Together: l.Together}
	if sum > 0 {
		o.Load = float64(devices) / sum
	}
	if pairs > 0 {
		o.Apart = apart / pairs
	}
	return o
}

// swapped improves a placement without copies by swaps within each of the nodes.
func (o Objective) swapped(slots []int, c Cluster) (out []int) {
	nodes := c.Nodes
	if c.Groups%nodes != 0 {
		nodes = 1 // as Place does
	}
	o.Within = make([]int, len(slots))
	for s, e := range slots {
		o.Within[e] = s * nodes / len(slots)
	}
	better := o.Improve(devicesOf(slots, c))
	for d := range c.Devices {
		for e, device := range better {
			if device == d {
				out = append(out, e)
			}
		}
	}
	return out
}

// renumbered gives equal parts of slots the order in which as many experts as can be stay in the parts of first.
func renumbered(slots, first []int, parts int) ([]int, error) {
	now, before := chunks(slots, parts), chunks(first, parts)
	cost := make([][]float64, parts)
	for i := range cost {
		for j := range before {
			cost[i] = append(cost[i], -float64(common(now[i], before[j])))
		}
	}
	to, err := Assign(cost)
	if err != nil {
		return nil, err
	}
	ordered := make([][]int, parts)
	for i, j := range to {
		ordered[j] = now[i]
	}
	return slices.Concat(ordered...), nil
}

// chunks cuts slots into equal parts.
func chunks(slots []int, parts int) [][]int {
	return slices.Collect(slices.Chunk(slots, len(slots)/parts))
}

// common is how many slots of a hold an expert that one of b holds, each of which counts once.
func common(a, b []int) (n int) {
	left := slices.Clone(b)
	for _, e := range a {
		if i := slices.Index(left, e); i >= 0 {
			left = slices.Delete(left, i, i+1)
			n++
		}
	}
	return n
}

// devicesOf is the device of each expert, of which there are no copies.
func devicesOf(slots []int, c Cluster) []int {
	out := make([]int, len(slots))
	for s, e := range slots {
		out[e] = s * c.Devices / len(slots)
	}
	return out
}

// evenness is the busiest device's load over the mean one's, where copies of an expert share its load.
func evenness(load []float64, slots []int, devices int) float64 {
	copies := make([]float64, len(load))
	for _, e := range slots {
		copies[e]++
	}
	var most, sum float64
	for _, part := range chunks(slots, devices) {
		var v float64
		for _, e := range part {
			v += load[e] / copies[e]
		}
		most, sum = max(most, v), sum+v
	}
	if sum == 0 {
		return 1
	}
	return most * float64(devices) / sum
}
