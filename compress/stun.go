package compress

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// STUN keeps one expert of each cluster of alike ones. Experts are alike whose router rows are close and, where Lambda and a profile say so, that
// tokens choose together; clusters are cut from the dendrograms of all layers at one height. The survivor is the member whose weights are closest
// to the cluster's mean. It needs no profile.
var STUN = registerMethod("stun", func(in In) (Plan, error) {
	return in.clustered("stun", func(layer int, merges []merge) ([]int, error) {
		return central(in.Weights, layer, merges)
	})
})

// clustered plans by clusters. survivors says who stays of each union, given all merges of a layer in order.
func (in In) clustered(method string, survivors func(layer int, merges []merge) ([]int, error)) (Plan, error) {
	layers, err := in.layers()
	if err != nil {
		return Plan{}, err
	}
	if in.Weights == nil {
		return Plan{}, fmt.Errorf("%w: method %s reads the model's weights", ErrPlan, method)
	}
	grown, ladders, total := make([][][]merge, len(layers)), make([]ladder, len(layers)), 0
	for i, l := range layers {
		r := in.Spec.Layers[l].Router
		if grown[i], err = in.dendrograms(l); err != nil {
			return Plan{}, err
		}
		ladders[i] = climbs(l, grown[i])
		ladders[i].most = (r.Experts - in.fewest(r)) / groups(r)
		total += r.Experts
	}
	steps, err := cut(ladders, total-in.staying(total))
	if err != nil {
		return Plan{}, err
	}
	gone, average := map[int][]int{}, map[int][][]int{}
	for i, l := range layers {
		var merges []merge
		for _, g := range grown[i] {
			merges = append(merges, g[:steps[i]]...)
		}
		if len(merges) == 0 {
			continue
		}
		stay, err := survivors(l, merges)
		if err != nil {
			return Plan{}, fmt.Errorf("layer %d: %w", l, err)
		}
		n := in.Spec.Layers[l].Router.Experts
		sets := unions(n, merges, stay)
		for _, c := range sets {
			gone[l] = append(gone[l], c[1:]...)
		}
		if n-len(merges) < in.kappa() {
			average[l] = sets
		}
	}
	p := in.plan(method, gone)
	p.Average = average
	return p, nil
}

// kappa is the count of clusters below which a layer's are averaged.
func (in In) kappa() int {
	if in.Kappa == 0 {
		return 3
	}
	return in.Kappa
}

// unions lists the clusters of several members after all merges, by lowest member; each begins with its survivor, stay's last word on it.
func unions(n int, merges []merge, stay []int) [][]int {
	sets := clusters(n, merges)
	last := map[int]int{}
	for i, m := range merges {
		last[m.A] = stay[i]
	}
	var out [][]int
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		if members := sets[name]; len(members) > 1 {
			out = append(out, append([]int{last[name]}, slices.DeleteFunc(members, func(e int) bool { return e == last[name] })...))
		}
	}
	return out
}

// dendrograms joins the experts of a layer, each group by itself, by the distance of STUN.
func (in In) dendrograms(layer int) ([][]merge, error) {
	router, err := in.Weights.Router(layer)
	if err != nil {
		return nil, err
	}
	r := in.Spec.Layers[layer].Router
	width := len(router) / r.Experts
	for i, v := range router {
		if v-v != 0 {
			return nil, fmt.Errorf("%w: layer %d: the router row of expert %d holds %v", ErrPlan, layer, i/width, v)
		}
	}
	near, together := in.Lambda[0], in.Lambda[1]
	if in.Lambda == [2]float64{} {
		near = 1
	}
	if !(near >= 0 && together >= 0 && near+together <= math.MaxFloat32) {
		return nil, fmt.Errorf("%w: distances weighed by %v and %v, want numbers from 0", ErrPlan, near, together)
	}
	meet := func(i, j int) float64 { return 0 }
	if together != 0 {
		if in.Profile == nil || in.Profile.Layers[layer].Together == nil {
			return nil, fmt.Errorf("%w: layer %d: coactivation is weighed by %v, but no profile holds it", ErrPlan, layer, together)
		}
		meet = in.Profile.Layers[layer].meetings()
	}
	size := r.Experts / groups(r)
	out := make([][]merge, groups(r))
	for g := range out {
		first := g * size
		out[g] = dendrogram(size, func(i, j int) float64 {
			i, j = first+i, first+j
			return near*apart(router[i*width:][:width], router[j*width:][:width]) - together*meet(i, j)
		})
		for k := range out[g] {
			out[g][k].A += first
			out[g][k].B += first
		}
	}
	return out, nil
}

