package store

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
)

// ggufType is one tensor type of GGUF: enough to know how many bytes a tensor takes, whether we can read it or not.
type ggufType struct {
	name         string // as quant.ByName knows it, once it does
	block, bytes uint64
}

// ggufTypes are the types that files may hold, by id. Ids that are missing here were never written or were withdrawn.
var ggufTypes = map[uint32]ggufType{
	0: {"F32", 1, 4}, 1: {"F16", 1, 2}, 30: {"BF16", 1, 2}, 28: {"F64", 1, 8},
	24: {"I8", 1, 1}, 25: {"I16", 1, 2}, 26: {"I32", 1, 4}, 27: {"I64", 1, 8},
	2: {"Q4_0", 32, 18}, 3: {"Q4_1", 32, 20}, 6: {"Q5_0", 32, 22}, 7: {"Q5_1", 32, 24},
	8: {"Q8_0", 32, 34}, 9: {"Q8_1", 32, 36},
	10: {"Q2_K", 256, 84}, 11: {"Q3_K", 256, 110}, 12: {"Q4_K", 256, 144}, 13: {"Q5_K", 256, 176},
	14: {"Q6_K", 256, 210}, 15: {"Q8_K", 256, 292},
	16: {"IQ2_XXS", 256, 66}, 17: {"IQ2_XS", 256, 74}, 18: {"IQ3_XXS", 256, 98}, 19: {"IQ1_S", 256, 50},
	20: {"IQ4_NL", 32, 18}, 21: {"IQ3_S", 256, 110}, 22: {"IQ2_S", 256, 82}, 23: {"IQ4_XS", 256, 136},
	29: {"IQ1_M", 256, 56}, 34: {"TQ1_0", 256, 54}, 35: {"TQ2_0", 256, 66},
	39: {"MXFP4", 32, 17}, 40: {"NVFP4", 64, 36}, 41: {"Q1_0", 128, 18}, 42: {"Q2_0", 64, 18},
}

// unreadable says why a tensor of this type id cannot be read; "" when it can.
func unreadable(id uint32) string {
	t, known := ggufTypes[id]
	switch {
	case known && quant.ByName(t.name) != nil:
		return ""
	case known:
		return "quantization " + t.name
	case id >= 133 && id <= 158 || id >= 202 && id <= 399:
		return fmt.Sprintf("tensor type %d of ik_llama.cpp", id)
	case id == 4 || id == 5 || id >= 31 && id <= 33 || id >= 36 && id <= 38:
		return fmt.Sprintf("tensor type %d, which GGUF has withdrawn", id)
	}
	return fmt.Sprintf("unknown tensor type %d", id)
}
