package moe

import "fmt"

// ExpertMap says which expert stands behind each row of a layer's router. Router rows stay as in the file; a pruned row is set to
// -inf before scoring, which equals leaving it out and keeps groups where they are.
type ExpertMap struct {
	Orig []int32 // router row -> expert of the original checkpoint; metadata only
	Phys []int32 // router row -> physical expert; -1 = pruned; rows that share one are merged
}

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

// Check says what is wrong with a map for a router: too few live rows, or a physical expert that no row leads to.
func (m ExpertMap) Check(s RouterSpec) error {
	if len(m.Phys) != s.Experts || len(m.Orig) != s.Experts {
		return fmt.Errorf("expert map of %d rows for a router of %d", len(m.Phys), s.Experts)
	}
	used, live := make([]bool, m.Physical()), 0
	for row, p := range m.Phys {
		if p < -1 {
			return fmt.Errorf("expert map: row %d leads to %d", row, p)
		}
		if p >= 0 {
			used[p] = true
			live++
		}
	}
	if live < s.K {
		return fmt.Errorf("expert map leaves %d experts, the router takes %d", live, s.K)
	}
	for p, ok := range used {
		if !ok {
			return fmt.Errorf("expert map: no row leads to physical expert %d", p)
		}
	}
	return nil
}
