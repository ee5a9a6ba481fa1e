package main

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
)

// packed is the folder of packed weights that the configuration names; none where the system has no place for caches.
func packed(cfg *configs.Config) cpu.Packed {
	p := cpu.Packed{Dir: cfg.PackedCache, Limit: int64(cfg.PackedCacheBytes)}
	switch p.Dir {
	case configs.Off:
		p.Dir = ""
	case configs.Auto:
		p.Dir = ""
		if dir, err := os.UserCacheDir(); err == nil {
			p.Dir = filepath.Join(dir, "winnow", "packed")
		}
	}
	return p
}

// packedBy is what decides which of a checkpoint's weights are packed, and as how many matrices.
type packedBy struct {
	Overlay *model.Overlay
	Apart   bool
}

// packing tells the device that a checkpoint is about to be loaded, which stays mapped until done is called.
func (m *machine) packing(name string, c *store.Checkpoint, by packedBy) (done func()) {
	if packed(&m.config).Dir == "" || len(c.Mapped()) == 0 || m.config.DType == string(model.Float32) {
		return func() {}
	}
	identity, err := c.Identity()
	how, jsonErr := json.Marshal(by)
	if err = cmp.Or(err, jsonErr); err != nil {
		m.log.Warn("packed weights are not used", "model", name, "error", err)
		return func() {}
	}
	return cpu.Loading(m.plain, cpu.Files{Name: name, Key: identity + string(how), Mapped: c.Mapped()})
}
