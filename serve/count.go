package serve

// Count is how many tokens the prompt of a conversation has. The error is a *RequestError.
func (m *Model) Count(r ChatRequest) (int, error) {
	spans, err := m.render(Conversation(r.Messages), r.TemplateArgs)
	if err != nil {
		return 0, err
	}
	return len(m.begin(m.tok.Encode(nil, spans...))), nil
}
