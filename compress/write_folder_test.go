package compress_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

const fixture = "../model/testdata/qwen3_moe" // 3 layers of 8 experts, 2 a token

func opened(t testing.TB, path string) *store.Checkpoint {
	t.Helper()
	c, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// files reads a folder.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		out[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// folderWith is a model's folder that holds more files.
func folderWith(t testing.TB, config string, weights store.NewSafetensors, more map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	more["config.json"] = config
	for name, content := range more {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if len(weights.Tensors) > 0 {
		if err := store.WriteSafetensors(t.Context(), filepath.Join(dir, "model.safetensors"), weights, nil); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestFolder prunes a published folder: it loads as any other, and gives the same bits as the whole model in which the experts are masked.
func TestFolder(t *testing.T) {
	c := opened(t, fixture)
	o := overlay(map[int]moe.OverlayLayer{0: {Drop: []int{7, 2}}, 1: {Drop: []int{0, 1}}, 2: {Drop: []int{3, 4}}})
	small := apply(t, c, o, compress.Writing{For: compress.Anyone})
	if got, want := logits(t, small, tensor.Reference()), logits(t, c, masking{tensor.Reference(), o}); !slices.Equal(got, want) {
		t.Error("logits differ from those of the masked model")
	}
	was, is := files(t, fixture), files(t, small.Path)
	if got, want := len(is), 3; got != want {
		t.Errorf("%d files, want %d", got, want)
	}
	config := strings.Replace(was["config.json"], `"num_experts": 8`, `"num_experts": 6`, 1)
	end := strings.LastIndex(config, "\n}")
	config = config[:end] + ",\n" + `  "winnow_moe": {"method":"test","expert_ids":{"0":[0,1,3,4,5,6],"1":[2,3,4,5,6,7],"2":[0,1,2,5,6,7]}}` + config[end:]
	if is["config.json"] != config {
		t.Errorf("config.json is\n%s, want\n%s", is["config.json"], config)
	}
	if got := small.Tensors["model.layers.1.mlp.experts.0.up_proj.weight"].Data; !bytes.Equal(got, c.Tensors["model.layers.1.mlp.experts.2.up_proj.weight"].Data) {
		t.Error("expert 0 of layer 1 should be 2")
	}
	if small.Has("model.layers.1.mlp.experts.6.up_proj.weight") {
		t.Error("there is a seventh expert")
	}
}

// TestFolderUnchanged copies a folder with its other files: what is no weight, and none of what is hidden or of other weights.
func TestFolderUnchanged(t *testing.T) {
	c := opened(t, fixture)
	var all []store.NewTensor
	for _, name := range c.Parts[0].Names {
		x := c.Tensors[name]
		all = append(all, store.NewTensor{Name: name, Format: x.Format, Shape: x.Shape, Pieces: slices.Values([][]byte{x.Data})})
	}
	dir := folderWith(t, files(t, fixture)["config.json"], store.NewSafetensors{Notes: c.Parts[0].Notes, Tensors: all}, map[string]string{
		"README.md": "text", "tokenizer.json": "{}", "modules.json": "[]", "1_Pooling/config.json": "{}", "original/params.json": "{}",
		".hidden": "x", "pytorch_model.bin": "x", "consolidated.safetensors": "x", "model-q8.GGUF": "x",
	})
	want := files(t, dir)
	for _, left := range []string{"original/params.json", ".hidden", "pytorch_model.bin", "consolidated.safetensors", "model-q8.GGUF"} {
		delete(want, left)
	}
	small := apply(t, opened(t, dir), overlay(nil), compress.Writing{For: compress.Anyone})
	if got := files(t, small.Path); !reflect.DeepEqual(got, want) {
		t.Errorf("files differ: %d, want %d", len(got), len(want))
	}
	if st, err := os.Stat(small.Path); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// numbered is a tensor whose row r holds r.
func numbered(name string, shape ...int) store.NewTensor {
	per := 1
	for _, d := range shape[1:] {
		per *= d
	}
	var v []float32
	for r := range shape[0] {
		v = append(v, slices.Repeat([]float32{float32(100 * r)}, per)...)
	}
	raw := make([]byte, 4*len(v))
	quant.F32.Encode(raw, v)
	return store.NewTensor{Name: name, Format: quant.F32, Shape: shape, Pieces: slices.Values([][]byte{raw})}
}

// TestFolderTensors takes experts out of stacks and of all that a router has; layers differ, so that the config has lists. A second step goes
// on from the first.
func TestFolderTensors(t *testing.T) {
	const p = "model.layers.1.mlp."
	w := store.NewSafetensors{Tensors: []store.NewTensor{
		numbered(p+"gate.weight", 4, 2), numbered(p+"gate.e_score_correction_bias", 4), numbered(p+"experts.gate_up_proj", 4, 2, 6), numbered(p+"experts.down_proj_bias", 4, 2),
		numbered(p+"shared_experts.up_proj.weight", 4, 2), numbered("model.layers.1.self_attn.q_proj.weight", 4, 4), numbered("model.layers.0.mlp.up_proj.weight", 4, 2),
		numbered("model.layers.2.block_sparse_moe.router.weight", 4, 2), numbered("model.layers.2.block_sparse_moe.experts.0.w1.weight", 2, 2),
	}}
	for e := 1; e < 4; e++ {
		x := numbered(fmt.Sprintf("model.layers.2.block_sparse_moe.experts.%d.w1.weight", e), e+1, 2)
		x.Shape = []int{e + 1, 2}
		w.Tensors = append(w.Tensors, x)
	}
	const config = `{"num_hidden_layers":3, "n_routed_experts":4, "num_local_experts" : 4 , "num_experts_per_tok":3}`
	dir := folderWith(t, config, w, map[string]string{})
	small := apply(t, opened(t, dir), overlay(map[int]moe.OverlayLayer{1: {Drop: []int{0, 2}}}), compress.Writing{})
	for name, want := range map[string][]float32{
		p + "gate.weight": {100, 300}, p + "gate.e_score_correction_bias": {100, 300}, p + "experts.gate_up_proj": {100, 300}, p + "experts.down_proj_bias": {100, 300},
		p + "shared_experts.up_proj.weight": {0, 100, 200, 300}, "model.layers.2.block_sparse_moe.router.weight": {0, 100, 200, 300},
	} {
		if got := heads(t, small, name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	const lists = `{"num_hidden_layers":3, "n_routed_experts":[0,2,4], "num_local_experts" : [0,2,4] , "num_experts_per_tok":3,
  "winnow_moe": {"method":"test","expert_ids":{"1":[1,3]}}}`
	if got := files(t, small.Path)["config.json"]; got != lists {
		t.Errorf("config %s", got)
	}
	again := apply(t, small, overlay(map[int]moe.OverlayLayer{1: {Drop: []int{0}}, 2: {Drop: []int{1}}}), compress.Writing{})
	const second = `{"num_hidden_layers":3, "n_routed_experts":[0,1,3], "num_local_experts" : [0,1,3] , "num_experts_per_tok":3,
  "winnow_moe": {"method":"test","expert_ids":{"1":[3],"2":[0,2,3]}}}`
	if got := files(t, again.Path)["config.json"]; got != second {
		t.Errorf("config %s", got)
	}
	if got := again.Tensors["model.layers.2.block_sparse_moe.experts.1.w1.weight"].Shape; !slices.Equal(got, []int{3, 2}) {
		t.Errorf("expert 1 is %v, should be what 2 was", got)
	}
	other := apply(t, small, overlay(map[int]moe.OverlayLayer{2: {Drop: []int{1}}}), compress.Writing{})
	if got := files(t, other.Path)["config.json"]; !strings.HasSuffix(got, `"expert_ids":{"1":[1,3],"2":[0,2,3]}}}`) {
		t.Errorf("config %s", got)
	}
	shared := apply(t, opened(t, dir), overlay(map[int]moe.OverlayLayer{2: {Merge: [][]int{{3, 1}}}, 1: {Merge: [][]int{{3, 1}}}}), compress.Writing{})
	if got := shared.Tensors["model.layers.2.block_sparse_moe.experts.1.w1.weight"].Shape; !slices.Equal(got, []int{4, 2}) {
		t.Errorf("expert 1 is %v, should be what 3 is", got)
	}
	if got := heads(t, shared, p+"experts.gate_up_proj"); !slices.Equal(got, []float32{0, 300, 200, 300}) {
		t.Errorf("stack %v", got)
	}
	mean := apply(t, opened(t, dir), overlay(map[int]moe.OverlayLayer{1: {Merge: [][]int{{3, 0}}}}), compress.Writing{Merging: compress.Average})
	if got := heads(t, mean, p+"experts.gate_up_proj"); !slices.Equal(got, []float32{100, 200, 150}) {
		t.Errorf("stack of means %v", got)
	}
}

// TestShards keeps a model in the files that it was in, and writes their index.
func TestShards(t *testing.T) {
	dir := folderWith(t, `{"num_experts":3,"num_experts_per_tok":1}`, store.NewSafetensors{}, map[string]string{
		"model.safetensors.index.json": `{"weight_map":{"layers.0.gate.weight":"a.safetensors","layers.0.experts.0.w":"a.safetensors","layers.0.experts.1.w":"b.safetensors","layers.0.experts.2.w":"b.safetensors"}}`,
	})
	for base, all := range map[string][]store.NewTensor{
		"a.safetensors": {numbered("layers.0.gate.weight", 3, 2), numbered("layers.0.experts.0.w", 1, 2)},
		"b.safetensors": {numbered("layers.0.experts.1.w", 2, 2), numbered("layers.0.experts.2.w", 3, 2)},
	} {
		if err := store.WriteSafetensors(t.Context(), filepath.Join(dir, base), store.NewSafetensors{Tensors: all}, nil); err != nil {
			t.Fatal(err)
		}
	}
	small := apply(t, opened(t, dir), overlay(map[int]moe.OverlayLayer{0: {Drop: []int{1}}}), compress.Writing{})
	var index struct {
		Metadata map[string]int64  `json:"metadata"`
		Map      map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal([]byte(files(t, small.Path)["model.safetensors.index.json"]), &index); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"layers.0.gate.weight": "a.safetensors", "layers.0.experts.0.w": "a.safetensors", "layers.0.experts.1.w": "b.safetensors"}
	if !reflect.DeepEqual(index.Map, want) || index.Metadata["total_size"] != small.Size() {
		t.Errorf("%v, %d bytes, want %d", index.Map, index.Metadata["total_size"], small.Size())
	}
	if got := small.Tensors["layers.0.experts.1.w"].Shape; !slices.Equal(got, []int{3, 2}) {
		t.Errorf("expert 1 is %v, should be what 2 was", got)
	}
}

// TestFolderRefusals gives folders that cannot be cut; nothing is left.
func TestFolderRefusals(t *testing.T) {
	const numbers, p = `{"num_experts":4,"num_experts_per_tok":1}`, "model.layers.0.mlp."
	gate, stack := numbered(p+"gate.weight", 4, 2), numbered(p+"experts.up", 4, 2)
	drop := overlay(map[int]moe.OverlayLayer{0: {Drop: []int{1}}})
	for name, c := range map[string]struct {
		config string
		w      []store.NewTensor
		o      moe.Overlay
		says   string
	}{
		"no router":      {numbers, []store.NewTensor{stack}, drop, "no router is known"},
		"router":         {numbers, []store.NewTensor{numbered(p+"gate.weight", 3, 2), stack}, drop, "for 4 experts"},
		"other stack":    {numbers, []store.NewTensor{gate, stack, numbered(p+"experts.down", 3, 2)}, drop, "[3 2] for 4 experts"},
		"other bias":     {numbers, []store.NewTensor{gate, stack, numbered(p+"gate.bias", 3)}, drop, "[3] for 4 experts"},
		"unknown":        {numbers, []store.NewTensor{gate, stack, numbered(p+"gains", 4)}, drop, "not known whether"},
		"two places":     {numbers, []store.NewTensor{gate, stack, numbered("model.layers.0.moe.experts.up", 4, 2)}, drop, "other experts under"},
		"too high":       {numbers, []store.NewTensor{gate, stack, numbered("model.layers.9999.mlp.experts.up", 4, 2)}, drop, "layer 9999"},
		"expert 01":      {numbers, []store.NewTensor{gate, numbered(p+"experts.01.up", 4, 2)}, drop, "expert 01"},
		"no count":       {`{"num_experts_per_tok":1}`, []store.NewTensor{gate, stack}, drop, "no number of experts, "},
		"no k":           {`{"num_experts":4}`, []store.NewTensor{gate, stack}, drop, "no number of experts a token"},
		"k of 0":         {`{"num_experts":4,"num_experts_per_tok":0}`, []store.NewTensor{gate, stack}, drop, "num_experts_per_tok is 0"},
		"k is text":      {`{"num_experts":4,"num_experts_per_tok":"x"}`, []store.NewTensor{gate, stack}, drop, `num_experts_per_tok is "x"`},
		"count twice":    {`{"num_experts":4,"num_experts":4,"num_experts_per_tok":1}`, []store.NewTensor{gate, stack}, drop, "appears twice"},
		"ids":            {`{"num_experts_per_tok":1,"winnow_moe":{"expert_ids":{"0":[1]}}}`, []store.NewTensor{gate, stack}, drop, "numbers of 1"},
		"list":           {`[]`, []store.NewTensor{gate, stack}, drop, "no JSON object"},
		"null":           {`null`, []store.NewTensor{gate, stack}, drop, "no JSON object"},
		"unequal groups": {`{"num_experts":4,"num_experts_per_tok":1,"n_group":2,"topk_group":1}`, []store.NewTensor{gate, stack}, drop, "groups are left"},
		"odd groups":     {`{"num_experts":4,"num_experts_per_tok":1,"n_group":3}`, []store.NewTensor{gate, stack}, drop, "in 3 groups"},
		"layer":          {numbers, []store.NewTensor{gate, stack}, overlay(map[int]moe.OverlayLayer{1: {Drop: []int{1}}}), "layer 1: has no experts"},
	} {
		root := t.TempDir()
		err := compress.Apply(t.Context(), opened(t, folderWith(t, c.config, store.NewSafetensors{Tensors: c.w}, map[string]string{})), c.o, compress.Writing{Out: filepath.Join(root, "small")})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
	root := t.TempDir()
	if err := compress.Apply(t.Context(), opened(t, fixture), overlay(nil), compress.Writing{Out: root}); !errors.Is(err, store.ErrExists) {
		t.Errorf("over a folder: %v", err)
	}
	ragged := overlay(map[int]moe.OverlayLayer{1: {Drop: []int{3}}})
	if err := compress.Apply(t.Context(), opened(t, fixture), ragged, compress.Writing{Out: filepath.Join(root, "x"), For: compress.Anyone}); !errors.Is(err, compress.ErrInterop) {
		t.Errorf("ragged: %v", err)
	}
}

// TestFullDisk runs out of space at every step in turn, for a file and for a folder; nothing is left behind, and with space both are written.
func TestFullDisk(t *testing.T) {
	root := t.TempDir()
	const page, pages = 4096, 160
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", pages*page), "tmpfs", root).CombinedOutput(); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v, %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", root).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v, %s", root, err, out)
		}
	})
	m := inventedOf(5, 2).with("blk.0.ffn_up_exps.weight", 5, 20, 100)
	o := overlay(map[int]moe.OverlayLayer{0: {Drop: []int{1}}})
	for name, c := range map[string]*store.Checkpoint{"file": m.open(t), "folder": opened(t, fixture)} {
		filler, failed := filepath.Join(root, "filler"), 0
		for free := range pages {
			if err := os.WriteFile(filler, make([]byte, (pages-free)*page), 0o644); err != nil {
				t.Fatal(err)
			}
			err := compress.Apply(t.Context(), c, o, compress.Writing{Out: filepath.Join(root, name)})
			if err == nil {
				break
			}
			failed++
			left, lerr := os.ReadDir(root)
			if lerr != nil || len(left) != 1 || !strings.Contains(err.Error(), "no space left on device") {
				t.Fatalf("%s: %d pages free: %v, left %v, %v", name, free, err, left, lerr)
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
		}
		if failed < 5 || failed == pages {
			t.Errorf("%s: failed %d times of %d", name, failed, pages)
		}
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
		if err := errors.Join(os.RemoveAll(filepath.Join(root, name)), os.RemoveAll(filler)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestContainersAgree cuts one model as a folder and as a GGUF file: both give the same bits.
func TestContainersAgree(t *testing.T) {
	const whole = "../../shared/models/demo-moe"
	if _, err := os.Stat(whole); err != nil {
		t.Skip("no ../shared/models: ", err)
	}
	o := pruned()
	folder := apply(t, opened(t, whole), o, compress.Writing{For: compress.Anyone})
	file := apply(t, opened(t, whole+"/model.gguf"), o, compress.Writing{For: compress.Anyone})
	if folder.Kind == file.Kind {
		t.Fatalf("both are %v", file.Kind)
	}
	if !slices.Equal(logits(t, folder, tensor.Reference()), logits(t, file, tensor.Reference())) {
		t.Error("logits differ")
	}
}
