package moe_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/moe"
)

var router = moe.RouterSpec{Experts: 8, K: 2, Score: moe.Softmax, Weight: moe.FromScore, Scale: 1}

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// What no model can mean is refused when the file is read, by an error that names layer and field.
func TestParseOverlayRefuses(t *testing.T) {
	for _, test := range []struct{ json, names string }{
		{``, "EOF"}, {`[]`, "array"}, {`null`, "format is 0"}, {`{}`, "format is 0"}, {`{"format":2}`, "format is 2"}, {`{"format":"1"}`, "format"},
		{`{"format":1} {}`, "more follows"}, {`{"format":1,"drop":[1]}`, "drop"},
		{`{"format":1,"model":"abc"}`, "model"}, {`{"format":1,"model":"` + hex64[:62] + `zz"}`, "model"},
		{`{"format":1,"keep":-0.5}`, "keep"}, {`{"format":1,"keep":1.5}`, "keep"}, {`{"format":1,"keep":1e999}`, "keep"}, {`{"format":1,"keep":NaN}`, "invalid"},
		{`{"format":1,"method":"` + strings.Repeat("x", 300) + `"}`, "method"},
		{`{"format":1,"calibration":{"tokens":-1,"sha256":""}}`, "calibration"}, {`{"format":1,"calibration":{"tokens":1,"sha256":"x"}}`, "calibration"},
		{`{"format":1,"layers":{"x":{}}}`, `"x"`}, {`{"format":1,"layers":{"-1":{}}}`, `"-1"`}, {`{"format":1,"layers":{"1024":{}}}`, `"1024"`},
		{`{"format":1,"layers":{"3":{"dorp":[1]}}}`, "layer 3: layers"}, {`{"format":1,"layers":{"3":{"drop":["a"]}}}`, "layer 3"},
		{`{"format":1,"layers":{"3":{"drop":[1.5]}}}`, "layer 3"}, {`{"format":1,"layers":{"3":{"drop":[-1]}}}`, "layer 3: drop: expert -1"},
		{`{"format":1,"layers":{"3":{"drop":[1024]}}}`, "layer 3: drop: expert 1024"}, {`{"format":1,"layers":{"3":{"drop":[4,4]}}}`, "layer 3: drop: expert 4 stands twice"},
		{`{"format":1,"layers":{"3":{"merge":[[4]]}}}`, "layer 3: merge"}, {`{"format":1,"layers":{"3":{"merge":[[4,-4]]}}}`, "layer 3: merge: expert -4"},
		{`{"format":1,"layers":{"3":{"merge":[[4,5],[5,6]]}}}`, "layer 3: merge: expert 5 stands twice"},
		{`{"format":1,"layers":{"3":{"drop":[5],"merge":[[4,5]]}}}`, "layer 3: merge: expert 5 is dropped"},
		{`{"format":1,"layers":{"3":{"topk":-2}}}`, "layer 3: topk"}, {`{"format":1,"layers":{"3":{"topk":65}}}`, "layer 3: topk"},
		{`{"format":1,"bits":{"3":{"default":"Q9"}}}`, "layer 3: bits"}, {`{"format":1,"bits":{"3":{"default":"Q4_K","over":{"-1":"Q4_K"}}}}`, "layer 3: bits"},
		{`{"format":1,"bits":{"3":{"default":"Q4_K","over":{"1":"?"}}}}`, "layer 3: bits"},
	} {
		if _, err := moe.ParseOverlay([]byte(test.json)); !errors.Is(err, moe.ErrOverlay) || !strings.Contains(err.Error(), test.names) {
			t.Errorf("%s: got %v, want ErrOverlay that names %q", test.json, err, test.names)
		}
	}
	if _, err := moe.ParseOverlay(make([]byte, moe.MostOverlayBytes+1)); !errors.Is(err, moe.ErrOverlay) {
		t.Errorf("a file that is too long: got %v", err)
	}
}

