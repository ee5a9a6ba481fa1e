package main

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/tensor"
)

// written is a file of an overlay of the demo.
func written(t *testing.T, name, layers string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".winnow-moe.json")
	if err := os.WriteFile(path, []byte(`{"format":1,"layers":{`+layers+`}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// half drops four of the eight experts of every layer.
const half = `"0":{"drop":[0,1,2,3]},"1":{"drop":[0,2,4,6]},"2":{"drop":[4,5,6,7]},"3":{"drop":[1,3,5,7]},"4":{"drop":[0,1,6,7]},"5":{"drop":[0,3,4,7]}`

// Overlays are served beside their model under names of their own; one that lies is told to who asks for it, and the others go on.
func TestServeOverlays(t *testing.T) {
	alone(t)
	lies, broken := written(t, "lies", `"3":{"drop":[8]}`), filepath.Join(t.TempDir(), "broken.json")
	if err := os.WriteFile(broken, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	url, stop := serving(t, "demo", "--expert-overlay", "half="+written(t, "half", half), "--expert-overlay", "lies="+lies,
		"--expert-overlay", "broken="+broken, "--expert-overlay", "same="+written(t, "same", ""))
	if got := served(t, url); !slices.Equal(got, []string{"demo", "half", "lies", "broken", "same"}) {
		t.Errorf("served: %v", got)
	}
	answer := func(model string) string {
		status, body := ask(t, url, model)
		if status != http.StatusOK {
			t.Errorf("%s: %d %s", model, status, body)
		}
		_, text, _ := strings.Cut(body, `"choices"`)
		return text
	}
	whole, pruned, same := answer(demo.Name), answer("half"), answer("same")
	if whole != same || whole == pruned {
		t.Errorf("the model says %s, under an overlay of nothing %s, with half of its experts %s", whole, same, pruned)
	}
	for _, name := range []string{"lies", "broken"} { // the log says what is wrong
		if status, body := ask(t, url, name); status < 400 || !strings.Contains(body, "model_load_failed") {
			t.Errorf("%s: %d %s, want an error", name, status, body)
		}
	}
	if again := answer("half"); again != pruned {
		t.Errorf("after the others failed: %s, before %s", again, pruned)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// An overlay without a name is that of the model itself, beside which others stand as ever.
func TestServeUnderAnOverlay(t *testing.T) {
	alone(t)
	file := written(t, "half", half)
	url, stop := serving(t, "demo", "--expert-overlay", file, "--expert-overlay", "again="+file, "--expert-overlay", "whole="+written(t, "same", ""))
	answers := map[string]string{}
	for _, model := range []string{demo.Name, "again", "whole"} {
		status, body := ask(t, url, model)
		if status != http.StatusOK {
			t.Errorf("%s: %d %s", model, status, body)
		}
		_, answers[model], _ = strings.Cut(body, `"choices"`)
	}
	if answers[demo.Name] != answers["again"] || answers[demo.Name] == answers["whole"] {
		t.Errorf("%v", answers)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, _, err := winnow(t, "", "serve", "demo", "--addr", "127.0.0.1:0", "--expert-overlay", file, "--expert-overlay", file); err == nil || !strings.Contains(err.Error(), "under two overlays") {
		t.Errorf("two overlays of the model itself: %v", err)
	}
}

// loads counts the bytes of weights that a device makes.
type loads struct {
	tensor.Device
	bytes int64
}

func (d *loads) Load(w tensor.Mat) (tensor.Mat, error) {
	m, err := d.Device.Load(w)
	if err == nil {
		d.bytes += int64(m.Buf.Len())
	}
	return m, err
}

// Models of one mapping hold what they have in common once, in whatever order they are loaded, and take less with fewer experts.
func TestOverlaysShareWeights(t *testing.T) {
	alone(t)
	cfg := configs.Default()
	cfg.ExpertOverlays = []string{"half=" + written(t, "half", half), "lies=" + written(t, "lies", `"3":{"drop":[8]}`)}
	m, err := openMachine(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	library, _, err := m.library([]string{demo.Name}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := library.Find("lies"); err != nil {
		t.Error(err)
	} else if _, err := s.Open(); err == nil || !strings.Contains(err.Error(), "layer 3: drop: expert 8") {
		t.Errorf("an overlay that lies: %v", err)
	}
	if m.device.Name() == tensor.Reference().Name() {
		t.Skip("plain Go uses weights where they are mapped")
	}
	c, err := openPath(demo.Name)
	if err != nil {
		t.Fatal(err)
	}
	var dropped int64
	for name, w := range c.Tensors {
		if strings.Contains(name, "_exps.") {
			dropped += int64(len(w.Data)) / 2
		}
	}
	within := m.device
	for _, order := range [][]string{{demo.Name, "half"}, {"half", demo.Name}} {
		counted := &loads{Device: within}
		m.device = tensor.Shared(counted)
		var open []*serve.Model
		took, made := map[string]int64{}, map[string]int64{}
		for _, name := range order {
			s, err := library.Find(name)
			if err != nil {
				t.Fatal(err)
			}
			expected, err := s.Memory()
			if err != nil {
				t.Fatal(err)
			}
			if with := s.Sharing; with.Mapping != demo.Name || with.Part < dropped || with.Whole < with.Part || (with.Whole == with.Part) != (name == demo.Name) {
				t.Errorf("%s shares %+v", name, with)
			}
			counted.bytes = 0
			one, err := s.Open()
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, one)
			took[name], made[name] = one.Memory(), counted.bytes
			if expected < took[name]-took[name]/100 || expected > took[name]+took[name]/50 {
				t.Errorf("%s: %d bytes expected, %d taken", name, expected, took[name])
			}
		}
		if saved := took[demo.Name] - took["half"]; saved < dropped/10*9 {
			t.Errorf("with half of the experts it takes %d bytes less, of %d that were dropped", saved, dropped)
		}
		if made[order[0]] < dropped {
			t.Errorf("%v: the first makes %d bytes", order, made[order[0]])
		}
		// what weighing loads for a moment counts too
		if order[0] == demo.Name && made["half"] > dropped/50 || order[0] == "half" && (made[demo.Name] < dropped/10*9 || made[demo.Name] > dropped+dropped/5) {
			t.Errorf("%v: the second makes %d bytes, where %d were dropped", order, made[order[1]], dropped)
		}
		for _, one := range open {
			if err := one.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// One model alone takes an overlay too.
func TestVerbsTakeAnOverlay(t *testing.T) {
	alone(t)
	file := written(t, "half", half)
	run := func(args ...string) (string, error) {
		var out strings.Builder
		c := root()
		c.SetArgs(append(args, "--log", "error"))
		c.SetOut(&out)
		c.SetErr(&out)
		c.SetIn(strings.NewReader("Once upon a time"))
		return out.String(), c.Execute()
	}
	if _, err := run("run", "demo", "--expert-overlay", file, "--max-tokens", "3"); err != nil {
		t.Error(err)
	}
	if _, err := run("bench", "demo", "--expert-overlay", file, "-p", "8", "-n", "2", "-r", "1"); err != nil {
		t.Error(err)
	}
	if _, err := run("bench", "demo", "--expert-overlay", written(t, "lies", `"9":{"drop":[1]}`), "-p", "8", "-n", "2", "-r", "1"); err == nil || !strings.Contains(err.Error(), "layer 9") {
		t.Errorf("an overlay that lies: %v", err)
	}
	if _, err := run("bench", "demo", "--expert-overlay", file+"x"); err == nil {
		t.Error("an overlay that is not there is none")
	}
}
