package compress

import (
	"cmp"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/store"
)

// fileTypes are llama.cpp's numbers for files that are mostly of one format, by its name.
var fileTypes = map[string]uint32{
	"F32": 0, "F16": 1, "BF16": 32, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 11, "Q4_K": 14, "Q5_K": 16,
	"Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "MXFP4": 38,
}

// describe is the keys of a quantised file: those of the checkpoint, by name, but general.architecture first, without what it says of a set
// of files, and with what is true of the formats now.
func describe(c *store.Checkpoint, tensors []outTensor) []outKey {
	var keys []outKey
	for name, value := range c.Meta {
		switch {
		case strings.HasPrefix(name, "split."), name == "general.alignment", name == "general.file_type", name == "general.quantization_version":
		default:
			keys = append(keys, outKey{name, value})
		}
	}
	keys = append(keys, outKey{"general.quantization_version", uint32(2)})
	if most := mostly(tensors); most != "" {
		keys = append(keys, outKey{"general.file_type", fileTypes[most]})
	}
	first := func(k outKey) int {
		if k.name == "general.architecture" {
			return 0
		}
		return 1
	}
	slices.SortFunc(keys, func(a, b outKey) int { return cmp.Or(cmp.Compare(first(a), first(b)), strings.Compare(a.name, b.name)) })
	return keys
}

// mostly is the name of the format that most bytes are in, of those that fileTypes has; "" where there is none.
func mostly(tensors []outTensor) (most string) {
	bytes := map[string]int64{}
	for i := range tensors {
		name := tensors[i].format.Name
		if _, known := fileTypes[name]; !known {
			continue
		}
		bytes[name] += tensors[i].size()
	}
	for name, n := range bytes {
		if n > bytes[most] || n == bytes[most] && name < most {
			most = name
		}
	}
	return most
}
