// Package quant says how numbers are stored: one Format per way to keep a run of numbers, with its exact decoder and,
// where Winnow writes it, its encoder. It knows no matrices, no files and no devices.
package quant

import (
	"fmt"
	"slices"
)

// Format is one way to store a run of numbers. Plain floats and integers are formats too: blocks of one value.
//
// A row is a whole number of blocks and is stored without gaps, so row i of a matrix starts at i*RowBytes(cols).
// Formats are compared by pointer: there is exactly one *Format a name.
type Format struct {
	Name  string // as GGUF and configs write it: "Q4_K", "BF16"
	Block int    // values per block
	Bytes int    // bytes per block, scales included

	// Encode stores len(src) values, a multiple of Block, in dst. Nil: Winnow only reads this format.
	Encode func(dst []byte, src []float32)
	// Decode restores len(dst) values, a multiple of Block, from src: exactly what the format says, in float32.
	// Nil: the format holds integers, which are read as they are.
	Decode func(dst []float32, src []byte)
}

var formats = map[string]*Format{}

func register(f Format) *Format {
	if formats[f.Name] != nil {
		panic("winnow: bug: quant: format " + f.Name + " is registered twice")
	}
	formats[f.Name] = &f
	return &f
}

// ByName finds a format by its GGUF name; nil when there is none.
func ByName(name string) *Format { return formats[name] }

// Names lists the known formats in alphabetical order.
func Names() []string {
	names := make([]string, 0, len(formats))
	for n := range formats {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// RowBytes is the size of a row of cols values, in bytes. It panics when cols is not a multiple of Block: whoever reads
// a file checks that first with Fits.
func (f *Format) RowBytes(cols int) int {
	if !f.Fits(cols) {
		panic(fmt.Sprintf("winnow: bug: quant: %d columns are no whole number of %s blocks of %d", cols, f.Name, f.Block))
	}
	return cols / f.Block * f.Bytes
}

// Fits says whether a row of cols values is a whole number of blocks.
func (f *Format) Fits(cols int) bool { return cols >= 0 && cols%f.Block == 0 }

func (f *Format) String() string { return f.Name }
