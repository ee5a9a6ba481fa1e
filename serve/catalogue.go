package serve

import (
	"fmt"
	"time"

	"github.com/ollama/ollama/types/model"

	"github.com/winnow-llm/winnow/store"
)

// Source is a model that a pool can load.
type Source struct {
	Name      string
	Created   time.Time // of its files
	Size      int64     // bytes of its files; 0 = not known
	Digest    string    // "sha256:" and 64 hex of its manifest; "" = none
	Weights   string    // what its weights are known by: sources with the same share one loaded model; "" = its name and digest
	Modelfile store.Modelfile
	Open      func() (*Model, error) // loads the weights; called once at a time
	Memory    func() (int64, error)  // about how many bytes Open will take; nil = Size
	Sharing   Sharing                // with sources of other weights
}

// Sharing says that models hold weights together, as those of one mapping do under several overlays.
type Sharing struct {
	Mapping string // what they are weights of; sources that have the same share; "" = with nobody
	Whole   int64  // bytes of all its weights in memory, which is the most that its models hold together
	Part    int64  // about how many of them the source's model holds
}

// key is what the weights are known by.
func (s *Source) key() string {
	if s.Weights == "" {
		return s.Name + " " + s.Digest
	}
	return s.Weights
}

// SameName says whether two names mean one model: they differ neither by case nor by the default tag, namespace and host.
func SameName(a, b string) bool {
	n := model.ParseName(a)
	return a == b || n.IsValid() && n.EqualFold(model.ParseName(b))
}

// Catalogue is where a pool's models come from. Its methods may be called from any goroutine.
type Catalogue interface {
	Find(name string) (Source, error) // ErrNoModel: none has the name; "" is the default
	List() ([]Source, error)          // all, the default first
}

// Sources is a catalogue that does not change. The first is the default.
type Sources []Source

// Find implements Catalogue.
func (s Sources) Find(name string) (Source, error) {
	for _, one := range s {
		if one.Name == name || name == "" {
			return one, nil
		}
	}
	for _, one := range s {
		if SameName(one.Name, name) {
			return one, nil
		}
	}
	return Source{}, fmt.Errorf("%w: %.200q", ErrNoModel, name)
}

// List implements Catalogue.
func (s Sources) List() ([]Source, error) { return s, nil }
