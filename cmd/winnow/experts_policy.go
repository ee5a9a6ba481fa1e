package main

import (
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/serve"
)

// expertPolicy is what a configuration decides about experts of requests.
func expertPolicy(c *configs.Config) (p serve.ExpertPolicy, err error) {
	if p.Default, err = model.ParseExperts(c.Moe); err != nil {
		return p, fmt.Errorf("%w: moe: %w", configs.ErrConfig, err)
	}
	if strings.TrimSpace(c.MoeLimit) != "" {
		limit, err := model.ParseExperts(c.MoeLimit)
		if err != nil {
			return p, fmt.Errorf("%w: moe_limit: %w", configs.ErrConfig, err)
		}
		if len(limit.TopK) > 1 {
			return p, fmt.Errorf("%w: moe_limit: top_k has %d numbers, want one", configs.ErrConfig, len(limit.TopK))
		}
		p.Limit = &limit
	}
	p.Closed, p.Secret = !c.MoeRequests, !c.MoeReturnIDs
	return p, nil
}
