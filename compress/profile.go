// Package compress makes smaller models: it observes a model at work, plans which experts stay and in how many bits, and writes the result.
package compress

import "github.com/winnow-llm/winnow/moe"

// Profile is what was seen of a model at work on a calibration text, enough for every plan. Only experts that were chosen ran.
type Profile struct {
	Model       string // 64 hex, see moe.Overlay
	Arch        string
	Calibration moe.Calibration
	Layers      []LayerProfile // one a layer of the model; of a dense one only Importance
}

// LayerProfile is what was seen of a layer. Slices are by router row.
type LayerProfile struct {
	Tokens     int64       // that were routed
	K          int         // experts a token
	Usage      []int64     // tokens that chose the expert
	Weight     []float64   // sum of its weights
	Weight2    []float64   // sum of their squares
	Saliency   []float64   // sum of weight times the norm of its output: REAP's, before it is divided by Usage
	Largest    []float64   // largest absolute value of its outputs
	Together   [][]int64   // tokens that chose both experts; nil where there are more than 512
	Skips      [64]int64   // second weight over first: how many tokens in each 64th of [0, 1]
	Importance float64     // 1 - mean cosine of the layer's input and output
	Inputs     [][]float64 // sum of squares of each column of an expert's inputs; nil unless asked for
	Hidden     [][]float64 // likewise of its hidden rows
}
