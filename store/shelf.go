package store

import "sync"

// Shelf is checkpoints that are open, so that who opens one while somebody else has it gets the same mapping. The zero Shelf is empty. Its
// methods may be called from any goroutine.
type Shelf struct {
	mu   sync.Mutex
	open map[string]*held // by path
}

// held is a checkpoint with its handles.
type held struct {
	whole   *Checkpoint
	handles int
}

// Open gives a handle on what is open under a path, or on what open makes of the path. Its bytes are valid until it is closed; the mapping
// is given back with the last handle.
func (s *Shelf) Open(path string, open func(path string) (*Checkpoint, error)) (*Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.open[path]
	if h == nil {
		c, err := open(path)
		if err != nil {
			return nil, err
		}
		if h = (&held{whole: c}); s.open == nil {
			s.open = map[string]*held{}
		}
		s.open[path] = h
	}
	h.handles++
	c := *h.whole
	c.unmap = []func() error{sync.OnceValue(func() error { return s.close(path, h) })}
	return &c, nil
}

// close takes a handle back.
func (s *Shelf) close(path string, h *held) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.handles--; h.handles > 0 {
		return nil
	}
	delete(s.open, path)
	return h.whole.Close()
}
