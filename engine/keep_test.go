package engine_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
)

// shelf keeps pages in memory.
type shelf struct {
	mu    sync.Mutex
	pages map[[32]byte][]byte
	save  func() bool // is asked before a page is kept; nil = all are
	load  func() bool // likewise of those that are read
}

func newShelf() *shelf { return &shelf{pages: map[[32]byte][]byte{}} }

func (s *shelf) Has(id [32]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.pages[id]
	return ok
}

func (s *shelf) Load(id [32]byte, _ int, _ []int32, page []byte) bool {
	if s.load != nil && !s.load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.pages[id]
	return ok && copy(page, b) == len(b)
}

func (s *shelf) Save(id [32]byte, _ int, _ []int32, page []byte) bool {
	if s.save != nil && !s.save() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[id] = slices.Clone(page)
	return true
}

// told is a whole generation, with how many tokens of its prompt were cached.
func told(t *testing.T, e *engine.Engine, r engine.Request) (tokens []engine.Token, cached int) {
	t.Helper()
	for tok, err := range e.Generate(t.Context(), r) {
		if err != nil {
			t.Fatal(err)
		}
		if tok.Stats != nil {
			cached = tok.Stats.Cached
		}
		tok.Stats = nil
		tokens = append(tokens, tok)
	}
	return tokens, cached
}

var roomy = model.Limits{Rows: 128, Sequences: 2, Wanted: 2, Pages: 16, Context: 512}

// After a restart a prompt's pages are read, and what follows has the bits that it had, however it reads; selectors find their sidecars as they
// left them.
func TestPrefixesOutliveTheEngine(t *testing.T) {
	quest := model.Selection{Name: "quest", Knobs: []float32{64}, Params: map[string]float64{"dense_layers": 0}}
	for name, c := range map[string]struct {
		with  []model.Selection
		reads *model.Reading
		kv    string
	}{
		"plain":     {},
		"pruned":    {nil, nil, "mustafar-70"},
		"pruned by": {[]model.Selection{quest, {Name: "anchor", Params: map[string]float64{"lead": 64}}}, &model.Reading{Prefill: "anchor", Decode: "quest"}, "mustafar-70"},
		"packed":    {[]model.Selection{quest}, &model.Reading{Decode: "quest"}, "q8_0"},
		"sidecars":  {[]model.Selection{quest}, &model.Reading{Decode: "quest"}, ""},
		"selectors": {sparse, &model.Reading{Prefill: "streaming", Decode: "streaming"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			said := func(line string) { t.Error(line) }
			disk, err := store.OpenPrefixes(dir, 0, said)
			if err != nil {
				t.Fatal(err)
			}
			opt := model.Options{Limits: roomy, Sparse: c.with, KVType: c.kv}
			r := engine.Request{Prompt: long(330), MaxTokens: 60, Alternatives: 3, Reads: c.reads}
			e, end := keeping(t, opt, disk)
			want, cached := told(t, e, r)
			if end(); cached != 0 {
				t.Errorf("%d tokens are cached of a first prompt", cached)
			}
			if disk, err = store.OpenPrefixes(dir, 0, said); err != nil || disk.Counts().Pages < 5 {
				t.Fatal(disk.Counts(), err)
			}
			e, _ = keeping(t, opt, disk)
			got, cached := told(t, e, r)
			if !reflect.DeepEqual(got, want) || cached != 320 {
				t.Errorf("%d tokens are cached; other tokens or log-probabilities: %v", cached, reflect.DeepEqual(got, want))
			}
			if u := e.Usage(); u.Restored != 5 || u.Missing != 0 || u.Cached != 320 {
				t.Errorf("%+v", u)
			}
			if got, cached = told(t, e, r); !reflect.DeepEqual(got, want) || cached != 320 || e.Usage().Restored != 5 {
				t.Errorf("%d tokens are cached the third time", cached)
			}
		})
	}
}

