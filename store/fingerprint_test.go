package store

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/winnow-llm/winnow/quant"
)

func TestFingerprintIsOfNamesFormatsAndShapes(t *testing.T) {
	c := &Checkpoint{Tensors: map[string]Tensor{
		"b.weight": {Name: "b.weight", Format: quant.Q8_0, Shape: []int{4, 32}, Data: []byte("not looked at")},
		"a.scale":  {Name: "a.scale", Format: quant.F32},
	}}
	sum := sha256.Sum256([]byte("a.scale F32 \nb.weight Q8_0 4x32\n"))
	first := c.Fingerprint()
	if first != hex.EncodeToString(sum[:]) {
		t.Errorf("fingerprint %s", first)
	}
	c.Tensors["b.weight"] = Tensor{Name: "b.weight", Format: quant.Q8_0, Shape: []int{2, 64}}
	if c.Fingerprint() == first {
		t.Error("another shape, the same fingerprint")
	}
}
