package compress

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
)

// folderUnits finds the units of a Hugging Face folder, by layer, kind and expert; their names are the folder's.
func folderUnits(c *store.Checkpoint, p *Profile) (units []Unit, err error) {
	spec, err := model.Describe(c)
	if err != nil {
		return nil, err
	}
	for i := range spec.Layers {
		for _, part := range []string{"q", "k", "v", "output"} {
			u := Unit{Kind: Attention, Layer: i, Expert: -1, Weight: 1}
			if err := u.take(c, fmt.Sprintf("blk.%d.attn_%s.weight", i, part)); err != nil {
				return nil, err
			}
			units = append(units, u)
		}
		more, err := folderNetworks(c, p, &spec, i)
		if err != nil {
			return nil, err
		}
		units = append(units, more...)
	}
	slices.SortStableFunc(units, func(a, b Unit) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), strings.Compare(string(a.Kind), string(b.Kind)), cmp.Compare(a.Expert, b.Expert))
	})
	return units, nil
}

// folderNetworks are the units of a layer's network, or of its experts.
func folderNetworks(c *store.Checkpoint, p *Profile, spec *model.Spec, layer int) ([]Unit, error) {
	r := spec.Layers[layer].Router
	if r == nil {
		u := Unit{Kind: Dense, Layer: layer, Expert: -1, Weight: 1}
		for _, part := range parts {
			if err := u.take(c, fmt.Sprintf("blk.%d.ffn_%s.weight", layer, part)); err != nil {
				return nil, err
			}
		}
		return []Unit{u}, nil
	}
	units, err := p.each(Unit{Kind: Expert, Layer: layer, Weight: 1}, r.Experts)
	if err != nil {
		return nil, err
	}
	for e := range units {
		for _, part := range parts {
			if err := units[e].take(c, fmt.Sprintf("blk.%d.ffn_%s_exps.weight.%d", layer, part, e)); err != nil {
				return nil, err
			}
		}
	}
	return units, nil
}

// take adds a matrix, which has the name in a GGUF, to a unit.
func (u *Unit) take(c *store.Checkpoint, name string) error {
	t, err := model.Tensor(c, name)
	if err != nil {
		return err
	}
	if c.Packed(t.Name) || !isMatrix(t) {
		return unfit(c, t.Name, "%s %v: formats are chosen for matrices of plain floats", t.Format, t.Shape)
	}
	u.Names, u.Values = append(u.Names, t.Name), u.Values+int64(numbers(t))
	return nil
}
