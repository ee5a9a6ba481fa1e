package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// bits is what winnow experts bits is asked for.
type bits struct {
	average float64
	profile string // file
	policy  string
	out     string // file
	rows    int    // of a matrix that are measured
	formats int    // of a layer
	among   []string
	bare    bool // without floors
}

var bitsPolicies = []string{"ours", "frequency", "outlier", "ends", "importance", "uniform"}

func expertsBitsVerb() *cobra.Command {
	var b bits
	c := &cobra.Command{
		Use:   "bits MODEL --avg BITS -o POLICY.json",
		Short: "Choose the formats of experts, attention and shared experts for so many bits a weight",
		Long: `bits measures what every expert, every matrix of attention and every shared expert loses in each format, and spends the bits where most
is saved. With a profile it weights errors by how often and how strongly experts are used. winnow quantize --policy writes the model.

--policy says who chooses. ours: the least weighted error. The others are for comparison; they raise experts from the smallest formats to
4 bits in an order: frequency, those that most tokens chose; outlier, those with the most outstanding weights; ends, the first and last
layers; importance, the layers that change most; uniform raises all at once. frequency and importance need a profile.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case !(b.average > 0 && b.average <= 32):
				return errors.New("bits: --avg must be more than 0 and at most 32")
			case !slices.Contains(bitsPolicies, b.policy):
				return fmt.Errorf("bits: --policy %.40q is none of %s", b.policy, strings.Join(bitsPolicies, ", "))
			case b.profile == "" && (b.policy == "frequency" || b.policy == "importance"):
				return fmt.Errorf("bits: --policy %s needs --profile", b.policy)
			case b.formats < 2 || b.formats > 4:
				return errors.New("bits: --formats must be 2, 3 or 4")
			}
			if _, err := os.Stat(filepath.Dir(b.out)); err != nil { // known before all is measured
				return fmt.Errorf("bits: %w", err)
			}
			return b.run(c, args[0])
		},
	}
	f := c.Flags()
	f.Float64Var(&b.average, "avg", 0, "bits a weight, scales included, of all that is chosen for")
	f.StringVar(&b.profile, "profile", "", "profile of the model at work")
	f.StringVar(&b.policy, "policy", "ours", "who chooses: "+strings.Join(bitsPolicies, ", "))
	f.StringVarP(&b.out, "output", "o", "", "file to write")
	f.IntVar(&b.rows, "rows", 64, "rows of each matrix that are measured; 0 = all")
	f.StringSliceVar(&b.among, "among", nil, "formats to choose from, with commas; of a folder Q4_0 and Q8_0. Those that no GGUF can hold are only to be measured")
	f.IntVar(&b.formats, "formats", 3, "most formats of a layer, 2 to 4, when ours chooses")
	f.BoolVar(&b.bare, "no-floors", false, "let attention, shared experts and the layers at both ends have the smallest formats too: for comparison")
	for _, name := range []string{"avg", "output"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic("winnow: bug: " + err.Error())
		}
	}
	configs.Flags(f, "models", "threads")
	return c
}

func (b *bits) run(c *cobra.Command, name string) error {
	cfg, _, err := settings(c)
	if err != nil {
		return err
	}
	var p *compress.Profile
	if b.profile != "" {
		seen, err := compress.ReadProfile(b.profile)
		if err != nil {
			return err
		}
		p = &seen
	}
	ck, err := openCheckpoint(cfg.Models, name)
	if err != nil {
		return err
	}
	defer ck.Close()
	var among []*quant.Format
	for _, name := range b.among {
		f, err := compress.Known(strings.ToUpper(name))
		if err != nil {
			return fmt.Errorf("bits: --among: %w", err)
		}
		among = append(among, f)
	}
	var units []compress.Unit
	err = follow(c, "bits", name, func(ctx context.Context, see func(store.Progress)) error {
		var err error
		m := compress.Measurement{Formats: among, Rows: b.rows, Threads: cfg.Threads, See: func(done, total int) {
			see(store.Progress{Status: "measuring", Digest: name, Total: ck.Size(), Completed: int64(float64(ck.Size()) * float64(done) / float64(total))})
		}}
		if b.bare {
			m.Floors = compress.None
		}
		units, err = compress.Measure(ctx, ck, p, m)
		return err
	})
	if err != nil {
		return err
	}
	values := int64(0)
	for i := range units {
		values += units[i].Values
	}
	if values == 0 {
		return fmt.Errorf("bits: %s has nothing to choose formats for", name)
	}
	chosen, err := b.choose(units, int64(b.average*float64(values)/8), p)
	if errors.Is(err, compress.ErrBudget) {
		err = fmt.Errorf("--avg %.4g: %w: at least %.3g bits a weight", b.average, err, least(units, values))
	}
	if err != nil {
		return fmt.Errorf("bits: %w", err)
	}
	var file bytes.Buffer
	policy := compress.Policy(units, chosen, b.policy)
	policy.Model = ck.Fingerprint()
	if p != nil && p.Calibration.Tokens > 0 {
		policy.Calibration = &p.Calibration
	}
	if err := compress.WritePolicy(&file, policy); err != nil {
		return err
	}
	if err := os.WriteFile(b.out, file.Bytes(), 0o644); err != nil {
		return err
	}
	return say(c.OutOrStdout(), units, chosen)
}

// choose allocates bytes as the policy does.
func (b *bits) choose(units []compress.Unit, budget int64, p *compress.Profile) ([]int, error) {
	layers := 0
	for i := range units {
		layers = max(layers, units[i].Layer+1)
	}
	switch b.policy {
	case "ours":
		return compress.Allocate(units, budget, b.formats)
	case "frequency":
		return compress.Promote(units, budget, compress.ByUsage)
	case "outlier":
		return compress.Promote(units, budget, compress.ByOutlier)
	case "ends":
		return compress.Promote(units, budget, compress.ByEnds(layers))
	case "importance":
		return compress.Promote(units, budget, compress.ByImportance(p))
	case "uniform":
		return compress.Uniform(units, budget)
	}
	panic("winnow: bug: no policy " + b.policy)
}

// least is the bits a weight of the smallest formats that units may have.
func least(units []compress.Unit, values int64) float64 {
	bytes := int64(0)
	for i := range units {
		bytes += units[i].Choices[units[i].Floor].Bytes
	}
	return 8 * float64(bytes) / float64(values)
}

// say sums up a choice: bits a weight, and units by kind and format.
func say(out io.Writer, units []compress.Unit, chosen []int) error {
	var values, bytes int64
	counts := map[string]int{}
	for i, c := range chosen {
		u := &units[i]
		values, bytes = values+u.Values, bytes+u.Choices[c].Bytes
		counts[string(u.Kind)+" "+u.Choices[c].Format]++
	}
	lines := []string{fmt.Sprintf("%.3f bits a weight, %s", 8*float64(bytes)/float64(values), size(bytes))}
	for what, n := range counts {
		lines = append(lines, fmt.Sprintf("%s: %d", what, n))
	}
	slices.Sort(lines[1:])
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}
