//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"fmt"

	"github.com/winnow-llm/winnow/attention"
)

func fillSelectAnchor(e *entry, o *attention.SelectAnchor) {
	e.runs(e.kernels.select_anchor)
	e.tiles(o.Layout, o.Plan, o.Serves, o.Theta)
	e.scored(o.Cache, o.Layout, o.Lane, o.Q)
	e.numbers(o.Block, o.Group, o.Single, max(o.Block, attention.PageTokens))
	e.floats(o.Scale)
	if o.Q.Cols != o.Plan.Groups*o.Cache.Dim {
		panic(fmt.Sprintf("winnow: bug: cpu: queries %s for %d heads of %d", o.Q, o.Plan.Groups, o.Cache.Dim))
	}
}