// Pages are another model's, or computed otherwise, in all these cases, and are left alone.
func TestPrefixesOfOthers(t *testing.T) {
	s := newShelf()
	r := engine.Request{Prompt: long(200), MaxTokens: 2, Alternatives: -1}
	base := model.Options{Limits: roomy}
	for i, c := range []struct {
		opt      model.Options
		from     int32
		restored int64
	}{
		{base, 0, 0},
		{base, 0, 3},
		{base, 1, 0},
		{model.Options{Limits: roomy, DType: model.Float32}, 0, 0},
		{model.Options{Limits: roomy, KVType: "q8_0"}, 0, 0},
		{model.Options{Limits: roomy, KVType: "q4_0"}, 0, 0},
		{model.Options{Limits: roomy, KVType: "mustafar-50"}, 0, 0},
		{model.Options{Limits: roomy, KVType: "mustafar-70"}, 0, 0},
		{model.Options{Limits: roomy, DType: model.Native}, 0, 3},
		{model.Options{Limits: roomy, Sparse: []model.Selection{{Name: "quest", Knobs: []float32{64}}}}, 0, 0},
		{model.Options{Limits: roomy, Sparse: []model.Selection{{Name: "quest", Knobs: []float32{64}, Params: map[string]float64{"unit": 32}}}}, 0, 0},
		{model.Options{Limits: roomy, Rope: model.RopeScaling{Kind: "linear", Factor: 2}}, 0, 0},
	} {
		e, end := keeping(t, c.opt, s)
		q := r
		q.Prompt = slices.Clone(r.Prompt)
		q.Prompt[0] += c.from
		told(t, e, q)
		if n := e.Usage().Restored; n != c.restored {
			t.Errorf("case %d: %d pages are restored, want %d", i, n, c.restored)
		}
		end()
	}
}

// What has no room in memory is kept before it is overwritten, a turn after it is idle where there is time, and comes back.
func TestEvictedPagesComeBack(t *testing.T) {
	s := newShelf()
	e, _ := keeping(t, model.Options{Limits: model.Limits{Rows: 128, Sequences: 1, Wanted: 1, Pages: 8, Context: 512}}, s)
	want := map[int][]engine.Token{}
	for round := range 2 {
		for i := range 4 { // 4 pages each, of 8
			prompt := append([]int32{int32(i)}, long(255)...)
			got, cached := told(t, e, engine.Request{Prompt: prompt, MaxTokens: 3, Alternatives: 2})
			if round == 0 {
				want[i] = got
			} else if !reflect.DeepEqual(got, want[i]) || cached != 192 {
				t.Errorf("prompt %d: %d tokens are cached, the same answer: %v", i, cached, reflect.DeepEqual(got, want[i]))
			}
		}
	}
	if u := e.Usage(); u.Restored < 6 || u.Evicted == 0 {
		t.Errorf("%+v", u)
	}
}

// A file that was tampered with is not served: the prompt is computed, and the file is gone.
func TestDamagedPagesAreComputed(t *testing.T) {
	dir := t.TempDir()
	disk, err := store.OpenPrefixes(dir, 0, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	r := engine.Request{Prompt: long(330), MaxTokens: 10, Alternatives: 3}
	e, end := keeping(t, model.Options{Limits: roomy}, disk)
	want, _ := told(t, e, r)
	end()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o600)
	})
	var said []string
	disk, also := store.OpenPrefixes(dir, 0, func(line string) { said = append(said, line) })
	if err != nil || also != nil {
		t.Fatal(err, also)
	}
	before := disk.Counts().Pages
	e, end = keeping(t, model.Options{Limits: roomy}, disk)
	got, cached := told(t, e, r)
	if !reflect.DeepEqual(got, want) || cached != 0 || e.Usage().Restored != 0 {
		t.Errorf("%d tokens are cached of damaged pages", cached)
	}
	if n := disk.Counts(); n.Errors != 1 || n.Pages != before-1 || len(said) != 1 || !strings.Contains(said[0], "damaged") {
		t.Errorf("%+v, before %d pages, said %q", n, before, said)
	}
	end()
}

// While a disk takes its time, to read or to write, others have their tokens; when it fails, nobody notices but the figures.
func TestSlowDisk(t *testing.T) {
	s := newShelf()
	e, end := keeping(t, model.Options{Limits: roomy}, s)
	slow := engine.Request{Prompt: long(330), MaxTokens: 5, Alternatives: 1}
	want, _ := told(t, e, slow)
	end()
	release, reading := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(reading) })
	s.load = func() bool {
		first()
		<-release
		return false
	}
	s.save = s.load
	e, end = keeping(t, model.Options{Limits: model.Limits{Rows: 128, Sequences: 2, Wanted: 2, Pages: 9, Context: 512}}, s)
	done := make(chan error)
	go func() {
		got, err := answer(e, slow)
		if err == nil && !reflect.DeepEqual(got, want) {
			err = fmt.Errorf("other tokens: %v", got)
		}
		done <- err
	}()
	<-reading
	for i := range 6 { // their pages are evicted, and have nowhere to go
		if _, err := answer(e, engine.Request{Prompt: append([]int32{int32(i)}, long(150)...), MaxTokens: 20, Alternatives: -1}); err != nil {
			t.Error(err)
		}
	}
	select {
	case err := <-done:
		t.Error("nobody waited for the disk", err)
	case <-time.After(10 * time.Millisecond):
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if u := e.Usage(); u.Restored != 0 || u.Evicted == 0 {
		t.Errorf("%+v", u)
	}
	end()
}