// apart is the Euclidean distance.
func apart(a, b []float32) float64 {
	var sum float64
	for i, v := range a {
		d := float64(v) - float64(b[i])
		sum += d * d
	}
	return math.Sqrt(sum)
}

// meetings gives how often tokens chose two experts together, in units of the mean over all pairs of different experts.
func (l LayerProfile) meetings() func(i, j int) float64 {
	var sum float64
	for i, row := range l.Together {
		for j, v := range row {
			if i != j {
				sum += float64(v)
			}
		}
	}
	n := float64(len(l.Together))
	if sum == 0 {
		return func(i, j int) float64 { return 0 }
	}
	return func(i, j int) float64 { return float64(l.Together[i][j]) * n * (n - 1) / sum }
}

// climbs is the ladder of a layer's dendrograms: a step is one merge in each group, as high as the highest of them.
func climbs(layer int, grown [][]merge) ladder {
	l := ladder{layer: layer, size: len(grown)}
	for s := range grown[0] {
		height := math.Inf(-1)
		for _, g := range grown {
			height = max(height, g[s].Height)
		}
		l.heights = append(l.heights, height)
	}
	return l
}

// central names, for each merge, the one of the two survivors before it that is closer to the mean of the union, by all weights; the lower of
// equals, which two single experts always are. That a survivor of a union survived before keeps plans nested: keeping more never loses an
// expert. The weights of a cluster of three or more are read once, a piece of all its members at a time.
func central(w *Weights, layer int, merges []merge) ([]int, error) {
	far := make([]map[int]float64, len(merges)) // squared distance of each member of a union to its mean
	sets := make([][]int, len(merges))          // members of each union, rising
	within := map[int][]int{}
	of := func(name int) []int {
		if within[name] == nil {
			return []int{name}
		}
		return within[name]
	}
	for i, m := range merges {
		sets[i], far[i] = sortedUnion(of(m.A), of(m.B)), map[int]float64{}
		within[m.A] = sets[i]
		delete(within, m.B)
	}
	for _, name := range slices.Sorted(maps.Keys(within)) {
		members := within[name]
		if len(members) < 3 {
			continue
		}
		err := spread(w, layer, members, func(read map[int][]float32) {
			for i, set := range sets {
				if _, ours := slices.BinarySearch(members, set[0]); ours && len(set) > 2 {
					fromMean(far[i], set, read)
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	stay, holds := make([]int, len(merges)), map[int]int{}
	survivor := func(name int) int {
		if e, ok := holds[name]; ok {
			return e
		}
		return name
	}
	for i, m := range merges {
		a, b := survivor(m.A), survivor(m.B)
		if a > b {
			a, b = b, a
		}
		if stay[i] = a; far[i][b] < far[i][a] {
			stay[i] = b
		}
		holds[m.A] = stay[i]
	}
	return stay, nil
}

// spread reads experts piece by piece and shows see each piece of all of them.
func spread(w *Weights, layer int, members []int, see func(map[int][]float32)) error {
	read := map[int][]float32{}
	for piece := range w.Chunks(layer) {
		for _, e := range members {
			values, err := w.Chunk(read[e][:0], layer, e, piece)
			if err != nil {
				return err
			}
			read[e] = values
		}
		see(read)
	}
	return nil
}

// fromMean adds the squared distances of the members of a union to their mean.
func fromMean(far map[int]float64, members []int, read map[int][]float32) {
	mean := make([]float64, len(read[members[0]]))
	for _, e := range members {
		for i, v := range read[e] {
			mean[i] += float64(v)
		}
	}
	for i := range mean {
		mean[i] /= float64(len(members))
	}
	for _, e := range members {
		var sum float64
		for i, v := range read[e] {
			d := float64(v) - mean[i]
			sum += d * d
		}
		far[e] += sum
	}
}
