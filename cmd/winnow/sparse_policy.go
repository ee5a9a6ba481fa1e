package main

import (
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
)

// sparsePolicy is what a configuration decides about the keys that requests read.
func sparsePolicy(c *configs.Config) (p serve.SparsePolicy, err error) {
	if p.Auto = strings.TrimSpace(c.Sparse) == configs.Auto; !p.Auto {
		if p.Default, err = model.ParseSparsity(c.Sparse); err != nil {
			return p, fmt.Errorf("%w: sparse: %w", configs.ErrConfig, err)
		}
	}
	for _, file := range c.SparseProfiles {
		profile, err := model.ReadSparseProfile(file)
		if err != nil {
			return p, err
		}
		p.Profiles = append(p.Profiles, profile)
	}
	for _, file := range c.DuoHeads {
		heads, err := model.ReadHeads(file)
		if err != nil {
			return p, err
		}
		p.Heads = append(p.Heads, heads)
	}
	p.Gates = c.Gates
	if strings.TrimSpace(c.SparseLimit) != "" {
		limit, err := model.ParseLimit(c.SparseLimit)
		if err != nil {
			return p, fmt.Errorf("%w: sparse_limit: %w", configs.ErrConfig, err)
		}
		p.Limit = &limit
	}
	p.Closed = !c.SparseRequests
	return p, nil
}

// spoken is how a model's tokens read, as --sparse has it; "" = all keys.
func spoken(c *configs.Config, x model.Sparsity) string {
	if strings.TrimSpace(c.Sparse) == configs.Auto {
		return x.String()
	}
	return c.Sparse
}
