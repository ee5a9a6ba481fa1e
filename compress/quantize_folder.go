package compress

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

const quantizationField = "quantization_config"

// folderGroup is how many values share a scale.
const folderGroup = 32

// kept names matrices that stay as they are where one format is asked for: what tokens are looked up in, what logits come from, and routers.
var kept = regexp.MustCompile(`embed|(^|\.)lm_head\.|norm|\.(gate|router|wg)\.weight$`)

// packing is a folder as far as it is written.
type packing struct {
	*folder
	q      *Quantization
	groups map[*quant.Format]map[string]bool // by Q4_0 and Q8_0: the targets that name what is packed
	ignore map[string]bool                   // targets that name what is not
	out    Quantized
}

// quantizeFolder writes a Hugging Face folder whose matrices are packed in 4 or 8 bits, each expert in its own number of bits, as compressed-tensors
// does, so that programs that know it can read it: see quant.Packed for the layout and store for what is said in config.json. Q4_0 stands for 4
// bits, Q8_0 for 8, both in groups of 32 around zero; F32, F16 and BF16 leave a matrix as plain floats. Weights that a policy does not name are
// copied.
//
// Programs that join the experts of a layer as they load them may take all experts of a layer, or of the model, for equally wide: transformers 5 and
// vLLM do. For them experts must have one format.
//
// Scales are BF16 where a matrix was, else F16, and are numbers that both have, so that all readers compute with the same weights.
//
// ErrWritable: another format is asked for. moe.ErrOverlay: the policy does not fit the model. store.ErrUnsupported: the model is quantised
// already, or a matrix is none that can be packed.
func quantizeFolder(ctx context.Context, c *store.Checkpoint, path string, q Quantization) (Quantized, error) {
	f, layers, err := readFolder(c)
	if err != nil {
		return Quantized{}, err
	}
	p := &packing{folder: f, q: &q, groups: map[*quant.Format]map[string]bool{quant.Q4_0: {}, quant.Q8_0: {}}, ignore: map[string]bool{}}
	p.out.Replaced = map[string]int{}
	if err := p.check(layers); err != nil {
		return Quantized{}, err
	}
	err = newFolder(path, func(dir string) error {
		see := func(s store.Progress) {
			if q.See != nil {
				q.See(s.Completed, s.Total)
			}
		}
		where, err := f.write(ctx, dir, p.tensor, see)
		if err != nil {
			return err
		}
		p.out.Bytes = where.size
		made, err := p.describe(dir, where)
		if err != nil {
			return err
		}
		return f.others(ctx, dir, made)
	})
	return p.out, err
}

// check refuses what a folder cannot be or the model does not have.
func (p *packing) check(layers map[int]*expertLayer) error {
	switch {
	case p.config.fields[quantizationField] != nil:
		return badConfig("%s: it is quantised already", quantizationField)
	case p.q.As != nil:
		return fmt.Errorf("%w: formats are measured as plain floats in a GGUF", ErrWritable)
	case p.q.Replace:
		return fmt.Errorf("%w: a folder that is there is not replaced", ErrWritable)
	case p.q.To != nil:
		_, err := packable(p.q.To.Name)
		return err
	}
	o := p.q.Policy
	for layer := range o.Layers {
		return fmt.Errorf("%w: layer %d: experts are dropped and merged before their formats change", moe.ErrOverlay, layer)
	}
	if err := checkFormats(o, packable); err != nil {
		return err
	}
	for layer, b := range o.Bits {
		if layers[layer] == nil {
			return fmt.Errorf("%w: bits of layer %d, which has no experts", moe.ErrOverlay, layer)
		}
		for e := range b.Over {
			if n := len(layers[layer].place); e < 0 || e >= n {
				return fmt.Errorf("%w: bits of layer %d: expert %d is none of %d", moe.ErrOverlay, layer, e, n)
			}
		}
	}
	for name := range o.Tensors {
		if t, err := p.c.Tensor(name); err != nil {
			return fmt.Errorf("%w: %w", moe.ErrOverlay, err)
		} else if !isMatrix(t) || expertTensors.MatchString(name) {
			return fmt.Errorf("%w: %.100q is not quantised by its name", moe.ErrOverlay, name)
		}
	}
	return nil
}