// What the layer of a model cannot mean is refused as well.
func TestOverlayCheck(t *testing.T) {
	groups := router
	groups.Groups, groups.GroupsKept, groups.GroupScore = 4, 1, moe.GroupMax
	pruned := moe.EveryExpert(8)
	pruned.Phys[7] = -1
	for _, test := range []struct {
		name  string
		layer moe.OverlayLayer
		spec  moe.RouterSpec
		m     moe.ExpertMap
		names string // "" = it fits
	}{
		{"fits", moe.OverlayLayer{Drop: []int{1}, Merge: [][]int{{2, 3}}, TopK: 4}, router, moe.EveryExpert(8), ""},
		{"fewer left than k", moe.OverlayLayer{Drop: []int{0, 1, 2, 3, 4, 5, 6}}, router, moe.EveryExpert(8), ""},
		{"nothing left", moe.OverlayLayer{Drop: []int{0, 1, 2, 3, 4, 5, 6, 7}}, router, moe.EveryExpert(8), "layer 5: drop: no expert"},
		{"beyond the router", moe.OverlayLayer{Drop: []int{8}}, router, moe.EveryExpert(8), "layer 5: drop: expert 8"},
		{"merged beyond the router", moe.OverlayLayer{Merge: [][]int{{1, 9}}}, router, moe.EveryExpert(8), "layer 5: merge: expert 9"},
		{"merged but not there", moe.OverlayLayer{Merge: [][]int{{1, 7}}}, router, pruned, "layer 5: merge: expert 7"},
		{"a group with too few", moe.OverlayLayer{Drop: []int{3}}, groups, moe.EveryExpert(8), "layer 5: drop: leaves a group with 1"},
		{"a group with enough", moe.OverlayLayer{Drop: []int{3}, TopK: 1}, groups, moe.EveryExpert(8), ""},
	} {
		o := moe.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{5: test.layer}}
		err := o.Check(5, test.spec, test.m)
		if test.names == "" && err != nil || test.names != "" && (!errors.Is(err, moe.ErrOverlay) || !strings.Contains(err.Error(), test.names)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.names)
		}
		if err == nil {
			m, k := o.Apply(test.m, 5, test.spec.K)
			spec := test.spec
			spec.K = k
			if err := m.Check(spec); err != nil {
				t.Errorf("%s: the map that comes of it: %v", test.name, err)
			}
		}
		if err := o.Check(4, test.spec, test.m); err != nil {
			t.Errorf("%s: a layer that is not listed: %v", test.name, err)
		}
	}
	o := moe.Overlay{Format: 1, Bits: map[int]moe.OverlayBits{5: {Over: map[int]string{8: "Q8_0"}}}}
	if err := o.Check(5, router, moe.EveryExpert(8)); !errors.Is(err, moe.ErrOverlay) || !strings.Contains(err.Error(), "layer 5: bits: expert 8") {
		t.Errorf("bits beyond the router: %v", err)
	}
}

func TestOverlayApply(t *testing.T) {
	o := moe.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{0: {Drop: []int{0, 4, 5}, Merge: [][]int{{6, 2}}, TopK: 7}}}
	m, k := o.Apply(moe.EveryExpert(8), 0, 2)
	if want := []int32{-1, 0, 2, 1, -1, -1, 2, 3}; !slices.Equal(m.Phys, want) || k != 5 {
		t.Errorf("map %v, %d experts a token, want %v and 5", m.Phys, k, want)
	}
	if want := []moe.Place{{Row: 1}, {Row: 3}, {Row: 6}, {Row: 7}}; !slices.Equal(m.At, want) {
		t.Errorf("places %v, want %v", m.At, want)
	}
	banked := moe.ExpertMap{Orig: []int32{9, 8, 7}, Phys: []int32{1, 0, 1}, At: []moe.Place{{1, 5}, {0, 3}}}
	m, _ = (&moe.Overlay{Layers: map[int]moe.OverlayLayer{0: {Drop: []int{1}}}}).Apply(banked, 0, 1)
	if !slices.Equal(m.Phys, []int32{0, -1, 0}) || !slices.Equal(m.At, []moe.Place{{0, 3}}) || !slices.Equal(m.Orig, banked.Orig) {
		t.Errorf("of banks: %+v", m)
	}
}

