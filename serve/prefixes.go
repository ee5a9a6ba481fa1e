package serve

import "github.com/winnow-llm/winnow/store"

// Prefixes is what is kept of prompts beside the models; nothing where nothing is kept.
func (p *Pool) Prefixes() store.PrefixCounts {
	if p.opt.Prefixes == nil {
		return store.PrefixCounts{}
	}
	return p.opt.Prefixes.Counts()
}
