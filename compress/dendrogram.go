package compress

import (
	"cmp"
	"container/heap"
)

// merge joins two clusters, each named by its lowest member; the union goes by A, the lower of the two.
type merge struct {
	A, B   int
	Height float64 // largest distance of any two members
}

// dendrogram joins n items, closest pairs first, until one cluster is left: complete linkage, so that heights rise. Of equal heights the
// lowest names come first. It takes time n^2 log n and memory n^2.
//
// distance(i, j) is asked once for every i < j and must be a number.
func dendrogram(n int, distance func(i, j int) float64) []merge {
	apart := make([][]float64, n) // apart[j][i] of clusters i < j
	pairs := make(pairHeap, 0, n*n/2)
	for j := range n {
		apart[j] = make([]float64, j)
		for i := range j {
			apart[j][i] = distance(i, j)
			pairs = append(pairs, pair{merge{i, j, apart[j][i]}, 0})
		}
	}
	heap.Init(&pairs)
	between := func(i, j int) *float64 { return &apart[max(i, j)][min(i, j)] }
	joined, changed := make([]bool, n), make([]int, n)
	var out []merge
	for len(out) < n-1 {
		p := heap.Pop(&pairs).(pair)
		if joined[p.A] || joined[p.B] || p.changed != changed[p.A]+changed[p.B] {
			continue // one of the two has grown since
		}
		out = append(out, p.merge)
		joined[p.B] = true
		changed[p.A]++
		for c := range n {
			if c == p.A || joined[c] {
				continue
			}
			d := between(p.A, c)
			*d = max(*d, *between(p.B, c))
			heap.Push(&pairs, pair{merge{min(p.A, c), max(p.A, c), *d}, changed[p.A] + changed[c]})
		}
	}
	return out
}

// pair is two clusters that may be joined, as they were after so many changes of the two: both numbers only grow, so their sum tells.
type pair struct {
	merge
	changed int
}

type pairHeap []pair

func (h pairHeap) Len() int { return len(h) }

func (h pairHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(cmp.Compare(a.Height, b.Height), a.A-b.A, a.B-b.B) < 0
}

func (h pairHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is heap's.
func (h *pairHeap) Push(x any) { *h = append(*h, x.(pair)) }

// Pop is heap's.
func (h *pairHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// clusters are the members of each cluster after the first steps merges, by the cluster's name; members rise.
func clusters(n int, merges []merge) map[int][]int {
	out := make(map[int][]int, n)
	for i := range n {
		out[i] = []int{i}
	}
	for _, m := range merges {
		out[m.A] = sortedUnion(out[m.A], out[m.B])
		delete(out, m.B)
	}
	return out
}

// sortedUnion joins two rising lists without common members.
func sortedUnion(a, b []int) []int {
	out := make([]int, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0] < b[0] {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}
