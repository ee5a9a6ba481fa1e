package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// ErrPage is wrapped where a file is not the page that it is taken for: it is damaged, cut short or another one's.
var ErrPage = errors.New("store: no such page")

// pageFile is a page as it lies in a file.
//
// Layout: pageMagic; the page's number, 32 bytes; the number of tokens and the number of bytes of the page, 8 bytes each; the tokens, 4 bytes each;
// the page; the CRC-32C of all before. Numbers are little-endian.
type pageFile struct {
	id     [32]byte
	tokens []int32
	page   []byte
}

const (
	pageMagic      = "WNPAGE2\n" // its number tells how pages lie in memory, too: see attention.Cache
	pageHeaderSize = len(pageMagic) + 32 + 8 + 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pageFileBytes is how large a file is.
func pageFileBytes(tokens, page int) int64 { return int64(pageHeaderSize + 4*tokens + page + 4) }

// head is what comes before the page.
func (f *pageFile) head() []byte {
	b := append([]byte(pageMagic), f.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(f.tokens)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(f.page)))
	for _, id := range f.tokens {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return b
}

// writePage makes a file, or replaces one. Whoever looks for it finds all of it or nothing, unless the machine loses its power: then the sum tells.
func writePage(path string, used time.Time, f pageFile) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*") // for its owner alone
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temp.Name())
		}
	}()
	head := f.head()
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, f.page)
	for _, b := range [][]byte{head, f.page, binary.LittleEndian.AppendUint32(nil, sum)} {
		if _, err := temp.Write(b); err != nil {
			return errors.Join(err, temp.Close())
		}
	}
	if err := temp.Close(); err != nil {
		return err
	}
	if err := os.Chtimes(temp.Name(), used, used); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// readPage fills a page from a file, if it is this page of these tokens.
func readPage(path string, id [32]byte, tokens []int32, page []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	want := (&pageFile{id, tokens, page}).head()
	r, head, tail := bufio.NewReaderSize(f, len(want)), make([]byte, len(want)), make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrPage, path, err)
	}
	if !slices.Equal(head, want) {
		return fmt.Errorf("%w: %s is of other tokens, or of another model", ErrPage, path)
	}
	if _, err := io.ReadFull(r, page); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrPage, path, err)
	}
	if n, err := io.ReadFull(r, tail); n != 4 || !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %s has %d bytes behind its page, want 4", ErrPage, path, n)
	}
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, page)
	if binary.LittleEndian.Uint32(tail) != sum {
		return fmt.Errorf("%w: %s is damaged", ErrPage, path)
	}
	return nil
}