// packable finds a format that a folder can hold.
func packable(name string) (*quant.Format, error) {
	for _, f := range []*quant.Format{quant.Q4_0, quant.Q8_0, quant.F32, quant.F16, quant.BF16} {
		if f.Name == name {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%w: %.40q in a folder of safetensors, which holds Q4_0 and Q8_0 and the plain F32, F16 and BF16", ErrWritable, name)
}

// isMatrix says whether a tensor is one of plain floats that multiplies.
func isMatrix(t store.Tensor) bool {
	return len(t.Shape) == 2 && t.Format.Decode != nil && t.Format.Block == 1 && strings.HasSuffix(t.Name, ".weight") && !strings.Contains(t.Name, "norm")
}

// wanted is the format that a tensor gets, and the target by which config.json names it.
func (p *packing) wanted(t store.Tensor) (to *quant.Format, target string, err error) {
	target = strings.TrimSuffix(t.Name, ".weight")
	m := expertTensors.FindStringSubmatch(t.Name)
	if m != nil && p.q.Policy != nil {
		layer, err := strconv.Atoi(m[2])
		if err != nil {
			panic("winnow: bug: compress: four digits are no number")
		}
		bits, given := p.q.Policy.Bits[layer]
		if !given {
			return t.Format, target, nil
		}
		single := singleTensors.FindStringSubmatch(m[3])
		if single == nil || !isMatrix(t) {
			return nil, "", unfit(p.c, t.Name, "%s %v: experts are packed where each has matrices of plain floats of its own", t.Format, t.Shape)
		}
		e, err := strconv.Atoi(single[1])
		if err != nil {
			panic("winnow: bug: compress: four digits are no number")
		}
		name := bits.Default
		if over, ok := bits.Over[e]; ok {
			name = over
		}
		to, err = packable(name)
		return to, target, err
	}
	switch {
	case !isMatrix(t):
		return t.Format, target, nil
	case p.q.Policy == nil && kept.MatchString(t.Name):
		return t.Format, target, nil
	case p.q.Policy == nil:
		return p.q.To, target, nil
	}
	if name, ok := p.q.Policy.Tensors[t.Name]; ok {
		to, err = packable(name)
		return to, target, err
	}
	return t.Format, target, nil
}

// tensor is what becomes of a tensor of the folder.
func (p *packing) tensor(t store.Tensor) ([]store.NewTensor, error) {
	to, target, err := p.wanted(t)
	if err != nil {
		return nil, err
	}
	if to.Block == 1 {
		if isMatrix(t) {
			p.ignore[target] = true
		}
		if to == t.Format {
			return []store.NewTensor{cutter{p.c}.copied(t)}, nil
		}
		w := &quantizing{c: p.c, q: Quantization{Threads: p.q.Threads}}
		w.add(t.Name, t.Shape, []store.Tensor{t}, to)
		return w.tensors, nil
	}
	rows, cols := t.Shape[0], t.Shape[1]
	if rows == 0 || cols == 0 || cols%folderGroup != 0 {
		return nil, unfit(p.c, t.Name, "rows of %d values are no whole number of groups of %d for %s", cols, folderGroup, to)
	}
	p.groups[to][target] = true
	how := quant.Packed{Bits: 4, Group: folderGroup, Scale: quant.F16}
	if to == quant.Q8_0 {
		how.Bits = 8
	}
	if t.Format == quant.BF16 {
		how.Scale = quant.BF16
	}
	shape := binary.LittleEndian.AppendUint64(nil, uint64(rows))
	shape = binary.LittleEndian.AppendUint64(shape, uint64(cols))
	m := &packedMatrix{t: t, how: how, threads: p.q.Threads}
	return []store.NewTensor{
		{Name: target + ".weight_packed", Format: quant.I32, Shape: []int{rows, how.Words(cols)}, Pieces: func(yield func([]byte) bool) {
			m.make()
			yield(m.codes)
			m.codes = nil
			p.c.Release(t.Data)
		}},
		{Name: target + ".weight_scale", Format: how.Scale, Shape: []int{rows, cols / folderGroup}, Pieces: func(yield func([]byte) bool) {
			yield(m.scales)
			m.scales = nil
		}},
		{Name: target + ".weight_shape", Format: quant.I64, Shape: []int{2}, Pieces: one(shape)},
	}, nil
}

// packedMatrix is a matrix that is packed when its codes are written, just before its scales.
type packedMatrix struct {
	t             store.Tensor
	how           quant.Packed
	threads       int
	codes, scales []byte
}

func (m *packedMatrix) make() {
	rows, cols := m.t.Shape[0], m.t.Shape[1]
	from, words, groups := m.t.Format.RowBytes(cols), 4*m.how.Words(cols), m.how.Scale.RowBytes(cols/folderGroup)
	m.codes, m.scales = make([]byte, rows*words), make([]byte, rows*groups)
	var group sync.WaitGroup
	for i := range m.threads {
		group.Go(func() {
			row := make([]float32, cols)
			for r := i; r < rows; r += m.threads {
				m.t.Format.Decode(row, m.t.Data[r*from:(r+1)*from])
				m.how.Encode(m.codes[r*words:(r+1)*words], m.scales[r*groups:(r+1)*groups], row)
			}
		})
	}
	group.Wait()
}

// describe writes what says how matrices are packed; made are the names of files that need not be copied.
func (p *packing) describe(dir string, where whereabouts) (made map[string]bool, err error) {
	made = map[string]bool{"config.json": true, indexFile: true}
	groups := map[string]any{}
	for i, f := range []*quant.Format{quant.Q4_0, quant.Q8_0} {
		targets := p.targets(p.groups[f])
		if p.q.To == f {
			targets = []string{"Linear"} // all but what is ignored
		}
		if len(targets) > 0 {
			groups["group_"+strconv.Itoa(i)] = map[string]any{"targets": targets, "weights": map[string]any{
				"num_bits": 4 * (i + 1), "type": "int", "symmetric": true, "strategy": "group", "group_size": folderGroup, "dynamic": false,
			}}
		}
	}
	config := p.config.raw
	if len(groups) > 0 {
		config, err = setField(config, quantizationField, map[string]any{
			"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "config_groups": groups,
			"ignore": p.targets(p.ignore),
		})
		if err != nil {
			return nil, err
		}
	}
	if err := writeFile(filepath.Join(dir, "config.json"), config); err != nil {
		return nil, err
	}
	if len(p.c.Parts) == 1 && filepath.Base(p.c.Parts[0].File) == "model.safetensors" {
		return made, nil
	}
	return made, writeFile(filepath.Join(dir, indexFile), where.index())
}

// targets names modules: those of experts by an expression for each layer, which is much less than each by its name.
func (p *packing) targets(modules map[string]bool) []string {
	experts := map[string]map[int]bool{} // by what names begin with, and the matrix
	out := []string{}
	for module := range modules {
		m := expertTensors.FindStringSubmatch(module)
		if m == nil {
			out = append(out, module)
			continue
		}
		number, matrix, _ := strings.Cut(m[3], ".")
		e, err := strconv.Atoi(number)
		if err != nil {
			out = append(out, module)
			continue
		}
		key := m[1] + "\n" + matrix
		if experts[key] == nil {
			experts[key] = map[int]bool{}
		}
		experts[key][e] = true
	}
	same := map[string][]string{} // matrices of the same experts
	for key, of := range experts {
		prefix, matrix, _ := strings.Cut(key, "\n")
		numbers := strings.Join(strings.Fields(strings.Trim(fmt.Sprint(slices.Sorted(maps.Keys(of))), "[]")), "|")
		head := "re:^" + regexp.QuoteMeta(prefix) + `experts\.(` + numbers + `)\.`
		same[head] = append(same[head], regexp.QuoteMeta(matrix))
	}
	for head, matrices := range same {
		slices.Sort(matrices)
		out = append(out, head+"("+strings.Join(matrices, "|")+")$")
	}
	slices.Sort(out)
	return out
}
