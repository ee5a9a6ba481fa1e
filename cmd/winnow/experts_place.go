package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
)

func expertsPlaceVerb() *cobra.Command {
	var how compress.Placing
	var out string
	c := &cobra.Command{
		Use:   "place PROFILE --devices N",
		Short: "Plan which of several devices holds which expert",
		Long: `place spreads the experts of each layer over devices so that these are about equally busy and experts that tokens choose together are
neighbours. It packs them as DeepSeek's EPLB does, where there are more --replicas than experts with copies of the busiest; without copies it then
swaps experts as long as J falls: the busiest device's load over the mean one's, plus --apart times the share of pairs of experts chosen together
that are on different devices. Groups of the router stay on one of --nodes where they divide evenly.

Winnow itself runs a model on one device and does not read the plan. --output writes it as SGLang takes it by --init-expert-location: for every
layer, which expert is in which place, the places of a device being neighbours.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := compress.ReadProfile(args[0])
			if err != nil {
				return err
			}
			placed, err := p.Place(how)
			if err == nil && out != "" {
				err = writePlacement(out, len(p.Layers), placed)
			}
			if err != nil {
				return fmt.Errorf("experts place: %w", err)
			}
			return printPlacement(c.OutOrStdout(), how, placed)
		},
	}
	f := c.Flags()
	f.IntVar(&how.Devices, "devices", 0, "devices on all nodes together")
	f.IntVar(&how.Slots, "replicas", 0, "experts on all devices together, copies counted; 0 = as many as there are, none twice")
	f.IntVar(&how.Groups, "groups", 1, "groups of neighbouring experts that the router chooses from")
	f.IntVar(&how.Nodes, "nodes", 1, "machines that the devices are in")
	f.Float64Var(&how.Apart, "apart", 1, "what it costs in J if all pairs are apart")
	f.StringVarP(&out, "output", "o", "", "file to write")
	if err := c.MarkFlagRequired("devices"); err != nil {
		panic("winnow: bug: " + err.Error())
	}
	return c
}

// placementFile is a placement of all layers of a model.
type placementFile struct {
	Map [][]int `json:"physical_to_logical_map"`
}

// writePlacement writes a line a layer. One without experts has a line too, of experts in their order.
func writePlacement(path string, layers int, placed []compress.Placement) error {
	file := placementFile{make([][]int, layers)}
	slots, experts := len(placed[0].Slots), 0
	for _, p := range placed {
		if len(p.Slots) != slots {
			return errors.New("layers of different sizes have no common map")
		}
		for _, e := range p.Slots {
			experts = max(experts, e+1)
		}
		file.Map[p.Layer] = p.Slots
	}
	for l, row := range file.Map {
		for s := 0; row == nil && s < slots; s++ {
			file.Map[l] = append(file.Map[l], s%experts)
		}
	}
	raw, err := json.MarshalIndent(file, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(oneLine(raw), '\n'), 0o644)
}

func printPlacement(out io.Writer, how compress.Placing, placed []compress.Placement) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LAYER\tBUSIEST OVER MEAN\tPLACED\tJ\tPLACED\tMOVED\tEXPERTS OF EACH DEVICE")
	for _, p := range placed {
		cost := "-\t-"
		if p.Cost > 0 {
			cost = fmt.Sprintf("%.3f\t%.3f", p.Cost, p.CostNow)
		}
		fmt.Fprintf(w, "%d\t%.3f\t%.3f\t%s\t%d\t", p.Layer, p.Even, p.EvenNow, cost, p.Moved)
		each := len(p.Slots) / how.Devices
		for s, e := range p.Slots {
			switch {
			case s > 0 && s%each == 0:
				fmt.Fprint(w, " | ")
			case s > 0:
				fmt.Fprint(w, " ")
			}
			fmt.Fprint(w, e)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
