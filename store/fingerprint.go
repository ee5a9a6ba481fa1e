package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Fingerprint is the sha256, as 64 hex digits, of the table of tensors: their names, formats and shapes, not their values. What was planned
// for a checkpoint's experts holds for every other with the same fingerprint. Tensors in formats that Winnow does not read do not count.
//
// Hashed is a line for each name in sorted order: "name format d0xd1x...\n".
func (c *Checkpoint) Fingerprint() string {
	h := sha256.New()
	for _, name := range c.Names() {
		t, ok := c.Tensors[name]
		if !ok {
			continue
		}
		fmt.Fprintf(h, "%s %s ", name, t.Format.Name)
		for i, d := range t.Shape {
			if i > 0 {
				h.Write([]byte("x"))
			}
			fmt.Fprint(h, d)
		}
		h.Write([]byte("\n"))
	}
	return hex.EncodeToString(h.Sum(nil))
}
