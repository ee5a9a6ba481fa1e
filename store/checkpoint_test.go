package store

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const shared = "../../shared/models"

// TestOpenShared opens all model files that lie beside the repository, and asks for all their tensors.
func TestOpenShared(t *testing.T) {
	if _, err := os.Stat(shared); err != nil {
		t.Skip("the models are not here: ", err)
	}
	opened := 0
	err := filepath.WalkDir(shared, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case filepath.Ext(path) == ".gguf":
		case d.Name() == hfWeights:
			path = filepath.Dir(path)
		default:
			return nil
		}
		c, err := Open(path)
		if err != nil {
			return err
		}
		opened++
		if len(c.Names()) == 0 || c.Size() == 0 {
			t.Errorf("%s: %d tensors, %d bytes", path, len(c.Names()), c.Size())
		}
		for _, err := range append(mapTensors(c), c.Close()) {
			if err != nil && !errors.Is(err, ErrUnsupported) {
				t.Error(err)
			} else if err != nil {
				t.Log(err)
			}
		}
		return nil
	})
	if err != nil || opened == 0 {
		t.Errorf("%d opened: %v", opened, err)
	}
}

// mapTensors decodes the last row of every tensor and gives the errors of those that cannot be read.
func mapTensors(c *Checkpoint) (errs []error) {
	for _, name := range c.Names() {
		w, err := c.Tensor(name)
		errs = append(errs, err)
		if err != nil || w.Format.Decode == nil || len(w.Shape) == 0 {
			continue
		}
		row := make([]float32, w.Shape[len(w.Shape)-1])
		w.Format.Decode(row, w.Data[len(w.Data)-w.Format.RowBytes(len(row)):])
	}
	return errs
}

// TestOpenTwice reads one model from both of its containers: the norms are the same numbers.
func TestOpenTwice(t *testing.T) {
	gguf, err := Open(filepath.Join(shared, "tiny/llama/model.gguf"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the models are not here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	hf, err := Open(filepath.Join(shared, "tiny/llama"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := gguf.Tensor("token_embd.weight")
	if err != nil {
		t.Fatal(err)
	}
	b, err := hf.Tensor("model.embed_tokens.weight")
	if err != nil {
		t.Fatal(err)
	}
	if a.Format != b.Format || a.Shape[0] != b.Shape[0] || a.Shape[1] != b.Shape[1] || !bytes.Equal(a.Data, b.Data) {
		t.Errorf("%s %v and %s %v differ", a.Format, a.Shape, b.Format, b.Shape)
	}
	if err := errors.Join(gguf.Close(), hf.Close()); err != nil {
		t.Error(err)
	}
}

func TestOpenNot(t *testing.T) {
	root := dir(t, map[string]string{"empty.gguf": "", "four.gguf": "GGUF", "text.gguf": "Once upon a time", "m.safetensors": stOne("a"), "d/x": ""})
	if err := os.Symlink("nowhere", filepath.Join(root, "dangling.gguf")); err != nil {
		t.Log(err)
	}
	for file, want := range map[string]error{
		"empty.gguf": ErrFormat, "four.gguf": ErrFormat, "text.gguf": ErrFormat, "m.safetensors": ErrUnsupported,
		"missing.gguf": fs.ErrNotExist, "dangling.gguf": fs.ErrNotExist, "d": fs.ErrNotExist,
	} {
		c, err := Open(filepath.Join(root, file))
		var fe *FileError
		if c != nil || !errors.Is(err, want) || !errors.As(err, &fe) || strings.Count(err.Error(), root) != 1 {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := Open(os.DevNull); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a device: %v", err)
	}
}

// TestOpenLink opens a file through a symbolic link, as the caches of Hugging Face hold them.
func TestOpenLink(t *testing.T) {
	root := dir(t, map[string]string{"blob": string(good().bytes())})
	if err := os.Symlink("blob", filepath.Join(root, "m.gguf")); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	c, err := Open(filepath.Join(root, "m.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestOpenPipe opens a FIFO, which would block who reads it without looking.
func TestOpenPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := exec.Command("mkfifo", path).Run(); err != nil {
		t.Skip("no FIFOs here: ", err)
	}
	if _, err := Open(path); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
}

// TestReplaced puts another file in the place of an open one: what was opened stays as it was.
func TestReplaced(t *testing.T) {
	root := dir(t, map[string]string{"m.gguf": string(good().bytes()), "new": "GGUF"})
	c, err := Open(filepath.Join(root, "m.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(root, "new"), c.Path); err != nil {
		t.Fatal(err)
	}
	if w, err := c.Tensor("a"); err != nil || w.Data[23] != 96+23 {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
