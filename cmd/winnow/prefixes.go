package main

import "github.com/winnow-llm/winnow/store"

// keepPrefixes opens the folder that keeps what models computed of prompts, if one is named, and says what is there.
func (m *machine) keepPrefixes() (err error) {
	c := &m.config
	if c.PrefixCache == "" {
		return nil
	}
	if m.pages, err = store.OpenPrefixes(c.PrefixCache, int64(c.PrefixCacheBytes), func(line string) { m.log.Warn(line) }); err != nil {
		return err
	}
	n := m.pages.Counts()
	m.log.Info("prefix cache", "folder", c.PrefixCache, "pages", n.Pages, "size", size(n.Bytes), "limit", size(int64(c.PrefixCacheBytes)))
	return nil
}
