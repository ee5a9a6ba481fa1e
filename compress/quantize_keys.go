package compress

import (
	"maps"
	"strings"

	"github.com/winnow-llm/winnow/store"
)

// fileTypes are llama.cpp's numbers for files that are mostly of one format, by its name.
var fileTypes = map[string]uint32{
	"F32": 0, "F16": 1, "BF16": 32, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 11, "Q4_K": 14, "Q5_K": 16,
	"Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "MXFP4": 38,
}

// describe is the keys of a quantised file: those of the checkpoint, without what it says of a set of files, and with what is true of the
// formats now.
func describe(c *store.Checkpoint, tensors []store.NewTensor) store.Meta {
	meta := maps.Clone(c.Meta)
	maps.DeleteFunc(meta, func(name string, _ any) bool {
		return strings.HasPrefix(name, "split.") || name == "general.alignment" || name == "general.file_type"
	})
	meta["general.quantization_version"] = uint32(2)
	if most := mostly(tensors); most != "" {
		meta["general.file_type"] = fileTypes[most]
	}
	return meta
}

// mostly is the name of the format that most bytes are in, of those that fileTypes has; "" where there is none.
func mostly(tensors []store.NewTensor) (most string) {
	bytes := map[string]int64{}
	for _, t := range tensors {
		if _, known := fileTypes[t.Format.Name]; known {
			bytes[t.Format.Name] += tensorBytes(t)
		}
	}
	for name, n := range bytes {
		if n > bytes[most] || n == bytes[most] && name < most {
			most = name
		}
	}
	return most
}
