package compress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// Policy is what an allocation says, in the form of a file: the formats of experts by layer, of the other units by name of tensor.
func Policy(units []Unit, chosen []int, method string) *moe.Overlay {
	o := &moe.Overlay{Format: 1, Method: method, Bits: map[int]moe.OverlayBits{}, Tensors: map[string]string{}}
	uses := map[int]map[string]int{}
	for i := range units {
		u, format := &units[i], units[i].Choices[chosen[i]].Format
		if u.Kind != Expert {
			for _, name := range u.Names {
				o.Tensors[name] = format
			}
			continue
		}
		if uses[u.Layer] == nil {
			uses[u.Layer] = map[string]int{}
		}
		uses[u.Layer][format]++
		b := o.Bits[u.Layer]
		if n := uses[u.Layer]; n[format] > n[b.Default] || n[format] == n[b.Default] && format < b.Default {
			b.Default = format
		}
		o.Bits[u.Layer] = b
	}
	for i := range units {
		u, format := &units[i], units[i].Choices[chosen[i]].Format
		b := o.Bits[u.Layer]
		if u.Kind != Expert || format == b.Default {
			continue
		}
		if b.Over == nil {
			b.Over = map[int]string{}
		}
		b.Over[u.Expert] = format
		o.Bits[u.Layer] = b
	}
	return o
}

// WritePolicy writes a policy as a file of JSON with an end of line.
func WritePolicy(w io.Writer, o *moe.Overlay) error {
	raw, err := json.MarshalIndent(o, "", " ")
	if err == nil {
		_, err = w.Write(append(raw, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write policy: %w", err)
	}
	return nil
}

// ReadPolicy reads a policy and checks what can be without the model: that it is of a known form and Winnow can write and read its formats.
// Every refusal wraps moe.ErrOverlay.
func ReadPolicy(r io.Reader) (*moe.Overlay, error) {
	raw, err := io.ReadAll(io.LimitReader(r, moe.MostOverlayBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	o, err := moe.ParseOverlay(raw)
	if err != nil {
		return nil, err
	}
	if err := checkFormats(o, Known); err != nil {
		return nil, err
	}
	return o, nil
}

// checkFormats looks every format of a policy up.
func checkFormats(o *moe.Overlay, find func(string) (*quant.Format, error)) error {
	check := func(format string, of any) error {
		if _, err := find(format); err != nil {
			return fmt.Errorf("%w: bits of %.100v: %w", moe.ErrOverlay, of, err)
		}
		return nil
	}
	for layer, b := range o.Bits {
		of := fmt.Sprintf("layer %d", layer)
		if err := check(b.Default, of); err != nil {
			return err
		}
		for e, format := range b.Over {
			if err := check(format, fmt.Sprintf("%s, expert %d", of, e)); err != nil {
				return err
			}
		}
	}
	for name, format := range o.Tensors {
		if err := check(format, name); err != nil {
			return err
		}
	}
	return nil
}

// ErrWritable is wrapped where a format cannot be written to a GGUF.
var ErrWritable = errors.New("compress: no format to quantise to")

// Writable finds a format that a GGUF can hold and Winnow can write. ErrWritable: there is none of the name; formats that are Winnow's own,
// such as W4G32, have no type in a GGUF.
func Writable(name string) (*quant.Format, error) {
	if !store.HasGGUFType(name) {
		return nil, fmt.Errorf("%w: %.40q", ErrWritable, name)
	}
	return Known(name)
}

// Known finds a format that Winnow can write and read, whether a GGUF can hold it or not. ErrWritable: there is none of the name.
func Known(name string) (*quant.Format, error) {
	f := quant.ByName(name)
	if f == nil || f.Encode == nil || f.Decode == nil {
		return nil, fmt.Errorf("%w: %.40q", ErrWritable, name)
	}
	return f, nil
}
