//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// The tiles of each format are pinned: files of packed weights hold them from one build to the next. Whoever changes one counts up packedLayout.
func TestPackedLayout(t *testing.T) {
	const layout = 1
	want := map[string]string{
		"F32": "c505fa22e6feeb7f", "F16": "7cad4a304312d1c6", "BF16": "7cae34b49b1b841a", "Q4_0": "c2bae15727553796",
		"Q4_1": "cbb903328715962e", "Q5_0": "4f05b8b237dd30ef", "Q5_1": "ffcfaffdd8b815b1", "Q8_0": "86b1f69f72b8383b",
		"IQ4_NL": "c2bae15727553796", "MXFP4": "83afd4d23c6b20bc", "Q3_K": "f51957b466dd5b44", "Q4_K": "30d8cfa3b9d11ea6",
		"Q5_K": "bd7ca8a46df12927", "Q6_K": "7b3b6b6fbb598d65", "IQ4_XS": "480030a88d898dad",
	}
	d := opened(t, Options{Threads: 1})
	for _, f := range allFormats {
		r, cols := rand.New(rand.NewPCG(5, 6)), max(2*f.Block, 31)/f.Block*f.Block
		raw := make([]byte, 21*f.RowBytes(cols))
		for i := range raw {
			raw[i] = byte(r.Uint32()) & 0x77 // no NaN, whose bits a decoder need not keep
		}
		if got := sum(loaded(t, d, tensor.HostMat("w", f, 21, cols, raw)).Buf.Host()); layout != packedLayout || want[f.Name] != got {
			t.Errorf("%s: tiles of layout %d have sum %q, those of layout %d had %q", f, packedLayout, got, layout, want[f.Name])
		}
	}
}

// opened is a device that ends with the test.
func opened(t testing.TB, o Options) *device {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	own, ok := d.(*device)
	if !ok {
		t.Skip("no kernels for this machine")
	}
	t.Cleanup(func() { own.Close() })
	return own
}

// said collects the lines of a log.
type said struct {
	mu    sync.Mutex
	lines []string
}

func (s *said) say(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

// has says whether a line holds all these words, and forgets all lines.
func (s *said) has(words ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines
	s.lines = nil
	return slices.ContainsFunc(lines, func(line string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
	})
}

// packedTest is weights in one file: two that packing takes parts of, a row that is copied, and one in a format without kernels.
type packedTest struct {
	file    []byte
	weights []tensor.Mat
}

func newPackedTest() *packedTest {
	r, m := rand.New(rand.NewPCG(9, 9)), &packedTest{}
	for i, f := range []*quant.Format{quant.Q8_0, quant.F32, quant.Q4_K, quant.Q2_K} {
		rows, cols := 1200, 1024 // Q8_0 takes two parts
		if f == quant.F32 {
			rows = 1
		}
		w := randomWeight(r, f, rows, cols)
		w.Name = fmt.Sprint("w", i)
		m.weights = append(m.weights, w)
		m.file = append(m.file, w.Raw()...)
	}
	at := 0
	for i, w := range m.weights {
		m.weights[i] = tensor.HostMat(w.Name, w.Format, w.Rows, w.Cols, m.file[at:at+w.Bytes()])
		at += w.Bytes()
	}
	return m
}

// load gives what a device makes of the weights, and waits for what it keeps.
func (m *packedTest) load(t testing.TB, d *device, key string) (out []tensor.Mat) {
	t.Helper()
	done := Loading(d, Files{Name: "test", Key: key, Mapped: [][]byte{nil, m.file}})
	for _, w := range m.weights {
		out = append(out, loaded(t, d, w))
	}
	done()
	d.keeper.settle()
	return out
}

// settle waits for what is being written.
func (k *keeper) settle() {
	k.mu.Lock()
	live := slices.Clone(k.live)
	k.mu.Unlock()
	for _, l := range live {
		if !l.open {
			<-l.written
		}
	}
}

// keeping is a device that keeps all it packs.
func keeping(t testing.TB, p Packed, log *said) *device {
	d := opened(t, Options{Threads: 2, Packed: p, Log: log.say})
	d.keeper.after = 0
	return d
}

func same(t *testing.T, a, b []tensor.Mat) {
	t.Helper()
	for i := range a {
		if !bytes.Equal(a[i].Buf.Host(), b[i].Buf.Host()) {
			t.Errorf("%s is not what packing gives", a[i])
		}
	}
}

func packedFiles(t testing.TB, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(all, hidden...)
}

func TestPackedWeightsAreReadTheNextTime(t *testing.T) {
	m, log, dir := newPackedTest(), &said{}, filepath.Join(t.TempDir(), "made")
	want := m.load(t, opened(t, Options{Threads: 2}), "k")
	first := keeping(t, Packed{Dir: dir}, log)
	same(t, m.load(t, first, "k"), want)
	if len(packedFiles(t, dir)) != 1 || !log.has("is kept in") {
		t.Fatalf("%v, log %q", packedFiles(t, dir), log.lines)
	}
	second := keeping(t, Packed{Dir: dir}, log)
	clear(m.file[:m.weights[0].Bytes()]) // what is read again does not come from here
	clear(m.weights[3].Raw())
	m2 := m.load(t, second, "k")
	same(t, m2, want)
	if log.has("is kept in") {
		t.Error("what was read is kept again")
	}
	m.load(t, second, "k")
	if !log.has("MB of packed weights read from") {
		t.Error("reading is not logged")
	}
	if got := m.load(t, second, "other"); bytes.Equal(got[0].Buf.Host(), want[0].Buf.Host()) {
		t.Error("another key finds the same weights")
	}
	m.weights[0].Name = "renamed"
	if got := m.load(t, second, "k"); bytes.Equal(got[0].Buf.Host(), want[0].Buf.Host()) {
		t.Error("another name finds the same weight")
	}
}

func TestQuickPackingIsNotKept(t *testing.T) {
	m, dir := newPackedTest(), filepath.Join(t.TempDir(), "none")
	d := keeping(t, Packed{Dir: dir}, &said{})
	d.keeper.after = time.Hour
	m.load(t, d, "k")
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder is made for nothing")
	}
}

