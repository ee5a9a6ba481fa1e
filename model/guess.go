package model

import (
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
)

// guess has experts of the next layer read before that layer asks for them: it shows this layer's hidden states to the next one's router, which
// the residual stream changes little between two layers. Whether that is worth the reading is measured: where too few of the guessed experts are
// needed in the end, guesses stop for a while. A guess only has the system read ahead; slots change by what is needed alone.
type guess struct {
	waves *waves     // of the next layer; nil = no guesses
	route *moe.Route // the next layer's, on this layer's hidden states
	asked bool       // the route was run for this step
	rest  int        // steps to pass over
	ids   []int32    // scratch

	guessed []bool // by physical expert of the next layer: asked for ahead
	any     bool
	tried   int // guesses since they were last judged
	right   int
}

// Numbers of guesses.
const (
	guessRows      = 8    // most rows of a step: more need most experts anyway
	guessTrial     = 512  // guesses by which they are judged
	guessPrecision = 0.6  // least share that must be needed
	guessRest      = 4096 // steps without guesses after they were found wanting
)

// next prepares guesses of what the next layer needs.
func (g *guess) next(w *waves, route *moe.Route) {
	r := *route
	r.Wish, r.Of, r.Mass = tensor.Mat{}, tensor.Mat{}, tensor.Mat{}
	g.waves, g.route, g.guessed = w, &r, make([]bool, len(w.experts))
	w.guessedBy = g
}

// ask runs the next layer's router, of a small step. It writes over the choices that the next layer will write itself.
func (g *guess) ask(q tensor.Queue) {
	g.asked = false
	if g.waves == nil || len(g.waves.batch.pos) > guessRows {
		return
	}
	if g.rest > 0 {
		g.rest--
		return
	}
	q.Run(g.route)
	g.asked = true
}

// fetch has the experts read that ask has found, but for those that are there.
func (g *guess) fetch(q tensor.Queue) {
	if !g.asked {
		return
	}
	rows, k := len(g.waves.batch.pos), g.route.IDs.Cols
	g.ids = append(g.ids[:0], make([]int32, rows*k)...)
	read(q, g.route.IDs.Slice(0, rows), g.ids)
	for _, id := range g.ids {
		if id < 0 || g.waves.phys[id] < 0 {
			continue
		}
		if e := g.waves.phys[id]; !g.guessed[e] && !g.waves.room.slots.Holds(g.waves.at, e) {
			g.guessed[e], g.any = true, true
			g.waves.stats.Guessed++
			g.waves.ahead([]moe.Fill{{Expert: e}})
		}
	}
}

// judge counts how many guesses were right, once the layer that they were of knows what it needs.
func (g *guess) judge() {
	if g == nil || !g.any {
		return
	}
	g.any = false
	w := g.waves
	for e, was := range g.guessed {
		if !was {
			continue
		}
		g.guessed[e] = false
		if g.tried++; w.offset[e+1] > w.offset[e] {
			g.right++
			w.stats.Came++
		}
	}
	if g.tried >= guessTrial {
		if float64(g.right) < guessPrecision*float64(g.tried) {
			g.rest = guessRest
		}
		g.tried, g.right = 0, 0
	}
}
