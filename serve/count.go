package serve

import "context"

// Count is how many tokens the prompt of a conversation has. The error is a *RequestError, or wraps ErrNoTemplate.
func (m *Model) Count(ctx context.Context, r ChatRequest) (int, error) {
	ids, err := m.Prompt(ctx, r)
	return len(ids), err
}

// Prompt is a conversation as ids. The error is a *RequestError, or wraps ErrNoTemplate.
func (m *Model) Prompt(ctx context.Context, r ChatRequest) ([]int32, error) {
	ids, _, err := m.prompt(ctx, &r)
	return ids, err
}
