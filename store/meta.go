package store

import (
	"fmt"
	"math"
)

// Meta is the metadata of a GGUF file: values by full key, such as "llama.block_count".
//
// A value has the Go type of its stored type: uint8 ... int64, float32, float64, bool, string, or a slice of one of
// these. The getters know no file: whoever reports their *KeyError adds its path.
type Meta map[string]any

// KeyError says that a key holds something else than what it is read as.
type KeyError struct {
	Key  string
	Want string // "an integer", "strings" ...
	Have any    // the stored value
}

func (e *KeyError) Error() string {
	if s, ok := e.Have.(uint64); ok && s > math.MaxInt64 {
		return fmt.Sprintf("key %q: %d exceeds int64: %v", e.Key, s, ErrFormat)
	}
	return fmt.Sprintf("key %q: should hold %s, has %T: %v", e.Key, e.Want, e.Have, ErrFormat)
}

func (e *KeyError) Unwrap() error { return ErrFormat }

// Has says whether the key is there, with any type.
func (m Meta) Has(key string) bool { _, ok := m[key]; return ok }

// Int reads an integer of any stored width; def when the key is absent.
func (m Meta) Int(key string, def int64) (int64, error) {
	v, ok := m[key]
	if !ok {
		return def, nil
	}
	if n, ok := integer(v); ok {
		return n, nil
	}
	return 0, &KeyError{key, "an integer", v}
}

// Float reads a float of either width; def when the key is absent.
func (m Meta) Float(key string, def float64) (float64, error) {
	switch v := m[key].(type) {
	case nil:
		return def, nil
	case float32:
		return float64(v), nil
	case float64:
		return v, nil
	default:
		return 0, &KeyError{key, "a float", v}
	}
}

// String reads a string; def when the key is absent. Values, unlike keys, need not be UTF-8.
func (m Meta) String(key, def string) (string, error) {
	v, ok, err := read[string](m, key, "a string")
	if !ok {
		return def, err
	}
	return v, err
}

// Bool reads a bool; absent is false.
func (m Meta) Bool(key string) (bool, error) {
	v, _, err := read[bool](m, key, "a bool")
	return v, err
}

// Strings reads an array of strings; nil when the key is absent. The slice is the stored one: not to be written.
func (m Meta) Strings(key string) ([]string, error) {
	v, _, err := read[[]string](m, key, "strings")
	return v, err
}

// Floats reads an array of float32, as it is stored; nil when the key is absent. Not to be written.
func (m Meta) Floats(key string) ([]float32, error) {
	v, _, err := read[[]float32](m, key, "float32 values")
	return v, err
}

// Ints reads an array of integers of any width; nil when the key is absent. A single integer is an array of one: keys
// such as head_count_kv hold either.
func (m Meta) Ints(key string) ([]int64, error) {
	switch v := m[key].(type) {
	case nil:
		return nil, nil
	case []uint8:
		return widen(v), nil
	case []int8:
		return widen(v), nil
	case []uint16:
		return widen(v), nil
	case []int16:
		return widen(v), nil
	case []uint32:
		return widen(v), nil
	case []int32:
		return widen(v), nil
	case []int64:
		return widen(v), nil
	case []uint64:
		for _, n := range v {
			if n > math.MaxInt64 {
				return nil, &KeyError{key, "integers", n}
			}
		}
		return widen(v), nil
	default:
		if n, ok := integer(v); ok {
			return []int64{n}, nil
		}
		return nil, &KeyError{key, "integers", v}
	}
}

// read gives a key's value as the one type it may have; false when the key is absent or has another.
func read[T any](m Meta, key, want string) (v T, ok bool, err error) {
	have, ok := m[key]
	if !ok {
		return v, false, nil
	}
	if v, ok = have.(T); !ok {
		return v, false, &KeyError{key, want, have}
	}
	return v, true, nil
}

func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case uint8:
		return int64(v), true
	case int8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case int16:
		return int64(v), true
	case uint32:
		return int64(v), true
	case int32:
		return int64(v), true
	case int64:
		return v, true
	case uint64:
		return int64(v), v <= math.MaxInt64
	}
	return 0, false
}

func widen[T uint8 | int8 | uint16 | int16 | uint32 | int32 | uint64 | int64](in []T) []int64 {
	out := make([]int64, len(in))
	for i, v := range in {
		out[i] = int64(v)
	}
	return out
}
