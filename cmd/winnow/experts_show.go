package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/moe"
)

// watched are the numbers of a profile that can be seen, by name.
var watched = map[string]func(compress.LayerProfile) []float64{
	"usage": func(l compress.LayerProfile) []float64 {
		out := make([]float64, len(l.Usage))
		for e, n := range l.Usage {
			out[e] = float64(n)
		}
		return out
	},
	"weight":  func(l compress.LayerProfile) []float64 { return l.Weight },
	"largest": func(l compress.LayerProfile) []float64 { return l.Largest },
	"saliency": func(l compress.LayerProfile) []float64 {
		out := make([]float64, len(l.Saliency))
		for e, v := range l.Saliency {
			if n := l.Usage[e]; n > 0 {
				out[e] = v / float64(n)
			}
		}
		return out
	},
}

func expertsShowVerb() *cobra.Command {
	var of, svg string
	var draw bool
	c := &cobra.Command{
		Use:   "show PROFILE|OVERLAY",
		Short: "Show how experts are used, or which of them an overlay leaves",
		Long: `show draws a row for each layer and a cell for each expert: of a profile how much it is used, of an overlay what goes, stays and
is merged. Where the output is no terminal it writes a line for each layer, for diff; --map draws there too. NO_COLOR is heeded.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := readMap(args[0], of)
			if err != nil {
				return err
			}
			if svg != "" {
				f, err := os.Create(svg)
				if err != nil {
					return err
				}
				return errors.Join(m.svg(f), f.Close())
			}
			out, terminal := c.OutOrStdout(), terminalOf(c.OutOrStdout())
			switch {
			case terminal != nil:
				columns, _ := sizeOf(terminal)
				return m.draw(out, columns, configs.ReadScreen())
			case draw:
				return m.draw(out, 80, configs.Screen{})
			}
			return m.text(out)
		},
	}
	names := slices.Sorted(maps.Keys(watched))
	c.Flags().StringVar(&of, "of", "usage", "what of a profile: "+strings.Join(names, ", ")+"; saliency is a token's mean")
	c.Flags().StringVar(&svg, "svg", "", "write a picture to this file")
	c.Flags().BoolVar(&draw, "map", false, "draw also where the output is no terminal")
	return c
}

// expertMap is what is known of each expert of each layer.
type expertMap struct {
	title string
	rows  []expertRow
	foot  string // a line of its own; "" = none
}

type expertRow struct {
	layer int
	cells []float64 // by expert, 0 to 1
	line  string    // the same in words
}

// readMap reads a profile or an overlay, whichever the file is.
func readMap(path, of string) (*expertMap, error) {
	value := watched[of]
	if value == nil {
		return nil, fmt.Errorf("show: --of %q, want one of %s", of, strings.Join(slices.Sorted(maps.Keys(watched)), ", "))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	profile, err := isProfile(io.LimitReader(f, moe.MostOverlayBytes))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !profile {
		return readOverlayMap(path)
	}
	p, err := compress.ReadProfile(path)
	if err != nil {
		return nil, err
	}
	m := &expertMap{title: fmt.Sprintf("%s of the experts of a model of architecture %q over %d tokens", of, p.Arch, p.Calibration.Tokens)}
	for l, lp := range p.Layers {
		if len(lp.Usage) > 0 {
			m.rows = append(m.rows, profileRow(l, value(lp)))
		}
	}
	m.foot = skipping(p)
	return m, nil
}

// skipping says of each layer below which share of the first expert's weight the second one's is in half of the tokens; "" where nothing was seen.
func skipping(p compress.Profile) string {
	var b strings.Builder
	for l, lp := range p.Layers {
		if v := lp.SkipBelow(); v > 0 {
			fmt.Fprintf(&b, " %d:%.2f", l, v)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "skip_beta with which half of a layer's tokens run their first expert alone:" + b.String()
}

// profileRow has cells in units of the largest, and a line in thousandths of the sum.
func profileRow(layer int, values []float64) expertRow {
	var sum float64
	for _, v := range values {
		sum += v
	}
	r, most := expertRow{layer: layer, cells: make([]float64, len(values))}, slices.Max(values)
	var line strings.Builder
	fmt.Fprintf(&line, "layer %d:", layer)
	for e, v := range values {
		share := 0.0
		if most > 0 {
			r.cells[e], share = v/most, 1000*(v/sum)
		}
		fmt.Fprintf(&line, " %.1f", share)
	}
	r.line = line.String()
	return r
}

// isProfile tells a profile, whose layers are a list, from an overlay, whose layers are by number.
func isProfile(r io.Reader) (bool, error) {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return false, errors.New("neither a profile nor an overlay of experts")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return false, err
		}
		if key == "layers" {
			t, err := d.Token()
			return t == json.Delim('['), err
		}
		var skipped json.RawMessage
		if err := d.Decode(&skipped); err != nil {
			return false, err
		}
	}
	return false, nil
}

func readOverlayMap(path string) (*expertMap, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, moe.MostOverlayBytes+1))
	if err != nil {
		return nil, err
	}
	o, err := moe.ParseOverlay(raw)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return overlayMap(o), nil
}

// overlayMap has a cell of 1 for an expert that stays, one half where it shares weights, 0 where it goes. How many experts there are an overlay
// does not say: rows end with the last that any layer names.
func overlayMap(o *moe.Overlay) *expertMap {
	m := &expertMap{title: fmt.Sprintf("experts that an overlay of method %q leaves; full stay, half share weights, empty go", o.Method)}
	experts := 0
	for _, l := range o.Layers {
		for _, e := range append(slices.Concat(l.Merge...), l.Drop...) {
			experts = max(experts, e+1)
		}
	}
	for _, layer := range slices.Sorted(maps.Keys(o.Layers)) {
		l := o.Layers[layer]
		r := expertRow{layer: layer, cells: slices.Repeat([]float64{1}, experts), line: fmt.Sprintf("layer %d:", layer)}
		if len(l.Drop) > 0 {
			r.line += " drop " + strings.Trim(fmt.Sprint(l.Drop), "[]")
		}
		for _, e := range l.Drop {
			r.cells[e] = 0
		}
		for _, set := range l.Merge {
			r.line += " merge " + strings.Trim(fmt.Sprint(set), "[]")
			for _, e := range set {
				r.cells[e] = 0.5
			}
		}
		if l.TopK > 0 {
			r.line += fmt.Sprintf(" topk %d", l.TopK)
		}
		m.rows = append(m.rows, r)
	}
	return m
}
