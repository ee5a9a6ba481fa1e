package compress

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Errors of observing, by when they happen.
var (
	ErrText    = errors.New("compress: text")                          // a sequence that the model cannot read, or none at all
	ErrNumber  = errors.New("compress: the model computes no numbers") // infinities or NaN
	ErrPartial = errors.New("compress: of another observation")        // what was seen so far is of another model or text
)

// Study is an observation of a model over a calibration text.
type Study struct {
	Checkpoint *store.Checkpoint // stays the caller's
	Device     tensor.Device     // where the model is loaded for the time of the observation
	Options    model.Options     // of Limits, Context is the most tokens a sequence, and Rows those a step; 0 rows = 512. The rest is ignored
	Text       Text
	Columns    bool               // sum columns of inputs and hidden rows and their squares, experts x (width + hidden width) x 16 bytes a layer
	Partial    string             // file for what was seen so far, from which an interrupted observation goes on; "" = none
	Every      time.Duration      // between two writes of Partial; 0 = a minute, more where writing takes long
	Progress   func(tokens int64) // told how many tokens were seen, now and then, first those that Partial had; may be nil

	hessians map[int]*layerHessians // by layer; filled too
}

// Observe runs a model over a text and says what its layers did. The result depends on the model, the device's kernels, the ids and how
// these are cut into sequences; not on Rows, nor on interruptions, to the bit.
//
// When ctx ends, or the text fails, what was seen so far stays in Partial, and the same Study goes on from there; of a sequence longer than
// a step that is interrupted, and what follows the last write before it, nothing stays. Whoever has kept the profile removes that file.
// ErrPartial: the file is of another study. ErrText: the text is empty, or holds what the model cannot read. ErrNumber: a sum has no value.
func Observe(ctx context.Context, s Study) (Profile, error) {
	spec, err := model.Describe(s.Checkpoint)
	if err != nil {
		return Profile{}, err
	}
	lim := &s.Options.Limits
	if lim.Context < 1 || lim.Context > spec.Context {
		return Profile{}, fmt.Errorf("%w: sequences of %d tokens, the model was made for 1 to %d", ErrText, lim.Context, spec.Context)
	}
	*lim = walkLimits(*lim)
	if !isSHA256(s.Text.SHA256) {
		return Profile{}, fmt.Errorf("%w: sha256 %.80q, want 64 hex digits", ErrText, s.Text.SHA256)
	}
	v := &visit{study: s, ids: sha256.New(), saved: time.Now()}
	v.profile = Profile{Model: s.Checkpoint.Fingerprint(), Arch: spec.Arch, Calibration: moe.Calibration{SHA256: s.Text.SHA256}}
	see := func(op tensor.Op, read func(tensor.Mat) []byte) { v.observer.see(op, read) } // nothing runs before there is one
	m, err := model.Load(s.Checkpoint, model.Placement{Device: tensor.Observed(s.Device, see)}, s.Options)
	if err != nil {
		return Profile{}, err
	}
	defer m.Close()
	v.observer = newObserver(m.Spec(), s.Columns)
	v.observer.hessians = s.hessians
	v.walk = walk{models: []*model.Model{m}, after: func(*model.Step) error { return v.observer.err }}
	if err := v.resume(); err != nil {
		return Profile{}, err
	}
	if err := v.read(ctx); err != nil {
		if s.Partial != "" && v.skip == nil && !v.walk.dirty && v.seen.Sequences > 0 {
			err = errors.Join(err, v.save())
		}
		return Profile{}, err
	}
	return v.result(), nil
}

// visit is an observation under way.
type visit struct {
	study     Study
	walk      walk
	observer  *observer
	profile   Profile // all but its layers; Calibration.Tokens counts those that were run
	seen      partial // what was run
	sequences int64   // that were read
	tokens    int64   // of them
	ids       hash.Hash
	skip      *partial // what an earlier observation has seen and this one has not read yet; nil = it goes on by itself
	saved     time.Time
	took      time.Duration // to write Partial
}

// read feeds the text to the model.
func (v *visit) read(ctx context.Context) error {
	v.progress()
	for ids, err := range v.study.Text.Sequences {
		if err == nil {
			err = checkSequence(ids, v.walk.models[0])
		}
		if err == nil && v.skip == nil && !v.walk.fits(len(ids)) {
			err = v.turn(ctx)
		}
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		v.count(ids)
		if v.skip != nil {
			if err := v.pass(); err != nil {
				return err
			}
			continue
		}
		if err := v.walk.feed(ctx, ids); err != nil {
			return err
		}
		if v.walk.idle() {
			if err := v.turn(ctx); err != nil {
				return err
			}
		}
	}
	switch {
	case v.skip != nil:
		return fmt.Errorf("%w: %s has seen %d sequences, the text has %d", ErrPartial, v.study.Partial, v.skip.Sequences, v.sequences)
	case v.tokens == 0:
		return fmt.Errorf("%w: no tokens", ErrText)
	}
	return v.turn(ctx)
}

