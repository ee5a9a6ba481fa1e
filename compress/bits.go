package compress

import (
	"errors"
	"fmt"
)

// ErrBudget is wrapped where the floors of the units take more bytes than there are; the wrapping says how many they take.
var ErrBudget = errors.New("compress: budget of bits is too small")

// Kind is what part of a model a unit is.
type Kind string

// Every token passes through all of these but the experts.
const (
	Attention Kind = "attention" // one matrix of a layer's attention
	Dense     Kind = "dense"     // the network of a layer without experts
	Shared    Kind = "shared"    // the experts of a layer that every token passes through
	Expert    Kind = "expert"    // one that the router chooses
)

// Unit is what is given one format: its matrices are stored in it or, where their rows are no whole number of its blocks, in the one
// that takes its place.
type Unit struct {
	Kind    Kind
	Layer   int
	Expert  int      // router row; of the other kinds -1
	Names   []string // its tensors; of an expert, the stacks that it is a slice of
	Values  int64    // numbers in all of them
	Weight  float64  // what its error counts: the mean square of an expert's routing weight over all tokens, 1 for the other kinds
	Tokens  int64    // that chose the expert during calibration; without calibration and for the other kinds 0
	Outlier float64  // largest Outlier of its matrices
	Choices []Choice // by rising bytes; never empty
	Floor   int      // the first of Choices that may be taken
}

// Choice is a unit in one format.
type Choice struct {
	Format string // name of a quant.Format
	Bytes  int64
	Error  float64 // squared errors relative to the squared sizes, added up over the unit's matrices; 0 is exact
}

// bits is how many bits a value takes under a choice, scales included.
func (u *Unit) bits(choice int) float64 {
	return 8 * float64(u.Choices[choice].Bytes) / float64(u.Values)
}

// mostBanks is how many formats the experts of a layer may have: each costs the layer a launch more.
const mostBanks = 4

// Allocate gives each unit a choice, so that all together take at most budget bytes and the experts of a layer have at most so many
// formats; 0 = 3, at most 4. The result is by unit. ErrBudget: the floors alone take more.
//
// All units start at their floors. The step that saves most weighted error per byte comes next, until the next one does not fit. Since
// a step may leap over formats, each unit walks the convex hull of its choices, and where no layer is at its limit of formats the result
// has the least error of all that take as few bytes. Steps do not depend on the budget, which only ends them: more bytes never take a
// format away from a unit, which they would if the last few bytes were filled with what fits, or units exchanged formats.
func Allocate(units []Unit, budget int64, formats int) ([]int, error) {
	if formats == 0 {
		formats = 3
	}
	a := &allocation{units: units, chosen: make([]int, len(units)), formats: min(max(formats, 2), mostBanks)}
	left, err := a.start(budget)
	if err != nil {
		return nil, err
	}
	best := make([]step, len(a.groups))
	for g := range a.groups {
		best[g] = a.next(g)
	}
	for {
		g := 0
		for i := range best {
			if best[i].before(best[g]) {
				g = i
			}
		}
		if len(best) == 0 || best[g].bytes == 0 || best[g].bytes > left {
			return a.chosen, nil
		}
		left -= best[g].bytes
		a.chosen[best[g].unit] = best[g].choice
		best[g] = a.next(g)
	}
}

// allocation is a policy as far as it is made.
type allocation struct {
	units   []Unit
	chosen  []int
	groups  [][]int // units: the experts of one layer, or one of the other kinds
	formats int     // of a group
}

// start puts every unit on its floor and gives the bytes left.
func (a *allocation) start(budget int64) (left int64, err error) {
	layers := map[int]int{}
	least := int64(0)
	for i := range a.units {
		u := &a.units[i]
		a.chosen[i] = u.Floor
		least += u.Choices[u.Floor].Bytes
		g, known := layers[u.Layer]
		if u.Kind != Expert || !known {
			if g = len(a.groups); u.Kind == Expert {
				layers[u.Layer] = g
			}
			a.groups = append(a.groups, nil)
		}
		a.groups[g] = append(a.groups[g], i)
	}
	if least > budget {
		return 0, fmt.Errorf("%w: %d bytes, the smallest formats that may be used take %d", ErrBudget, budget, least)
	}
	return budget - least, nil
}

// step moves a unit to a larger choice.
type step struct {
	unit, choice int
	bytes        int64   // that it costs; 0 = there is no step
	gain         float64 // weighted error that a byte saves
	plain        float64 // error that a byte saves: it decides between units whose weights are 0
}

// before says that s is the better step. It is strict, so of equal steps the first found stays.
func (s step) before(t step) bool {
	switch {
	case s.bytes == 0 || t.bytes == 0:
		return s.bytes > 0
	case s.gain != t.gain:
		return s.gain > t.gain
	}
	return s.plain > t.plain
}

// next is the best step in a group.
func (a *allocation) next(g int) (best step) {
	uses := map[string]int{} // units by format
	for _, i := range a.groups[g] {
		uses[a.units[i].Choices[a.chosen[i]].Format]++
	}
	for _, i := range a.groups[g] {
		u := &a.units[i]
		from := u.Choices[a.chosen[i]]
		for c := a.chosen[i] + 1; c < len(u.Choices); c++ {
			to := u.Choices[c]
			bytes, saved := to.Bytes-from.Bytes, from.Error-to.Error
			if bytes <= 0 || !(saved > 0) {
				continue
			}
			kinds := len(uses)
			if uses[from.Format] == 1 {
				kinds--
			}
			if uses[to.Format] == 0 {
				kinds++
			}
			if kinds > a.formats {
				continue
			}
			s := step{i, c, bytes, u.Weight * saved / float64(bytes), saved / float64(bytes)}
			if s.before(best) {
				best = s
			}
		}
	}
	return best
}
