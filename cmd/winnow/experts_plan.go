package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
)

// planning is what winnow experts plan is asked for.
type planning struct {
	method  string
	profile string   // file; "" = none
	calib   []string // or files of text
	out     string   // file
	merge   bool
	lambda  []float64
	in      compress.In
	sample  sampling // naee's
}

func expertsPlanVerb() *cobra.Command {
	var p planning
	c := &cobra.Command{
		Use:   "plan MODEL --keep SHARE -o OVERLAY.json",
		Short: "Choose the experts that stay when a model is to have fewer",
		Long: `plan writes an overlay, which says which experts a model goes without; the model itself stays as it is.

--method says who chooses. stun keeps one of each cluster of alike ones, by the router and the weights alone; reap keeps the experts whose output
weighs most where they are chosen, as many in every layer, or with --ragged by one ranking of all layers, which costs less; hybrid lets reap
choose from stun's clusters; frequency keeps those that most tokens chose; random is what the others must beat. reap, hybrid and frequency need
--profile or --calib, a text that reached every expert; stun reads a profile only where --lambda asks for it. naee tries every subset of at most 16
experts a layer, and keeps the one with which the layer's outputs on --text, of all experts, move least. docs/perf.md has figures.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return p.run(c, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&p.method, "method", "stun", "who chooses: "+strings.Join(compress.MethodNames(), ", "))
	f.Float64Var(&p.in.Keep, "keep", 0.75, "share of the experts that stay")
	f.StringVar(&p.profile, "profile", "", "profile of the model at work")
	f.StringArrayVar(&p.calib, "calib", nil, `file of text to make a profile of first, any number of times; "-" = standard input`)
	c.MarkFlagsMutuallyExclusive("profile", "calib")
	f.StringVarP(&p.out, "output", "o", "", "overlay to write")
	f.BoolVar(&p.in.Ragged, "ragged", false, "rank all layers together, so that some keep more than others; stun and hybrid always do")
	f.IntVar(&p.in.Floor, "floor", 0, "fewest experts of a layer; never fewer than a token takes")
	f.Uint64Var(&p.in.Seed, "seed", 0, "seed of the random method")
	f.Float64SliceVar(&p.lambda, "lambda", nil, "stun's and hybrid's weights of router distance and of being chosen together (default 1,0)")
	f.IntVar(&p.in.Kappa, "kappa", 3, "stun: a layer of fewer clusters than this is averaged, with --merge")
	f.BoolVar(&p.merge, "merge", false, "stun: merge the clusters that are to be averaged in place of dropping all but one")
	f.BoolVar(&p.in.Force, "force", false, "plan from a profile that has seen too little, or another model")
	if err := c.MarkFlagRequired("output"); err != nil {
		panic("winnow: bug: " + err.Error())
	}
	p.sample.flags(f)
	configs.Flags(f, "models", "threads", "cpu", "dtype", "log")
	return c
}

func (p *planning) run(c *cobra.Command, name string) error {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	method, err := compress.MethodByName(p.method)
	if err != nil {
		return err
	}
	switch {
	case len(p.lambda) == 2:
		p.in.Lambda = [2]float64(p.lambda)
	case len(p.lambda) != 0:
		return fmt.Errorf("plan: --lambda has %d numbers, want 2", len(p.lambda))
	}
	ck, err := openCheckpoint(cfg.Models, name)
	if err != nil {
		return err
	}
	defer ck.Close()
	if p.in.Spec, err = model.Describe(ck); err != nil {
		return err
	}
	weights := compress.NewWeights(ck, p.in.Spec)
	p.in.Weights, p.in.Model = weights, ck.Fingerprint()
	if p.profile != "" {
		seen, err := compress.ReadProfile(p.profile)
		if err != nil {
			return err
		}
		p.in.Profile = &seen
	}
	if len(p.calib) > 0 {
		ctx, stop := interruptible(c)
		defer stop()
		text := calibration{texts: p.calib, length: 512}
		keep := func(seen *compress.Profile, _ compress.Study, _ int64) error { p.in.Profile = seen; return nil }
		if err := text.observe(ctx, c, ck, keep); err != nil {
			return fmt.Errorf("plan: %w", err)
		}
	}
	if p.method == "naee" {
		if p.in.Samples, err = p.sample.run(c, ck, cfg, log); err != nil {
			return fmt.Errorf("plan: %w", err)
		}
	}
	plan, err := method(p.in)
	if err != nil {
		return err
	}
	if p.in.Samples != nil {
		plan.Overlay.Calibration = &p.sample.read
	}
	overlay := plan.Overlay
	if p.merge {
		overlay = plan.Merged()
	}
	if err := writeOverlay(p.out, overlay); err != nil {
		return err
	}
	return p.print(c.OutOrStdout(), plan, ck, weights)
}

// numberLists are the lists of an overlay that hold no others.
var numberLists = regexp.MustCompile(`\[[^][{}"]*\]`)

// oneLine puts each list of numbers of a JSON file on one line.
func oneLine(raw []byte) []byte {
	return numberLists.ReplaceAllFunc(raw, func(list []byte) []byte { return bytes.Join(bytes.Fields(list), nil) })
}

// writeOverlay writes an overlay as JSON for people, each list of experts on one line.
func writeOverlay(path string, o moe.Overlay) error {
	raw, err := json.MarshalIndent(o, "", " ")
	if err == nil {
		err = os.WriteFile(path, append(oneLine(raw), '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write overlay: %w", err)
	}
	return nil
}

// print says who goes, what that saves, and how much the profile has seen.
func (p *planning) print(out io.Writer, plan compress.Plan, ck *store.Checkpoint, weights *compress.Weights) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LAYER\tEXPERTS\tSTAY\tGO")
	all, gone, known, saved := 0, 0, true, int64(0)
	for l, ls := range p.in.Spec.Layers {
		if ls.Router == nil {
			continue
		}
		n, drop := ls.Router.Experts, plan.Overlay.Layers[l].Drop
		fmt.Fprintf(w, "%d\t%d\t%d\t%s\n", l, n, n-len(drop), strings.Trim(fmt.Sprint(drop), "[]"))
		all, gone = all+n, gone+len(drop)
		each, err := weights.Bytes(l)
		known = known && err == nil // experts in several banks: the plan holds, their sizes differ
		saved += each * int64(len(drop))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d of %d experts stay", all-gone, all)
	if known {
		fmt.Fprintf(out, "; %s of %s saved", size(saved), size(ck.Size()))
	}
	fmt.Fprintln(out)
	if len(plan.Average) > 0 {
		how := "with --merge they can be averaged"
		if p.merge {
			how = "they are merged"
		}
		fmt.Fprintf(out, "fewer than %d clusters are left in %d layers (%s); %s\n", p.in.Kappa, len(plan.Average),
			strings.Trim(fmt.Sprint(slices.Sorted(maps.Keys(plan.Average))), "[]"), how)
	}
	if p.in.Profile != nil {
		fmt.Fprintf(out, "profile of %d tokens: %s\n", p.in.Profile.Calibration.Tokens, p.in.Profile.Coverage(compress.LeastTokens))
	}
	return nil
}
