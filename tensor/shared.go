package tensor

import (
	"sync"
	"unsafe"
)

// Shared is d, with weights that several models of one mapped checkpoint load held once: whoever loads the same bytes of the mapping again
// gets the weight that is there, and it is freed when all have freed it. Only host matrices over NewMapped count; others are loaded each
// time. What d uses where it is mapped needs no sharing and is passed on.
func Shared(d Device) Device {
	return &shared{Device: d, weights: map[bytesAt]*weight{}, holders: map[Buffer]*weight{}}
}

// bytesAt is what a weight is known by. The mapping lasts as long as the model that has loaded it, so no others can lie there.
type bytesAt struct {
	at         uintptr
	rows, cols int
	format     string
}

// weight is one that is loaded.
type weight struct {
	key   bytesAt
	mat   Mat
	count int // who has loaded it and not freed it
}

type shared struct {
	Device

	mu      sync.Mutex // held while a weight is loaded, so that two models that start together share it too
	weights map[bytesAt]*weight
	holders map[Buffer]*weight
}

// Load gives the weight that is there, or loads it.
func (s *shared) Load(w Mat) (Mat, error) {
	m, ok := w.Buf.(*Memory)
	if !ok || !m.mapped || w.Bytes() == 0 {
		return s.Device.Load(w)
	}
	key := bytesAt{uintptr(unsafe.Pointer(&w.Raw()[0])), w.Rows, w.Cols, w.Format.Name}
	s.mu.Lock()
	defer s.mu.Unlock()
	if there := s.weights[key]; there != nil {
		there.count++
		return there.mat, nil
	}
	mat, err := s.Device.Load(w)
	if err != nil || mat.Buf == w.Buf {
		return mat, err
	}
	one := &weight{key, mat, 1}
	s.weights[key], s.holders[mat.Buf] = one, one
	return mat, nil
}

// Free gives memory back, of a weight with its last holder.
func (s *shared) Free(b Buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.holders[b]; one != nil {
		if one.count--; one.count > 0 {
			return
		}
		delete(s.weights, one.key)
		delete(s.holders, b)
	}
	s.Device.Free(b)
}
