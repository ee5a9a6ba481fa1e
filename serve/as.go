package serve

// as is the model under a source's name: the same engine and weights, with the source's own template, parameters and messages.
func (m *Model) as(s *Source) (*Model, error) {
	if m.name == s.Name {
		return m, nil
	}
	other := *m
	other.name = s.Name
	return &other, nil
}
