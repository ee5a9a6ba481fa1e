package store

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// puller is a process that pulls a model.
func puller(t *testing.T, s Store, name string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(self, "-test.run=^TestPullingProcess$", "--", s.Root, name)
}

// TestPullingProcess is what such a process does.
func TestPullingProcess(t *testing.T) {
	args := flag.Args()
	if len(args) != 2 {
		t.Skip("for other tests, which start it")
	}
	if err := (Store{args[0]}).Pull(t.Context(), args[1], Remote{Insecure: true, Parallel: 4}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestPullSurvivesKills kills a pulling process at 30 random moments. No killed puller may lose what had arrived: the bytes that the registry
// sends are at most the model's and, for each kill, those that were on their way.
func TestPullSurvivesKills(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no locks and no SIGKILL there")
	}
	const size, kills = 24 << 20, 30
	// The registry sends a piece of 16 KiB only when no more than this is on its way, by the map that the puller keeps. So what a kill costs
	// is this and a piece on each of four connections, on however slow a machine.
	const onTheWay = 64 << 10
	const most = kills * (onTheWay + 4*16<<10)
	g := newRegistry(t)
	weights := noise(1, size)
	name, digest := g.model(weights)
	s := Store{t.TempDir()}
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	killed, began := 0, 0
	var lost, until atomic.Int64 // what was sent and is not there; where the registry waits for the kill
	have := func() int64 {
		p := &partial{size: size, chunk: chunkOf(size)}
		p.done = make([]int64, (size+p.chunk-1)/p.chunk)
		raw, err := os.ReadFile(s.blob(digest) + suffixMap)
		if err != nil {
			return 0
		}
		n, _ := p.parse(raw)
		return n
	}
	g.set(func() {
		g.gate = func() bool {
			served := g.served.Load()
			return served < until.Load() && served-lost.Load()-have() <= onTheWay
		}
	})
	for killed < kills {
		c := puller(t, s, name)
		var said bytes.Buffer
		c.Stdout, c.Stderr = &said, &said
		before := g.served.Load()
		lost.Store(before - have())
		until.Store(before + 256<<10 + rng.Int64N(512<<10)) // so that the pull does not end before its last kill
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		// It dies when the registry has sent it so much, or a little later, or at any time in every fourth try.
		if killed%4 != 3 {
			for began := time.Now(); g.served.Load() < until.Load() && c.Process.Signal(syscall.Signal(0)) == nil && time.Since(began) < 10*time.Second; {
				time.Sleep(100 * time.Microsecond)
			}
			began++
		}
		time.Sleep(time.Duration(rng.IntN(5000)) * time.Microsecond)
		if err := c.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		err := c.Wait()
		if err == nil {
			t.Fatalf("the pull ended after %d kills: the registry is too fast for this test", killed)
		}
		if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() >= 0 {
			t.Fatalf("the puller failed by itself: %v: %s", err, said.String())
		}
		for killed++; g.busy.Load() > 0; {
			time.Sleep(time.Millisecond) // what is answered to the dead counts as sent
		}
		if _, err := s.Find(name); !errors.Is(err, ErrNoModel) {
			t.Fatalf("half a model is found: %v", err)
		}
		for _, file := range s.files(t) {
			if base := filepath.Base(file); strings.HasPrefix(base, "sha256-") && !strings.Contains(base, suffixPartial) && strings.Contains(digest, base[7:]) {
				t.Fatalf("%s has its name after %d kills", file, killed)
			}
		}
	}
	atKills := g.served.Load()
	g.set(func() { g.gate = nil })
	if err := s.Pull(t.Context(), name, hasty(t), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(s.blob(digest)); err != nil || !bytes.Equal(got, weights) {
		t.Errorf("%v, or other bytes", err)
	}
	over := g.served.Load() - size - 23 - 13
	t.Logf("%d kills, %d of them in the middle, at %d bytes; %d bytes more than the model's were sent, %d a kill", killed, began, atKills, over, over/kills)
	if over > most {
		t.Errorf("%d bytes were sent twice, at most %d were on their way", over, most)
	}
	if left := s.files(t); len(left) != 4 {
		t.Errorf("%q", left)
	}
}

// TestPullOntoAFullDisk pulls onto a file system that is too small, makes room, and pulls again.
func TestPullOntoAFullDisk(t *testing.T) {
	root := t.TempDir()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("only root on Linux mounts the small file system that this needs")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", root).CombinedOutput(); err != nil {
		t.Skipf("no file system can be mounted here: %v: %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", root).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}()
	g := newRegistry(t)
	weights := noise(1, 3<<20)
	name, digest := g.model(weights)
	s := Store{filepath.Join(root, "store")}
	ballast := filepath.Join(root, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	err := s.Pull(t.Context(), name, hasty(t), nil)
	// The weights fill the disk; which of the blobs that are pulled at once is refused its next byte first is a matter of luck.
	if e, ok := errors.AsType[*FileError](err); !ok || !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(e.File, filepath.Join(s.Root, "blobs", "sha256-")) {
		t.Fatalf("%v", err)
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	for _, file := range s.files(t) {
		if strings.HasPrefix(filepath.Base(file), prefixTemp) || strings.HasPrefix(file, "manifests/") {
			t.Errorf("%s is left", file)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	var begun int64 = -1
	if err := s.Pull(t.Context(), name, hasty(t), func(p Progress) {
		if p.Digest == digest && begun < 0 {
			begun = p.Completed
		}
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(s.blob(digest)); err != nil || !bytes.Equal(got, weights) || begun < 1<<20 {
		t.Errorf("%v, began again at %d", err, begun)
	}
}

// TestPartialIsNeverBelievedBlindly damages what an earlier pull has left.
func TestPartialIsNeverBelievedBlindly(t *testing.T) {
	weights := noise(1, 3<<20)
	for name, damage := range map[string]func(partial, counts string) error{
		"no map":        func(_, counts string) error { return os.Remove(counts) },
		"empty map":     func(_, counts string) error { return os.Truncate(counts, 0) },
		"map of others": func(_, counts string) error { return os.WriteFile(counts, bytes.Repeat([]byte("x"), 48), 0o644) },
		"map too high":  func(_, counts string) error { return patch(counts, 24, bytes.Repeat([]byte{0x7f}, 8)) },
		"negative map":  func(_, counts string) error { return patch(counts, 24, bytes.Repeat([]byte{0xff}, 8)) },
		"short file":    func(partial, _ string) error { return os.Truncate(partial, 5) },
		"no file":       func(partial, _ string) error { return os.Remove(partial) },
		"other bytes":   func(partial, _ string) error { return patch(partial, 0, []byte("XXXXXXXX")) },
	} {
		g := newRegistry(t)
		model, digest := g.model(weights)
		s := Store{t.TempDir()}
		p, err := holdPartial(t.Context(), mkBlobs(t, s, digest), int64(len(weights)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.write(0, weights[:1<<20+500]), p.release()); err != nil {
			t.Fatal(err)
		}
		if err := damage(s.blob(digest)+suffixPartial, s.blob(digest)+suffixMap); err != nil {
			t.Fatal(err)
		}
		err = s.Pull(t.Context(), model, hasty(t), nil)
		if name == "other bytes" {
			if !errors.Is(err, ErrDigest) || len(s.files(t)) > 2 {
				t.Errorf("%s: %v, %q", name, err, s.files(t))
			}
			err = s.Pull(t.Context(), model, hasty(t), nil)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := os.ReadFile(s.blob(digest)); err != nil || !bytes.Equal(got, weights) {
			t.Errorf("%s: %v, or other bytes", name, err)
		}
	}
}

func mkBlobs(t *testing.T, s Store, digest string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(s.Root, "blobs"), 0o755); err != nil {
		t.Fatal(err)
	}
	return s.blob(digest)
}

// patch writes over bytes of a file.
func patch(path string, off int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, off)
	return errors.Join(err, f.Close())
}

func TestChunks(t *testing.T) {
	for size, want := range map[int64]int64{0: minChunk, 1: minChunk, 64 << 20: minChunk, 64<<20 + 1: 2 << 20, 1 << 30: 16 << 20, 4 << 30: 64 << 20, maxBlob: maxChunk} {
		if got := chunkOf(size); got != want {
			t.Errorf("%d bytes: chunks of %d, want %d", size, got, want)
		}
	}
	if _, err := holdPartial(t.Context(), filepath.Join(t.TempDir(), "x"), maxBlob+1, nil); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}
