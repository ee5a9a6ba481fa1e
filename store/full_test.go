package store

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// smallDisk mounts a file system of so many bytes, where the system lets us.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	root := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", bytes), "tmpfs", root).CombinedOutput(); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v, %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", root).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v, %s", root, err, out)
		}
	})
	return root
}

// TestCreateOnAFullDisk runs out of space at every write in turn. Each time nothing is left behind, and once there is space the same creation
// works.
func TestCreateOnAFullDisk(t *testing.T) {
	const page, pages = 4096, 64
	g := good()
	g.weights = 5 * page
	file := filepath.Join(t.TempDir(), "new.gguf")
	put(t, file, string(g.bytes()))
	s := Store{smallDisk(t, pages*page)}
	f := Modelfile{From: file, Template: "{{ .Prompt }}", System: strings.Repeat("x", 2*page), Parameters: map[string]any{"top_k": 1}}
	filler, failed := filepath.Join(s.Root, "filler"), 0
	for free := range pages {
		put(t, filler, strings.Repeat("x", (pages-free)*page))
		err := s.Create(t.Context(), "new", f, nil, nil)
		if err == nil {
			break
		}
		failed++
		if !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), s.Root) {
			t.Errorf("%d pages free: %v", free, err)
		}
		for _, dir := range []string{"blobs", "manifests"} {
			for _, name := range names(t, filepath.Join(s.Root, dir)) {
				if _, err := os.ReadDir(filepath.Join(s.Root, dir, name)); err != nil {
					t.Errorf("%d pages free: %s/%s is left behind", free, dir, name)
				}
			}
		}
		if _, err := s.Find("new"); err == nil {
			t.Errorf("%d pages free: there is half a model", free)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	if got := verify(t, s); len(got) != 1 || failed < 8 {
		t.Errorf("%v after %d failures", got, failed)
	}
}
