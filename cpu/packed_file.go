//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// errPacked is wrapped where a file does not hold the packed weights that it is taken for: it is damaged, cut short, of another layout or another
// model's.
var errPacked = errors.New("no such packed weights")

// Layout of a file of packed weights, numbers little-endian:
//
//	packedMagic, 8 bytes
//	packedLayout, 4 bytes; number of weights, 4 bytes
//	key of the file, 32 bytes
//	bytes of the file, 8 bytes; bytes of the table, 8 bytes
//	CRC-32C of the table, 4 bytes; CRC-32C of all before, 4 bytes
//	the table: of each weight its key, 32 bytes, where it begins in the file, 8 bytes, its bytes, 8 bytes, and the CRC-32C of each packedPart
//	bytes of it, 4 bytes each
//	the weights as pack.h lays them out, each at a multiple of packedAlign
const (
	packedMagic  = "WNPACKED"
	packedHeader = 8 + 4 + 4 + 32 + 8 + 8 + 4 + 4
	packedFixed  = 32 + 8 + 8
	packedAlign  = 4096
	packedPart   = 1 << 20
	packedTable  = 64 << 20 // most bytes of a table
)

// packedLayout is the number of what pack.h says of tiles and of how the formats of files become tiles. Whoever changes either counts it up: see
// TestPackedLayout.
const packedLayout = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

type packedKey = [32]byte

func keyOf(s string) packedKey { return sha256.Sum256([]byte(s)) }

// packedWeight is where a weight lies in a file.
type packedWeight struct {
	at, bytes int64
	sums      []byte // of its parts
}

// packedFile is an open file whose table is checked. Weights are checked as they are read.
type packedFile struct {
	io.ReaderAt
	weights map[packedKey]packedWeight
}

func packedParts(bytes int64) int64 { return (bytes + packedPart - 1) / packedPart }

// parsePacked reads the table of a file of so many bytes.
func parsePacked(r io.ReaderAt, size int64, key packedKey) (*packedFile, error) {
	var head [packedHeader]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("%w: header: %w", errPacked, err)
	}
	n := binary.LittleEndian
	layout, count, table := n.Uint32(head[8:]), int(n.Uint32(head[12:])), n.Uint64(head[56:])
	switch {
	case string(head[:8]) != packedMagic:
		return nil, fmt.Errorf("%w: it begins with %q", errPacked, head[:8])
	case checksum(head[:packedHeader-4]) != n.Uint32(head[packedHeader-4:]):
		return nil, fmt.Errorf("%w: the header is damaged", errPacked)
	case layout != packedLayout:
		return nil, fmt.Errorf("%w: layout %d, want %d", errPacked, layout, packedLayout)
	case packedKey(head[16:48]) != key:
		return nil, fmt.Errorf("%w: of another key", errPacked)
	case n.Uint64(head[48:]) != uint64(size):
		return nil, fmt.Errorf("%w: %d bytes, want %d", errPacked, size, n.Uint64(head[48:]))
	case table > packedTable || int64(table) > size-packedHeader:
		return nil, fmt.Errorf("%w: a table of %d bytes", errPacked, table)
	}
	rest := make([]byte, table)
	if _, err := r.ReadAt(rest, packedHeader); err != nil {
		return nil, fmt.Errorf("%w: table: %w", errPacked, err)
	}
	if checksum(rest) != n.Uint32(head[64:]) {
		return nil, fmt.Errorf("%w: the table is damaged", errPacked)
	}
	f := &packedFile{r, map[packedKey]packedWeight{}}
	for i := range count {
		if len(rest) < packedFixed {
			return nil, fmt.Errorf("%w: a table of %d weights ends in weight %d", errPacked, count, i)
		}
		id, at, bytes := packedKey(rest), n.Uint64(rest[32:]), n.Uint64(rest[40:])
		rest = rest[packedFixed:]
		if at > uint64(size) || bytes > uint64(size)-at || at < packedHeader+table {
			return nil, fmt.Errorf("%w: weight %d takes %d bytes from %d of %d", errPacked, i, bytes, at, size)
		}
		sums := 4 * packedParts(int64(bytes))
		if sums > int64(len(rest)) {
			return nil, fmt.Errorf("%w: a table of %d weights ends in weight %d", errPacked, count, i)
		}
		f.weights[id] = packedWeight{int64(at), int64(bytes), rest[:sums]}
		rest = rest[sums:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the table", errPacked, len(rest))
	}
	return f, nil
}

// read fills dst, which has the weight's bytes, by so many goroutines.
func (f *packedFile) read(w packedWeight, dst []byte, threads int) error {
	parts := packedParts(w.bytes)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	work := func() {
		for i := next.Add(1) - 1; i < parts && failed.Load() == nil; i = next.Add(1) - 1 {
			part := dst[i*packedPart : min((i+1)*packedPart, w.bytes)]
			_, err := f.ReadAt(part, w.at+i*packedPart)
			if err == nil && checksum(part) != binary.LittleEndian.Uint32(w.sums[4*i:]) {
				err = fmt.Errorf("%w: a weight is damaged from byte %d", errPacked, w.at+i*packedPart)
			}
			if err != nil {
				failed.Store(&err)
			}
		}
	}
	var others sync.WaitGroup
	for range min(int64(threads), parts) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// keptWeight is a weight that is written.
type keptWeight struct {
	key   packedKey
	bytes []byte
}

// packedSize is how large a file of weights is, and its table.
func packedSize(weights []keptWeight) (size, table int64) {
	for _, w := range weights {
		table += packedFixed + 4*packedParts(int64(len(w.bytes)))
	}
	size = packedHeader + table
	for _, w := range weights {
		size = aligned(size) + int64(len(w.bytes))
	}
	return size, table
}

func aligned(at int64) int64 { return (at + packedAlign - 1) &^ (packedAlign - 1) }

// errStopped is what writing ends with when it is told to.
var errStopped = errors.New("stopped")

// writePacked writes a file of weights, until it is stopped. The table comes last: it needs the sums.
func writePacked(f *os.File, key packedKey, weights []keptWeight, stopped func() bool) error {
	size, table := packedSize(weights)
	if table > packedTable {
		return fmt.Errorf("a table of %d bytes, of at most %d", table, packedTable)
	}
	n := binary.LittleEndian
	rest, at := make([]byte, 0, table), packedHeader+table
	for _, w := range weights {
		at = aligned(at)
		rest = append(rest, w.key[:]...)
		rest = n.AppendUint64(rest, uint64(at))
		rest = n.AppendUint64(rest, uint64(len(w.bytes)))
		for b := w.bytes; len(b) > 0; {
			if stopped() {
				return errStopped
			}
			part := b[:min(len(b), packedPart)]
			rest = n.AppendUint32(rest, checksum(part))
			if _, err := f.WriteAt(part, at); err != nil {
				return err
			}
			at, b = at+int64(len(part)), b[len(part):]
		}
	}
	head := n.AppendUint32([]byte(packedMagic), packedLayout)
	head = n.AppendUint32(head, uint32(len(weights)))
	head = append(head, key[:]...)
	head = n.AppendUint64(head, uint64(size))
	head = n.AppendUint64(head, uint64(table))
	head = n.AppendUint32(head, checksum(rest))
	head = n.AppendUint32(head, checksum(head))
	if _, err := f.WriteAt(append(head, rest...), 0); err != nil {
		return err
	}
	return f.Sync() // or a loss of power could leave a name for what is not there
}
