package store

import (
	"fmt"
	"math"
)

// fileTypes are the values of general.file_type, which say how the writer mixed formats.
var fileTypes = map[int64]string{
	0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L",
	14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
	23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M",
	32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}

// Parameters counts the values of all tensors in formats that Winnow reads.
func (c *Checkpoint) Parameters() (n int64) {
	for _, t := range c.Tensors {
		n += t.values()
	}
	return n
}

func (t Tensor) values() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n
}

// Quantization names how the weights are stored: as the file says, "Q4_K_M", or else the format of most of their bytes; "" where there are
// none.
func (c *Checkpoint) Quantization() string {
	if id, err := c.Meta.Int("general.file_type", -1); err == nil && fileTypes[id] != "" {
		return fileTypes[id]
	}
	bytes, most := map[string]int{}, ""
	for _, name := range c.Names() {
		if t, ok := c.Tensors[name]; ok {
			f := t.Format.Name
			if bytes[f] += len(t.Data); bytes[f] > bytes[most] {
				most = f
			}
		}
	}
	return most
}

// Magnitude writes a number of parameters as ollama does: "1.1B", "6.96M", "12K".
func Magnitude(n int64) string {
	for _, u := range []struct {
		size   float64
		digits int
		name   string
	}{{1e9, 1, "B"}, {1e6, 2, "M"}, {1e3, 0, "K"}} {
		if v := float64(n) / u.size; v >= 1 {
			if v == math.Floor(v) {
				u.digits = 0
			}
			return fmt.Sprintf("%.*f%s", u.digits, v, u.name)
		}
	}
	return fmt.Sprint(n)
}
