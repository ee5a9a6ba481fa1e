package compress

import (
	"context"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
)

func applyFolder(ctx context.Context, c *store.Checkpoint, o *moe.Overlay, w *Writing) error {
	return nil
}
