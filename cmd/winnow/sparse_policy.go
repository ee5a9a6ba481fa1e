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
	if p.Default, err = model.ParseSparsity(c.Sparse); err != nil {
		return p, fmt.Errorf("%w: sparse: %w", configs.ErrConfig, err)
	}
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
