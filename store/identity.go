package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// sampled is how many bytes are read of a tensor for Identity, at its start, in its middle and at its end.
const sampled = 4 << 10

// digested is how the store calls a file whose name says what it holds.
var digested = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

// Identity is 64 hex digits that no two checkpoints have in common which differ in a weight or in what is said of it, and that one has after a
// restart too. Weights are not read in full. A file stands for its bytes by its name where that is a digest, and else by its size and the time of its
// last change, so that a copy of a model may have another identity; beside that a sample of each tensor counts. Tensors in memory are read in full.
func (c *Checkpoint) Identity() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, c.Fingerprint(), c.Meta)
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		fmt.Fprintf(h, "%s %x\n", name, sha256.Sum256(c.Files[name]))
	}
	if len(c.mapped) > 0 {
		for _, part := range c.Parts {
			if base := filepath.Base(part.File); digested.MatchString(base) {
				fmt.Fprintln(h, base)
				continue
			}
			st, err := os.Stat(part.File)
			if err != nil {
				return "", fileError(part.File, err)
			}
			fmt.Fprintln(h, st.Size(), st.ModTime().UnixNano())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tensors)) {
		b := c.Tensors[name].Data
		if len(b) <= 3*sampled || c.mappingOf(b) == nil {
			h.Write(b)
			continue
		}
		for _, at := range []int{0, len(b) / 2, len(b) - sampled} {
			h.Write(b[at : at+sampled])
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
