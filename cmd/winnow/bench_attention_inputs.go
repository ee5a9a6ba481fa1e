package main

import (
	"errors"
	"fmt"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// load reads the first keys of a file or draws a world. Done gives the file back.
func (a *attentionBench) load(keys int) (in *attention.Inputs, done func() error, err error) {
	if a.inputs == "" {
		w := attention.World{Heads: a.heads, KV: a.kv, Dim: a.dim, Keys: keys, Alpha: float32(a.alpha), Seed: 1}
		return w.Draw(), func() error { return nil }, nil
	}
	c, err := store.OpenSafetensors(a.inputs)
	if err != nil {
		return nil, nil, err
	}
	if in, err = inputsOf(c); err == nil && in.Keys() < keys {
		err = fmt.Errorf("bench: %s has %d keys, %d are asked for", a.inputs, in.Keys(), keys)
	}
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	if in.Keys() > keys {
		in = in.First(keys)
	}
	return in, c.Close, nil
}

// inputsOf finds q, k and v in a file.
func inputsOf(c *store.Checkpoint) (*attention.Inputs, error) {
	in, shape := &attention.Inputs{}, [3][]int{}
	for i, m := range []struct {
		name string
		mat  *tensor.Mat
	}{{"q", &in.Q}, {"k", &in.K}, {"v", &in.V}} {
		t, err := c.Tensor(m.name)
		if err != nil {
			return nil, err
		}
		if len(t.Shape) != 3 || t.Format.Block != 1 || t.Format.Decode == nil {
			return nil, fmt.Errorf("bench: %s: %s is %s %d, not [heads, keys, dim] of floats", c.Path, m.name, t.Format, t.Shape)
		}
		shape[i] = t.Shape
		*m.mat = tensor.HostMat("", t.Format, t.Shape[0]*t.Shape[1], t.Shape[2], t.Data)
	}
	q, k, v := shape[0], shape[1], shape[2]
	if k[0] == 0 || q[0] == 0 || q[0]%k[0] != 0 || k[0] != v[0] || q[1] != k[1] || k[1] != v[1] || q[2] != k[2] || k[2] != v[2] {
		return nil, fmt.Errorf("bench: %s: q %d, k %d and v %d do not fit", c.Path, q, k, v)
	}
	in.Heads, in.KV = q[0], k[0]
	return in, nil
}
