package moe

import (
	"fmt"
	"slices"
)

// ExpertMap says which expert stands behind each row of a layer's router. Router rows stay as in the file; a pruned row is set to
// -inf before scoring, which equals leaving it out and keeps groups where they are.
type ExpertMap struct {
	Orig []int32 // router row -> expert of the original checkpoint; metadata only
	Phys []int32 // router row -> physical expert; -1 = pruned; rows that share one are merged
	At   []Place // physical expert -> where the checkpoint has it; nil = in the order of its only stack
}

// Place is where a checkpoint keeps an expert: which of a layer's stacks, and which expert of that one.
type Place struct{ Bank, Row int32 }

// EveryExpert is the map of an untouched layer of n experts.
func EveryExpert(n int) ExpertMap {
	m := ExpertMap{Orig: make([]int32, n), Phys: make([]int32, n)}
	for i := range n {
		m.Orig[i], m.Phys[i] = int32(i), int32(i)
	}
	return m
}

// Physical is the number of experts that must be in some bank: one more than the largest.
func (m ExpertMap) Physical() int {
	most := int32(-1)
	for _, p := range m.Phys {
		most = max(most, p)
	}
	return int(most) + 1
}

// Live is the number of router rows that can be chosen.
func (m ExpertMap) Live() int {
	live := 0
	for _, p := range m.Phys {
		if p >= 0 {
			live++
		}
	}
	return live
}

// Place is where the checkpoint has a physical expert.
func (m ExpertMap) Place(physical int) Place {
	if m.At == nil {
		return Place{Row: int32(physical)}
	}
	return m.At[physical]
}

// dense is the map with physical experts that no row leads to left out and the others renumbered in order.
func (m ExpertMap) dense() ExpertMap {
	number := slices.Repeat([]int32{-1}, m.Physical())
	for _, p := range m.Phys {
		if p >= 0 {
			number[p] = 0
		}
	}
	var at []Place
	for p := range number {
		if number[p] == 0 {
			number[p] = int32(len(at))
			at = append(at, m.Place(p))
		}
	}
	out := ExpertMap{Orig: m.Orig, Phys: slices.Clone(m.Phys), At: at}
	for row, p := range out.Phys {
		if p >= 0 {
			out.Phys[row] = number[p]
		}
	}
	return out
}

// leastInGroup is how many live rows the group has that has the fewest.
func (m ExpertMap) leastInGroup(groups int) int {
	size, least := len(m.Phys)/groups, len(m.Phys)
	for g := range groups {
		least = min(least, ExpertMap{Phys: m.Phys[g*size : (g+1)*size]}.Live())
	}
	return least
}

// Check says what is wrong with a map for a router: too few live rows, or a physical expert that no row leads to.
func (m ExpertMap) Check(s RouterSpec) error {
	if len(m.Phys) != s.Experts || len(m.Orig) != s.Experts {
		return fmt.Errorf("expert map of %d rows for a router of %d", len(m.Phys), s.Experts)
	}
	used, live := make([]bool, m.Physical()), m.Live()
	if m.At != nil && len(m.At) != len(used) {
		return fmt.Errorf("expert map: places of %d physical experts, there are %d", len(m.At), len(used))
	}
	for row, p := range m.Phys {
		if p < -1 {
			return fmt.Errorf("expert map: row %d leads to %d", row, p)
		}
		if p >= 0 {
			used[p] = true
		}
	}
	if live < s.K {
		return fmt.Errorf("expert map leaves %d experts, the router takes %d", live, s.K)
	}
	if s.Groups > 1 && m.leastInGroup(s.Groups)*s.GroupsKept < s.K {
		return fmt.Errorf("expert map leaves %d experts in a group, of which %d are kept for %d a token", m.leastInGroup(s.Groups), s.GroupsKept, s.K)
	}
	for p, ok := range used {
		if !ok {
			return fmt.Errorf("expert map: no row leads to physical expert %d", p)
		}
	}
	return nil
}
