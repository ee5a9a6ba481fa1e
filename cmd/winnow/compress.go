package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/store"
)

// sparsifying is what winnow compress is asked for.
type sparsifying struct {
	method   string // wanda, owl or sparsegpt
	repair   string
	profile  string // file; "" = the texts are observed
	texts    []string
	tokens   int64 // most; 0 = all
	length   int   // tokens a sequence
	hessians string
	s        compress.Sparsity
	w        compress.Writing
}

func compressVerb() *cobra.Command {
	var s sparsifying
	c := &cobra.Command{
		Use:   "compress MODEL --sparsity SHARE (--calib TEXT | --profile FILE) -o OUT",
		Short: "Write a model in whose experts the weights that matter least are zero",
		Long: `compress writes a copy of MODEL, a GGUF file or a Hugging Face directory, in which a share of the weights of each expert is zero. Where experts
are dropped too, do that first (winnow experts apply): a quarter of the experts and a fifth of the weights of the others are 40 % of all,
1 - 0.75 * 0.8. Formats and sizes stay, and zeros alone make nothing faster; only F32, F16, BF16 and Q8_0 hold them.

--method says which weights go:
  wanda      in each row the lowest |weight| * norm of its input, over the tokens that reached the expert
  owl        the same, but layers in which more weights stand out keep more of them, --lambda around SHARE
  sparsegpt  by what they would cost if others made up for them, which these then do: all weights change. It reads the text again, as often as
             the second moments of the layers' inputs, --hessians of memory at a time, make necessary
--repair dsnot exchanges zeros for weights where that lowers a row's expected error. Of sparsegpt it takes the choice only, and changes no weight.

What the experts multiply comes from --calib, a text that the model reads, or from --profile, which winnow experts profile --columns has written of
this model; sparsegpt takes --calib. Experts that no token of it chose stay whole, and are named.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			err := s.prepare(c)
			if err == nil {
				err = s.run(c, args[0])
			}
			if err != nil {
				return fmt.Errorf("compress: %w", err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.Float64Var(&s.s.Share, "sparsity", 0, "share of the experts' weights that become zero, up to 0.99")
	f.StringVar(&s.method, "method", "wanda", "what chooses them: wanda, owl or sparsegpt")
	f.StringVar(&s.repair, "repair", "", "what exchanges them afterwards: dsnot; none where nothing is said")
	f.StringArrayVar(&s.texts, "calib", nil, `file of text that the model reads, any number of times; "-" = standard input`)
	f.StringVar(&s.profile, "profile", "", "profile with columns, in place of a text")
	f.Int64Var(&s.tokens, "tokens", 0, "read at most so many tokens of --calib; 0 = all")
	f.IntVar(&s.length, "length", 512, "tokens of a sequence of --calib")
	f.Float64Var(&s.s.Lambda, "lambda", 0.08, "how far a layer's share may be from --sparsity: of owl, and of sparsegpt where it is given")
	f.Float64Var(&s.s.Outlier, "outlier", 5, "how many times the mean a weight's score is for owl to say that it stands out")
	f.StringVar(&s.hessians, "hessians", "8GiB", "most memory of sparsegpt's second moments at a time")
	f.StringVarP(&s.w.Out, "output", "o", "", "GGUF file or folder to write; nothing may be there")
	configs.Flags(f, "models", "threads", "cpu", "dtype", "log")
	return c
}

// prepare checks the flags.
func (s *sparsifying) prepare(c *cobra.Command) error {
	var hessians configs.Bytes
	if err := hessians.UnmarshalText([]byte(s.hessians)); err != nil {
		return fmt.Errorf("--hessians: %w", err)
	}
	s.s.Repair, s.s.Seeing.Bytes = compress.Repair(s.repair), int64(hessians)
	switch s.method {
	case "wanda", "owl":
		s.s.Method = compress.ByWanda
	case "sparsegpt":
		s.s.Method = compress.BySparseGPT
	default:
		return fmt.Errorf("--method %.100q, want wanda, owl or sparsegpt", s.method)
	}
	given := c.Flags().Changed("lambda")
	switch {
	case s.method == "wanda" && given:
		return errors.New("--lambda divides the zeros among layers, which --method owl does")
	case s.method != "owl" && !given:
		s.s.Lambda = 0
	}
	switch {
	case s.w.Out == "":
		return errors.New("--output names the file or folder to write")
	case !(s.s.Share > 0 && s.s.Share <= 0.99):
		return fmt.Errorf("--sparsity is %v, want more than 0 and at most 0.99", s.s.Share)
	case s.repair != "" && s.repair != string(compress.ByDSnoT):
		return fmt.Errorf("--repair %.100q, want %s", s.repair, compress.ByDSnoT)
	case (s.profile == "") == (len(s.texts) == 0):
		return errors.New("give one of --calib, a text, and --profile")
	case s.profile != "" && s.method == "sparsegpt":
		return errors.New("sparsegpt takes --calib: a profile holds no second moments of pairs of columns")
	case s.length < 2:
		return fmt.Errorf("sequences of %d tokens, --length is at least 2", s.length)
	case s.tokens < 0:
		return fmt.Errorf("--tokens is %d, want at least 0", s.tokens)
	}
	return nil
}

func (s *sparsifying) run(c *cobra.Command, name string) (err error) {
	cfg, _, err := settings(c)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(s.w.Out); err == nil { // known before hours of work
		return fmt.Errorf("%s: %w", s.w.Out, store.ErrExists)
	}
	if _, err := os.Stat(filepath.Dir(s.w.Out)); err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	checkpoint, err := openCheckpoint(cfg.Models, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, checkpoint.Close()) }()
	var made compress.Zeros
	if s.profile != "" {
		made, err = s.ofProfile(ctx, c, checkpoint)
	} else {
		made, err = s.ofText(ctx, c, checkpoint)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; nothing is left")
	}
	if err != nil {
		return err
	}
	return s.report(c.OutOrStdout(), made)
}

func (s *sparsifying) ofProfile(ctx context.Context, c *cobra.Command, checkpoint *store.Checkpoint) (compress.Zeros, error) {
	profile, err := compress.ReadProfile(s.profile)
	if err != nil {
		return compress.Zeros{}, err
	}
	return s.write(ctx, c, checkpoint, &profile)
}

// write makes the model, and shows how that goes on where it is not shown how the text is read.
func (s *sparsifying) write(ctx context.Context, c *cobra.Command, checkpoint *store.Checkpoint, p *compress.Profile) (compress.Zeros, error) {
	if s.s.Method == compress.BySparseGPT {
		return compress.Sparsify(ctx, checkpoint, p, s.s, s.w)
	}
	bar := showProgress(c)
	defer bar.close()
	s.w.See = bar.see
	return compress.Sparsify(ctx, checkpoint, p, s.s, s.w)
}

// ofText has the model read the text first, and while it is written where that is SparseGPT's.
func (s *sparsifying) ofText(ctx context.Context, c *cobra.Command, checkpoint *store.Checkpoint) (made compress.Zeros, err error) {
	text := calibration{texts: s.texts, tokens: s.tokens, length: s.length, columns: true}
	err = text.observe(ctx, c, checkpoint, func(profile *compress.Profile, study compress.Study, total int64) error {
		fmt.Fprintln(c.ErrOrStderr(), profile.Coverage(compress.LeastTokens))
		passes := passing{c: c, total: total}
		defer passes.close()
		s.s.Seeing.Study, s.s.Seeing.See = study, passes.see
		made, err = s.write(ctx, c, checkpoint, profile)
		return err
	})
	return made, err
}

// passing shows how a text is read several times.
type passing struct {
	c     *cobra.Command
	total int64
	bar   tokenProgress // of the pass under way; nil before the first
	pass  int
}

func (p *passing) see(pass, passes int, tokens int64) {
	if p.bar == nil || pass != p.pass {
		p.close()
		fmt.Fprintf(p.c.ErrOrStderr(), "second moments, pass %d of %d\n", pass+1, passes)
		p.bar, p.pass = showTokens(p.c, p.total), pass
	}
	p.bar.see(tokens)
}

func (p *passing) close() {
	if p.bar != nil {
		p.bar.close()
		p.bar = nil
	}
}

// report says what was made.
func (s *sparsifying) report(out io.Writer, z compress.Zeros) error {
	by := s.method
	if s.repair != "" {
		by += " and " + s.repair
	}
	fmt.Fprintf(out, "%s: %d of %d weights in experts are zero, %.2f %%, by %s\n", s.w.Out, z.Zero, z.Weights, 100*float64(z.Zero)/float64(max(1, z.Weights)), by)
	if z.Rounded > 0 {
		fmt.Fprintf(out, "the others changed too: %d tensors were rounded to Q8_0 anew\n", z.Rounded)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "layer\tzeros\twhole, for no token chose them")
	for _, layer := range slices.Sorted(maps.Keys(z.Shares)) {
		whole := "-"
		if dead := z.Dead[layer]; len(dead) > 0 {
			whole = strings.Trim(fmt.Sprint(dead), "[]")
		}
		fmt.Fprintf(w, "%d\t%.2f %%\t%s\n", layer, 100*z.Shares[layer], whole)
	}
	return w.Flush()
}
