package model

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/winnow-llm/winnow/attention"
)

// regions are where the model has its parts of a page, layer by layer keys and values, then the sidecars of selectors. Parts that lie together
// are one.
func (m *Model) regions() (out []attention.Region) {
	var all []attention.Region
	for _, c := range m.caches {
		all = append(all, c.Regions()...)
	}
	if m.sparse != nil {
		for _, s := range m.sparse.selectors {
			for i := range s.Sidecars {
				all = append(all, s.Sidecars[i].Region())
			}
		}
	}
	for _, r := range all {
		if n := len(out); n > 0 && out[n-1].Buf == r.Buf && out[n-1].Stride == r.Stride && out[n-1].Off+out[n-1].Bytes == r.Off {
			out[n-1].Bytes += r.Bytes
			continue
		}
		out = append(out, r)
	}
	return out
}

// PageBytes is how many bytes a page has in all layers, with what selectors keep beside it.
func (m *Model) PageBytes() (n int) {
	for _, r := range m.regions() {
		n += r.Bytes
	}
	return n
}

// ReadPage copies a page's bytes to dst, which has PageBytes. The queue's Sync says whether they are there.
func (m *Model) ReadPage(page int32, dst []byte) {
	for _, r := range m.regions() {
		m.queue.Read(dst[:r.Bytes], r.Buf, r.Off+int(page)*r.Stride)
		dst = dst[r.Bytes:]
	}
}

// WritePage makes a page hold what ReadPage once copied.
func (m *Model) WritePage(page int32, src []byte) {
	for _, r := range m.regions() {
		m.queue.Write(r.Buf, r.Off+int(page)*r.Stride, src[:r.Bytes])
		src = src[r.Bytes:]
	}
}

// PageIdentity is 64 hex digits that tell apart models whose pages have other bytes for the same tokens, also from one run of a program to
// the next: by their weights, by what Fingerprint tells apart, by numbers, device and layout, and by the sidecars of selectors.
func (m *Model) PageIdentity() (string, error) {
	weights, err := m.loader.c.Identity()
	if err != nil {
		return "", fmt.Errorf("what model this is: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s on %s\n", weights, m.Fingerprint(), cmp.Or(m.opt.DType, Native), m.device.Name())
	for _, c := range m.caches {
		fmt.Fprintln(h, c.Heads, c.Dim, c.Format)
	}
	if m.sparse == nil {
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	for i, s := range m.sparse.selectors {
		if len(s.Sidecars) == 0 {
			continue
		}
		fmt.Fprintln(h, m.sparse.kinds[i].Name, m.opt.Sparse[i-1].Params)
		for _, c := range s.Sidecars {
			fmt.Fprintln(h, c.Rows, c.Mat.Cols, c.Mat.Format)
			for _, w := range c.By {
				if !w.Present() {
					continue
				}
				raw := make([]byte, w.Bytes())
				m.queue.Read(raw, w.Buf, w.Off)
				fmt.Fprintln(h, w.Rows, w.Cols, w.Format)
				h.Write(raw)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)), m.queue.Sync()
}
