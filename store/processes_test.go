package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// workers are what processes do to one store, over and over.
var workers = map[string]func(t *testing.T, s Store, files string, turn int) error{
	"first":  create("same", "a.gguf"),
	"second": create("same", "b.gguf"),
	"third":  create("other/%d:x", "a.gguf"),
	"copier": func(t *testing.T, s Store, _ string, turn int) error {
		return s.Copy(t.Context(), "same", fmt.Sprintf("copy%d", turn%2))
	},
	"remover": func(t *testing.T, s Store, _ string, turn int) error {
		list, err := s.List()
		if err != nil || len(list) == 0 {
			return err
		}
		_, err = s.Remove(t.Context(), list[turn%len(list)].Name)
		return err
	},
	"reader": func(t *testing.T, s Store, _ string, _ int) error {
		list, err := s.List()
		for _, e := range list {
			if e.Err != nil {
				return e.Err
			}
			c, err := s.Lookup(e.Name)
			if err != nil {
				return err
			}
			ck, err := Open(c.Path)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(ck.mapped[0].data)
			if err := ck.Close(); err != nil {
				return err
			}
			if filepath.Base(c.Path) != "sha256-"+hex.EncodeToString(sum[:]) || !strings.HasSuffix(c.Modelfile.Template, "{{ .Prompt }}") {
				return fmt.Errorf("%s has other bytes: %+v", e.Name, c.Modelfile)
			}
		}
		return err
	},
}

func create(name, file string) func(t *testing.T, s Store, files string, turn int) error {
	return func(t *testing.T, s Store, files string, turn int) error {
		if strings.Contains(name, "%") {
			name := fmt.Sprintf(name, turn%3)
			return s.Create(t.Context(), name, Modelfile{From: filepath.Join(files, file), Template: name + "{{ .Prompt }}"}, nil, nil)
		}
		f := Modelfile{From: filepath.Join(files, file), Template: fmt.Sprint(turn) + "{{ .Prompt }}", System: file}
		return s.Create(t.Context(), name, f, nil, nil)
	}
}

// TestProcesses lets several processes change and read one store. Nobody sees half a model at any time, and whatever is there at the end is
// whole.
func TestProcesses(t *testing.T) {
	if flag.NArg() == 4 {
		work(t, flag.Arg(0), Store{flag.Arg(1)}, flag.Arg(2), flag.Arg(3))
		return
	}
	s, files := Store{t.TempDir()}, dir(t, map[string]string{"a.gguf": weightsFor("a"), "b.gguf": weightsFor("b")})
	var running sync.WaitGroup
	for name := range workers {
		c := exec.Command(os.Args[0], "-test.run=^TestProcesses$", "-test.timeout=2m", name, s.Root, files, "1500ms")
		running.Go(func() {
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		})
	}
	running.Wait()
	left := verify(t, s)
	if err := s.Create(t.Context(), "last", Modelfile{From: filepath.Join(files, "a.gguf"), Template: "{{ .Prompt }}"}, nil, nil); err != nil {
		t.Error(err)
	}
	for _, name := range left {
		if r, err := s.Remove(t.Context(), name); err != nil || r.Kept != nil {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if left = verify(t, s); len(left) != 1 {
		t.Errorf("%v", left)
	}
	known := regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)
	for _, name := range names(t, filepath.Join(s.Root, "blobs")) {
		if !known.MatchString(name) {
			t.Errorf("%s is left behind", name)
		}
	}
}

// TestKilledProcesses ends processes in the middle of what they do. No half model is there afterwards, no lock is held, and what they left behind
// goes once it is old.
func TestKilledProcesses(t *testing.T) {
	s, files := Store{t.TempDir()}, dir(t, map[string]string{"a.gguf": weightsFor("a"), "b.gguf": weightsFor("b")})
	put(t, filepath.Join(files, "a.gguf"), weightsFor("a")+strings.Repeat("x", 1<<20)) // so that writing takes a while
	for round := range 12 {
		name := []string{"first", "third", "copier", "remover"}[round%4]
		c := exec.Command(os.Args[0], "-test.run=^TestProcesses$", "-test.timeout=2m", name, s.Root, files, "1m")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+7*round) * time.Millisecond)
		if err := errors.Join(c.Process.Kill(), s.Create(t.Context(), "same", Modelfile{From: filepath.Join(files, "b.gguf")}, nil, nil)); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if err := c.Wait(); err == nil {
			t.Errorf("round %d: %s was not killed", round, name)
		}
		verify(t, s)
	}
	old := time.Now().Add(-2 * time.Hour)
	for _, f := range names(t, filepath.Join(s.Root, "blobs")) {
		if err := os.Chtimes(filepath.Join(s.Root, "blobs", f), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if r := s.Sweep(t.Context()); r.Kept != nil {
		t.Error(r)
	}
	named := map[string]bool{}
	for _, n := range s.manifests() {
		m, _, err := s.stored(n)
		if err != nil {
			t.Error(err)
		}
		for _, d := range m.digests() {
			named[filepath.Base(s.blob(d))] = true
		}
	}
	for _, f := range names(t, filepath.Join(s.Root, "blobs")) {
		if !named[f] {
			t.Errorf("%s is left behind", f)
		}
	}
	verify(t, s)
}

// work does one thing for a while. That a model is removed by others before it is reached is no failure.
func work(t *testing.T, name string, s Store, files, long string) {
	d, err := time.ParseDuration(long)
	if err != nil {
		t.Fatal(err)
	}
	turn := 0
	for end := time.Now().Add(d); time.Now().Before(end) || turn == 0; turn++ {
		if err := workers[name](t, s, files, turn); err != nil && !errors.Is(err, ErrNoModel) && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("turn %d: %v", turn, err)
		}
	}
}