// count counts a sequence that was read.
func (v *visit) count(ids []int32) {
	v.sequences, v.tokens = v.sequences+1, v.tokens+int64(len(ids))
	raw := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(id))
	}
	v.ids.Write(raw)
}

// digest is that of all ids that were read.
func (v *visit) digest() string { return hex.EncodeToString(v.ids.Sum(nil)) }

// pass compares what was read with what an earlier observation has seen, once that is behind.
func (v *visit) pass() error {
	if v.sequences < v.skip.Sequences {
		return nil
	}
	if v.digest() != v.skip.IDs || v.tokens != v.profile.Calibration.Tokens {
		return fmt.Errorf("%w: %s has seen other tokens", ErrPartial, v.study.Partial)
	}
	v.skip = nil
	return nil
}

// turn runs what waits. Then all that was read has been seen, and is kept where that is due.
func (v *visit) turn(ctx context.Context) error {
	if err := v.walk.run(ctx); err != nil {
		return err
	}
	v.walk.dirty = false
	v.profile.Calibration.Tokens = v.tokens
	v.seen.Sequences, v.seen.IDs = v.sequences, v.digest()
	v.progress()
	if v.study.Partial == "" || time.Since(v.saved) < max(cmp.Or(v.study.Every, time.Minute), 20*v.took) {
		return nil
	}
	return v.save()
}

func (v *visit) progress() {
	if v.study.Progress != nil {
		v.study.Progress(v.profile.Calibration.Tokens)
	}
}

// result is the profile of what was seen.
func (v *visit) result() Profile {
	p := v.profile
	p.Layers = slices.Clone(v.observer.layers)
	for i, sum := range v.observer.cosines {
		p.Layers[i].Importance = min(2, max(0, 1-sum/float64(p.Calibration.Tokens)))
	}
	return p
}

// save writes what was seen to Partial.
func (v *visit) save() error {
	started := time.Now()
	v.seen.Columns, v.seen.Cosines = v.study.Columns, v.observer.cosines
	if err := writeProfile(v.study.Partial, profileFile{Profile: v.result(), Partial: &v.seen}); err != nil {
		return err
	}
	v.saved = time.Now()
	v.took = v.saved.Sub(started)
	return nil
}

// resume begins with what Partial holds, if it is there.
func (v *visit) resume() error {
	if v.study.Partial == "" {
		return nil
	}
	f, err := readProfile(v.study.Partial)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = v.differs(&f)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrPartial, v.study.Partial, err)
	}
	v.profile, v.seen, v.skip = f.Profile, *f.Partial, f.Partial
	v.observer.layers, v.observer.cosines = f.Layers, f.Partial.Cosines
	return nil
}

// differs says in what a file is not of this study.
func (v *visit) differs(f *profileFile) error {
	switch {
	case f.Partial == nil:
		return errors.New("a finished profile")
	case f.Model != v.profile.Model || f.Arch != v.profile.Arch:
		return errors.New("it has seen another model")
	case f.Calibration.SHA256 != v.profile.Calibration.SHA256:
		return errors.New("it has seen another text")
	case f.Partial.Columns != v.study.Columns:
		return fmt.Errorf("its columns are summed: %t", f.Partial.Columns)
	case len(f.Layers) != len(v.observer.layers):
		return fmt.Errorf("it has %d layers, the model %d", len(f.Layers), len(v.observer.layers))
	}
	for i := range f.Layers {
		have, want := &f.Layers[i], &v.observer.layers[i]
		if have.K != want.K || len(have.Usage) != len(want.Usage) || len(have.Together) != len(want.Together) ||
			columnsOf(have.Inputs) != columnsOf(want.Inputs) || columnsOf(have.Hidden) != columnsOf(want.Hidden) ||
			len(have.InputSums) != len(want.InputSums) || len(have.HiddenSums) != len(want.HiddenSums) {
			return fmt.Errorf("layer %d has other experts", i)
		}
	}
	return nil
}

func columnsOf(rows [][]float64) int {
	if len(rows) == 0 {
		return 0
	}
	return len(rows[0])
}
