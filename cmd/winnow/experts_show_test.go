package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/moe"
)

func TestShowProfiles(t *testing.T) {
	alone(t)
	demoProfile(t, "p.json", 1<<16, func(p *compress.Profile) {
		p.Arch = "\x1b[31m<b>"
		p.Layers = p.Layers[:1]
		p.Layers[0].Usage = []int64{8000, 4000, 4000, 2000, 1000, 1000, 0, 0}
		p.Layers[0].Saliency = []float64{8000, 8000, 4000, 0, 0, 0, 0, 0}
	})
	title := `usage of the experts of a model of architecture "\x1b[31m<b>" over 65536 tokens` + "\n"
	if out := must(t, "", "experts", "show", "p.json"); out != title+"layer 0: 400.0 200.0 200.0 100.0 50.0 50.0 0.0 0.0\n" {
		t.Errorf("%q", out)
	}
	if out := must(t, "", "experts", "show", "p.json", "--map"); out != title+"    0 |█▒▒░░░  |\n" {
		t.Errorf("%q", out)
	}
	if out := must(t, "", "experts", "show", "p.json", "--of", "saliency"); !strings.HasSuffix(out, "\nlayer 0: 250.0 500.0 250.0 0.0 0.0 0.0 0.0 0.0\n") {
		t.Errorf("%q", out)
	}
	if out := must(t, "", "experts", "show", "p.json", "--of", "largest"); !strings.HasSuffix(out, "\nlayer 0: 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0\n") {
		t.Errorf("%q", out)
	}
	demoProfile(t, "q.json", 1<<16, func(p *compress.Profile) { p.Layers[2].Skips[32], p.Layers[3].Skips[5] = 1000, 10 })
	foot := "\nskip_beta with which half of a layer's tokens run their first expert alone: 2:0.51 3:0.09\n"
	for _, how := range []string{"", "--map"} {
		if out := must(t, "", append([]string{"experts", "show", "q.json"}, strings.Fields(how)...)...); !strings.HasSuffix(out, foot) {
			t.Errorf("%q", out)
		}
	}
	must(t, "", "experts", "show", "p.json", "--svg", "p.svg")
	if cells := checkSVG(t, "p.svg"); cells != 8 {
		t.Errorf("%d cells", cells)
	}
}

// checkSVG has a picture parsed as XML and counts its cells.
func checkSVG(t *testing.T, path string) (cells int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(raw)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return cells
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok {
			switch e.Name.Local {
			case "svg", "rect", "text":
			case "title":
				cells++
			default:
				t.Errorf("element %s", e.Name.Local)
			}
		}
	}
}

func TestShowOverlays(t *testing.T) {
	alone(t)
	err := writeOverlay("o.json", moe.Overlay{Format: 1, Method: "reap", Layers: map[int]moe.OverlayLayer{
		2: {Drop: []int{1, 5}, TopK: 1}, 10: {Drop: []int{0}, Merge: [][]int{{4, 2}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	title := `experts that an overlay of method "reap" leaves; full stay, half share weights, empty go` + "\n"
	if out := must(t, "", "experts", "show", "o.json"); out != title+"layer 2: drop 1 5 topk 1\nlayer 10: drop 0 merge 4 2\n" {
		t.Errorf("%q", out)
	}
	if out := must(t, "", "experts", "show", "o.json", "--map"); out != title+"    2 |█ ███ |\n   10 | █▒█▒█|\n" {
		t.Errorf("%q", out)
	}
	must(t, "", "experts", "show", "o.json", "--svg", "o.svg")
	if cells := checkSVG(t, "o.svg"); cells != 12 {
		t.Errorf("%d cells", cells)
	}
}

func TestShowRefuses(t *testing.T) {
	alone(t)
	for name, content := range map[string]string{"empty": "", "list": "[]", "text": "layers", "key": `{"format":1,"extra":2}`, "cut": `{"layers"`} {
		writeFile(t, name, content)
		if _, _, err := winnow(t, "", "experts", "show", name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := winnow(t, "", "experts", "show", "list", "--of", "warmth"); err == nil || !strings.Contains(err.Error(), "largest, saliency, usage, weight") {
		t.Error(err)
	}
}

// What is taken for an overlay and parses as one can be shown.
func FuzzShownOverlays(f *testing.F) {
	for _, seed := range []string{
		"", "{", "[]", `{"layers":[]}`, `{"layers":{}}`, `{"format":1,"layers":{"2":{"drop":[1,5],"merge":[[0,4]],"topk":1}}}`,
		`{"format":1,"layers":{"1023":{"drop":[1023]}}}`, `{"a":{"layers":[]},"layers":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		profile, err := isProfile(bytes.NewReader(raw))
		o, refused := moe.ParseOverlay(raw)
		if refused != nil {
			return
		}
		if profile || err != nil {
			t.Fatalf("%s is an overlay, but profile is %v (%v)", raw, profile, err)
		}
		m := overlayMap(o)
		if len(m.rows) != len(o.Layers) || m.text(io.Discard) != nil || m.draw(io.Discard, 80, configs.Screen{Color: true}) != nil || m.svg(io.Discard) != nil {
			t.Fatalf("%d rows of %d layers", len(m.rows), len(o.Layers))
		}
	})
}

func TestMapsHaveColoursWhereTheyAreWelcome(t *testing.T) {
	m := &expertMap{title: "x", rows: []expertRow{{layer: 1, cells: []float64{1, 1, 0, 0.5, 1, 0, 0, 0, 1, 0}}}}
	for want, screen := range map[string]configs.Screen{
		"x\n    1 |██ ▒█   |\n      |█ |\n": {Codes: true},
		"x\n    1 |\x1b[38;5;229m██\x1b[38;5;233m█\x1b[38;5;166m█\x1b[38;5;229m█\x1b[38;5;233m███\x1b[0m|\n      |\x1b[38;5;229m█\x1b[38;5;233m█\x1b[0m|\n": {
			Codes: true, Color: true},
	} {
		var b bytes.Buffer
		if err := m.draw(&b, 10, screen); err != nil || b.String() != want {
			t.Errorf("%q, want %q (%v)", b.String(), want, err)
		}
	}
}