func TestDamagedPackedFiles(t *testing.T) {
	m, log, dir := newPackedTest(), &said{}, t.TempDir()
	d := keeping(t, Packed{Dir: dir}, log)
	want := m.load(t, d, "k")
	path := packedFiles(t, dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d.keeper.after = time.Hour // damage alone is a reason to write again
	log.has()
	for name, damage := range map[string]func(b []byte) []byte{
		"empty":     func(b []byte) []byte { return nil },
		"cut":       func(b []byte) []byte { return b[:len(b)-1] },
		"header":    func(b []byte) []byte { return b[:packedHeader-1] },
		"longer":    func(b []byte) []byte { return append(b, 0) },
		"magic":     func(b []byte) []byte { b[0] ^= 1; return b },
		"layout":    func(b []byte) []byte { b[8]++; return resummed(b) },
		"key":       func(b []byte) []byte { b[16]++; return resummed(b) },
		"table":     func(b []byte) []byte { b[packedHeader] ^= 1; return b },
		"count":     func(b []byte) []byte { b[12]++; return resummed(b) },
		"fewer":     func(b []byte) []byte { b[12]--; return resummed(b) },
		"huge":      func(b []byte) []byte { binary.LittleEndian.PutUint64(b[56:], 1<<63); return resummed(b) },
		"far":       func(b []byte) []byte { binary.LittleEndian.PutUint64(b[packedHeader+32:], 1<<63); return resummed(b) },
		"large":     func(b []byte) []byte { binary.LittleEndian.PutUint64(b[packedHeader+40:], 1<<62); return resummed(b) },
		"in header": func(b []byte) []byte { binary.LittleEndian.PutUint64(b[packedHeader+32:], 8); return resummed(b) },
		"weight":    func(b []byte) []byte { b[aligned(packedHeader+200)+packedPart+7] ^= 4; return b },
	} {
		if err := os.WriteFile(path, damage(slices.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		same(t, m.load(t, d, "k"), want)
		if !log.has("test", filepath.Base(path)) {
			t.Errorf("%s: nothing is said", name)
		}
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, whole) {
			t.Errorf("%s: the file is not written anew: %d bytes, %v", name, len(again), err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	same(t, m.load(t, d, "k"), want)
}

// resummed makes the sums of a file right again.
func resummed(b []byte) []byte {
	n := binary.LittleEndian
	if table := n.Uint64(b[56:]); table <= uint64(len(b)-packedHeader) {
		n.PutUint32(b[64:], checksum(b[packedHeader:packedHeader+int(table)]))
	}
	n.PutUint32(b[68:], checksum(b[:68]))
	return b
}

func TestPackedFolderThatCannotBeWritten(t *testing.T) {
	m, log, dir := newPackedTest(), &said{}, t.TempDir()
	want := m.load(t, opened(t, Options{Threads: 2}), "k")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	same(t, m.load(t, keeping(t, Packed{Dir: file}, log), "k"), want)
	if !log.has("is not kept", "not a directory") {
		t.Error("nothing is said")
	}
	same(t, m.load(t, keeping(t, Packed{Dir: dir, Limit: 1000}, log), "k"), want)
	if !log.has("is not kept", "at most 1000") || len(packedFiles(t, dir)) != 1 {
		t.Error("what is larger than the limit is kept, or nothing is said")
	}
	if err := os.Symlink("/dev/full", filepath.Join(dir, "full")); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "full"), os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	if err := writePacked(f, packedKey{}, []keptWeight{{packedKey{}, make([]byte, 100)}}, func() bool { return false }); err == nil {
		t.Error("a full disk is no failure")
	}
}

func TestTheLeastUsedPackedFileGoes(t *testing.T) {
	m, log, dir := newPackedTest(), &said{}, t.TempDir()
	d := keeping(t, Packed{Dir: dir}, log)
	m.load(t, d, "a")
	st, err := os.Stat(packedFiles(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	d.keeper.packed.Limit = 2*st.Size() + 1
	m.load(t, d, "b")
	p := &d.keeper.packed
	for i, key := range []string{"a", "b"} {
		old := time.Now().Add(time.Duration(i-3) * time.Hour)
		if err := os.Chtimes(p.path(keyOf(key)), old, old); err != nil {
			t.Fatal(err)
		}
	}
	stale, other := filepath.Join(dir, packedTemp+"1"), filepath.Join(dir, "notes.packed")
	for _, name := range []string{stale, other} {
		if err := os.WriteFile(name, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-2 * staleTemp)
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	m.load(t, d, "a") // is now used later than b
	m.load(t, d, "c")
	want := []string{p.path(keyOf("a")), p.path(keyOf("c")), other}
	got := packedFiles(t, dir)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
}

// A model that goes while its weights are written takes nothing along, and its file does not appear.
func TestWeightsThatGoAreNotKept(t *testing.T) {
	m, dir := newPackedTest(), t.TempDir()
	for range 20 {
		d := keeping(t, Packed{Dir: dir}, &said{})
		done := Loading(d, Files{Name: "test", Key: "k", Mapped: [][]byte{m.file}})
		first, second := loaded(t, d, m.weights[0]), loaded(t, d, m.weights[2])
		done()
		d.Free(first.Buf)
		d.Free(second.Buf)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		for _, f := range packedFiles(t, dir) {
			if strings.Contains(f, packedTemp) {
				t.Fatalf("%s stays", f)
			}
		}
	}
	os.RemoveAll(dir)
	d := keeping(t, Packed{Dir: dir}, &said{})
	done := Loading(d, Files{Name: "test", Key: "k", Mapped: [][]byte{m.file}})
	w := loaded(t, d, m.weights[0])
	if err := d.Reload(w, m.weights[0]); err != nil {
		t.Fatal(err)
	}
	done()
	d.keeper.settle()
	if _, err := os.Stat(dir); err == nil {
		t.Error("a weight is kept that was loaded again")
	}
}

// Two devices, as two processes would, load and keep the same weights at once.
func TestPackedByTwoAtOnce(t *testing.T) {
	m, dir := newPackedTest(), t.TempDir()
	want := m.load(t, opened(t, Options{Threads: 2}), "k")
	var all sync.WaitGroup
	for range 2 {
		d := keeping(t, Packed{Dir: dir}, &said{})
		all.Go(func() {
			for range 5 {
				got := m.load(t, d, "k")
				same(t, got, want)
				for _, g := range got {
					d.Free(g.Buf)
				}
			}
		})
	}
	all.Wait()
	if n := len(packedFiles(t, dir)); n != 1 {
		t.Errorf("%d files", n)
	}
}

func FuzzPackedFile(f *testing.F) {
	key := keyOf("k")
	path := filepath.Join(f.TempDir(), "seed")
	file, err := os.Create(path)
	if err != nil {
		f.Fatal(err)
	}
	if err := writePacked(file, key, []keptWeight{{keyOf("a"), []byte("weights")}, {keyOf("b"), make([]byte, 5000)}}, func() bool { return false }); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	file.Close()
	f.Add(seed)
	f.Add(seed[:packedHeader])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= packedHeader {
			b = resummed(slices.Clone(b)) // or nothing is read past the sums
		}
		p, err := parsePacked(bytes.NewReader(b), int64(len(b)), key)
		if err != nil {
			return
		}
		for _, w := range p.weights {
			dst := make([]byte, w.bytes)
			if err := p.read(w, dst, 2); err == nil && !bytes.Equal(dst, b[w.at:w.at+w.bytes]) {
				t.Error("a weight is read from elsewhere")
			}
		}
	})
}