// Two overlays one after the other are the one that they compose to.
func TestOverlayCompose(t *testing.T) {
	layer := func(l moe.OverlayLayer) *moe.Overlay {
		return &moe.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{0: l}}
	}
	for _, test := range []struct{ a, b moe.OverlayLayer }{
		{moe.OverlayLayer{Drop: []int{1, 3}}, moe.OverlayLayer{Drop: []int{5, 3}}},
		{moe.OverlayLayer{Merge: [][]int{{1, 3}}}, moe.OverlayLayer{Merge: [][]int{{0, 1}}}},
		{moe.OverlayLayer{Merge: [][]int{{1, 3}, {0, 2}}}, moe.OverlayLayer{Merge: [][]int{{5, 2, 1}}}},
		{moe.OverlayLayer{Merge: [][]int{{1, 3, 4}}}, moe.OverlayLayer{Drop: []int{3}, TopK: 3}},
		{moe.OverlayLayer{Drop: []int{7}, TopK: 4}, moe.OverlayLayer{Merge: [][]int{{2, 6}}}},
	} {
		first, second := layer(test.a), layer(test.b)
		both, err := first.Compose(second)
		if err != nil {
			t.Errorf("%+v and %+v: %v", test.a, test.b, err)
			continue
		}
		m, k := first.Apply(moe.EveryExpert(8), 0, 2)
		m, k = second.Apply(m, 0, k)
		got, gotK := both.Apply(moe.EveryExpert(8), 0, 2)
		if !slices.Equal(got.Phys, m.Phys) || !slices.Equal(got.At, m.At) || gotK != k && test.a.TopK == 0 {
			t.Errorf("%+v and %+v: %v at %v, want %v at %v", test.a, test.b, got.Phys, got.At, m.Phys, m.At)
		}
	}
	for _, test := range []struct{ a, b *moe.Overlay }{
		{layer(moe.OverlayLayer{Merge: [][]int{{1, 3}}}), layer(moe.OverlayLayer{Drop: []int{1}})},
		{layer(moe.OverlayLayer{Drop: []int{1}}), layer(moe.OverlayLayer{Merge: [][]int{{1, 3}}})},
		{&moe.Overlay{Format: 1, Model: hex64}, &moe.Overlay{Format: 1, Model: strings.Repeat("a", 64)}},
	} {
		if _, err := test.a.Compose(test.b); !errors.Is(err, moe.ErrOverlay) {
			t.Errorf("%+v and %+v: got %v, want ErrOverlay", test.a, test.b, err)
		}
	}
}

func TestOverlayFingerprint(t *testing.T) {
	a := &moe.Overlay{Layers: map[int]moe.OverlayLayer{1: {Drop: []int{1}}}}
	b := &moe.Overlay{Layers: map[int]moe.OverlayLayer{1: {Drop: []int{2}}}}
	if a.Fingerprint() == b.Fingerprint() || a.Fingerprint() == "" {
		t.Errorf("%q and %q", a.Fingerprint(), b.Fingerprint())
	}
	if (&moe.Overlay{Format: 1, Method: "reap"}).Fingerprint() != "" || (*moe.Overlay)(nil).Fingerprint() != "" {
		t.Error("an overlay that changes nothing has a fingerprint")
	}
}

// FuzzOverlay: whatever is read, is written and read again the same; and what Check passes for a layer gives a map that its router accepts.
func FuzzOverlay(f *testing.F) {
	f.Add([]byte(`{"format":1,"model":"`+hex64+`","method":"reap","keep":0.75,"calibration":{"tokens":1048576,"sha256":"`+hex64+`"},
		"layers":{"3":{"drop":[4,7],"merge":[[1,6]],"topk":8}},"bits":{"3":{"default":"Q4_K","over":{"2":"Q6_K"}}}}`), uint8(2))
	f.Add([]byte(`{"format":1,"layers":{"0":{"drop":[0,1,2,3,4,5,6,7]}}}`), uint8(1))
	f.Add([]byte(`{"format":1,"layers":{"0":{"merge":[[0,1],[2,3]]},"00":{}}}`), uint8(4))
	f.Fuzz(func(t *testing.T, raw []byte, groups uint8) {
		o, err := moe.ParseOverlay(raw)
		if err != nil {
			if !errors.Is(err, moe.ErrOverlay) {
				t.Fatalf("%v is no ErrOverlay", err)
			}
			return
		}
		if math.IsNaN(o.Keep) {
			t.Fatal("keep is NaN")
		}
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		again, err := moe.ParseOverlay(b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if c, err := json.Marshal(again); err != nil || !reflect.DeepEqual(b, c) {
			t.Fatalf("%s became %s: %v", b, c, err)
		}
		spec := router
		if g := int(groups % 9); g > 1 && spec.Experts%g == 0 {
			spec.Groups, spec.GroupsKept, spec.GroupScore = g, (g+1)/2, moe.GroupMax
		}
		for layer := range o.Layers {
			if o.Check(layer, spec, moe.EveryExpert(8)) != nil {
				continue
			}
			m, k := o.Apply(moe.EveryExpert(8), layer, spec.K)
			s := spec
			if s.K = k; m.Check(s) != nil {
				t.Fatalf("%s: layer %d: %v", b, layer, m.Check(s))
			}
		}
		if both, err := o.Compose(again); err == nil && both.Fingerprint() == "" && o.Fingerprint() != "" {
			t.Fatalf("%s: composed with itself it changes nothing", b)
		}
	})
}
