package attention

import "github.com/winnow-llm/winnow/tensor"

// Region is where a buffer has its part of every page: of page p the bytes from Off + p*Stride on.
type Region struct {
	Buf    tensor.Buffer
	Off    int // bytes
	Stride int // bytes from a page's part to the next one's
	Bytes  int // of a part
}

// Regions are those of a layer's keys and of its values: of full pages, where these are pruned.
func (c *Cache) Regions() []Region {
	if p := c.Pruned; p != nil {
		size := c.Heads * prunedTile(c.Dim, p.Keep)
		return []Region{{p.K.Buf, p.K.Off, p.Stride, size}, {p.V.Buf, p.V.Off, p.Stride, size}}
	}
	size, stride := c.Format.RowBytes(c.Heads*c.Dim*PageTokens), c.Format.RowBytes(c.Stride)
	return []Region{{c.K.Buf, c.K.Off, stride, size}, {c.V.Buf, c.V.Off, stride, size}}
}

// Sidecar is what a selector keeps beside the pages of a layer. It follows from the page's keys, their positions and the selector's weights, so
// it can be kept elsewhere and be brought back together with its page.
type Sidecar struct {
	Mat  tensor.Mat   // pages*Rows x cols
	Rows int          // of a page
	By   []tensor.Mat // weights that it depends on, in the device's memory as in their formats; absent ones do not count
}

// Region is where the sidecar lies.
func (s *Sidecar) Region() Region {
	size := s.Rows * s.Mat.Format.RowBytes(s.Mat.Cols)
	return Region{s.Mat.Buf, s.Mat.Off, size, size}
}
