package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// pickle reads the part of Python's pickle language, protocol 2, that a dict of tensors is written in. It makes tuples, dicts, strings and
// numbers by itself; what a pickle wants imported stays a name, and what it wants called is left to call, which knows few. Each instruction
// makes at most one value, so memory is bounded by the input.
type pickle struct {
	in         []byte
	at         int   // the next byte
	sentinel   error // of the failure
	stack      []any
	marks      []int          // where the stack was marked
	memo       map[uint32]any // what was put aside
	persistent func(id any) (any, error)
	call       func(function pickleGlobal, args pickleTuple) (any, error)
}

type (
	pickleTuple  []any
	pickleGlobal string // module, space, name
	pickleDict   struct{ items []pickleItem }
	pickleItem   struct {
		key   string
		value any
	}
)

// pickleError says what is wrong, and whether that is damage or more than is read.
type pickleError struct {
	sentinel error
	limit    string
}

func (e *pickleError) Error() string { return e.limit }

func damaged(limit string, args ...any) error {
	return &pickleError{ErrFormat, fmt.Sprintf(limit, args...)}
}

func unwanted(limit string, args ...any) error {
	return &pickleError{ErrUnsupported, fmt.Sprintf(limit, args...)}
}

const (
	pickleStop = '.'
	pickleDeep = 1 << 16 // most values that wait, and most marks; torch.save has some 2,000
)

// pickleRuns are the instructions that are understood.
var pickleRuns = map[byte]func(p *pickle) error{
	0x80: func(p *pickle) error { // PROTO
		b, err := p.take(1)
		if err == nil && b[0] != 2 {
			err = unwanted("pickle protocol %d, 2 is read", b[0])
		}
		return err
	},
	'(':  (*pickle).mark,
	')':  func(p *pickle) error { return p.push(pickleTuple{}) },
	0x85: func(p *pickle) error { return p.tuple(1) },
	0x86: func(p *pickle) error { return p.tuple(2) },
	0x87: func(p *pickle) error { return p.tuple(3) },
	't': func(p *pickle) error {
		n, err := p.marked()
		if err != nil {
			return err
		}
		return p.tuple(n)
	},
	'}':  func(p *pickle) error { return p.push(&pickleDict{}) },
	's':  func(p *pickle) error { return p.set(2) },
	'N':  func(p *pickle) error { return p.push(nil) },
	0x88: func(p *pickle) error { return p.push(true) },
	0x89: func(p *pickle) error { return p.push(false) },
	'K':  func(p *pickle) error { return p.number(1) },
	'M':  func(p *pickle) error { return p.number(2) },
	'J':  func(p *pickle) error { return p.number(4) },
	0x8a: (*pickle).long,
	'X':  (*pickle).text,
	'c':  (*pickle).global,
	'u': func(p *pickle) error {
		n, err := p.marked()
		if err != nil {
			return err
		}
		return p.set(n)
	},
	'q': func(p *pickle) error { return p.put(1) },
	'r': func(p *pickle) error { return p.put(4) },
	'h': func(p *pickle) error { return p.get(1) },
	'j': func(p *pickle) error { return p.get(4) },
	'Q': func(p *pickle) error {
		id, err := p.pop(1)
		if err != nil {
			return err
		}
		v, err := p.persistent(id[0])
		if err != nil {
			return err
		}
		return p.push(v)
	},
	'R': (*pickle).reduce,
}

// pickleNames are other instructions of the language, by which they are refused.
var pickleNames = map[byte]string{
	'0': "POP", '1': "POP_MARK", '2': "DUP", 'F': "FLOAT", 'I': "INT", 'L': "LONG", 'P': "PERSID", 'S': "STRING", 'T': "BINSTRING",
	'U': "SHORT_BINSTRING", 'V': "UNICODE", 'a': "APPEND", 'b': "BUILD", 'd': "DICT", 'e': "APPENDS", 'g': "GET", 'i': "INST", 'l': "LIST",
	']': "EMPTY_LIST", 'o': "OBJ", 'p': "PUT", 'G': "BINFLOAT", 'B': "BINBYTES", 'C': "SHORT_BINBYTES", 0x81: "NEWOBJ", 0x82: "EXT1",
	0x83: "EXT2", 0x84: "EXT4", 0x8b: "LONG4", 0x8c: "SHORT_BINUNICODE", 0x8d: "BINUNICODE8", 0x8e: "BINBYTES8", 0x8f: "EMPTY_SET",
	0x90: "ADDITEMS", 0x91: "FROZENSET", 0x92: "NEWOBJ_EX", 0x93: "STACK_GLOBAL", 0x94: "MEMOIZE", 0x95: "FRAME", 0x96: "BYTEARRAY8",
	0x97: "NEXT_BUFFER", 0x98: "READONLY_BUFFER",
}

// load runs the pickle and gives what is left at its end.
func (p *pickle) load() (any, error) {
	p.memo, p.sentinel = map[uint32]any{}, ErrFormat
	for {
		op, err := p.take(1)
		if err != nil {
			return nil, err
		}
		if op[0] == pickleStop {
			v, err := p.pop(1)
			if err == nil && (len(p.stack) > 0 || p.at < len(p.in)) {
				err = damaged("%d values and %d bytes are left at its end", len(p.stack), len(p.in)-p.at)
			}
			if err != nil {
				return nil, err
			}
			return v[0], nil
		}
		run := pickleRuns[op[0]]
		switch {
		case run != nil:
			err = run(p)
		case pickleNames[op[0]] != "":
			err = unwanted("instruction %s", pickleNames[op[0]])
		default:
			err = damaged("%#x is no instruction", op[0])
		}
		if err != nil {
			if e := (*pickleError)(nil); errors.As(err, &e) {
				p.sentinel = e.sentinel
			}
			return nil, err
		}
	}
}

// take gives the next n bytes.
func (p *pickle) take(n int) ([]byte, error) {
	if n > len(p.in)-p.at {
		return nil, damaged("needs %d bytes where %d are left", n, len(p.in)-p.at)
	}
	b := p.in[p.at : p.at+n]
	p.at += n
	return b, nil
}

func (p *pickle) mark() error {
	if len(p.marks) == pickleDeep {
		return unwanted("more than %d marks at a time", pickleDeep)
	}
	p.marks = append(p.marks, len(p.stack))
	return nil
}

func (p *pickle) push(v any) error {
	if len(p.stack) == pickleDeep {
		return unwanted("more than %d values at a time", pickleDeep)
	}
	p.stack = append(p.stack, v)
	return nil
}

// pop takes n values off the stack, none of them from below a mark; they are valid until the next push.
func (p *pickle) pop(n int) ([]any, error) {
	floor := 0
	if len(p.marks) > 0 {
		floor = p.marks[len(p.marks)-1]
	}
	from := len(p.stack) - n
	if from < floor {
		return nil, damaged("an instruction needs %d values where %d are there", n, len(p.stack)-floor)
	}
	out := p.stack[from:]
	p.stack = p.stack[:from]
	return out, nil
}

// marked takes the last mark away and says how many values are above it.
func (p *pickle) marked() (int, error) {
	if len(p.marks) == 0 {
		return 0, damaged("an instruction needs a mark")
	}
	at := p.marks[len(p.marks)-1]
	p.marks = p.marks[:len(p.marks)-1]
	return len(p.stack) - at, nil
}

func (p *pickle) tuple(n int) error {
	v, err := p.pop(n)
	if err != nil {
		return err
	}
	return p.push(append(make(pickleTuple, 0, n), v...))
}

// set adds keys and values, n of both together, to the dict below them.
func (p *pickle) set(n int) error {
	v, err := p.pop(n)
	if err != nil {
		return err
	}
	if n%2 != 0 || len(p.stack) == 0 {
		return damaged("%d keys and values for a dict", n)
	}
	dict, ok := p.stack[len(p.stack)-1].(*pickleDict)
	if !ok {
		return damaged("items of what is no dict")
	}
	for i := 0; i < n; i += 2 {
		key, ok := v[i].(string)
		if !ok {
			return unwanted("a dict whose keys are no strings")
		}
		dict.items = append(dict.items, pickleItem{key, v[i+1]})
	}
	return nil
}

// number pushes a number of 1, 2 or 4 bytes; only the largest has a sign.
func (p *pickle) number(size int) error {
	b, err := p.take(size)
	if err != nil {
		return err
	}
	switch size {
	case 1:
		return p.push(int64(b[0]))
	case 2:
		return p.push(int64(binary.LittleEndian.Uint16(b)))
	}
	return p.push(int64(int32(binary.LittleEndian.Uint32(b))))
}

// long pushes a number of as many bytes as it says, at most 8.
func (p *pickle) long() error {
	n, err := p.take(1)
	if err != nil {
		return err
	}
	if n[0] > 8 {
		return unwanted("a number of %d bytes", n[0])
	}
	b, err := p.take(int(n[0]))
	if err != nil {
		return err
	}
	v := uint64(0)
	for i, x := range b {
		v |= uint64(x) << (8 * i)
	}
	if len(b) > 0 && len(b) < 8 && b[len(b)-1]&0x80 != 0 {
		v |= ^uint64(0) << (8 * len(b))
	}
	return p.push(int64(v))
}

func (p *pickle) text() error {
	b, err := p.take(4)
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(b)
	if uint64(n) > uint64(len(p.in)-p.at) {
		return damaged("a string of %d bytes where %d are left", n, len(p.in)-p.at)
	}
	if b, err = p.take(int(n)); err != nil {
		return err
	}
	if !utf8.Valid(b) {
		return damaged("a string that is no UTF-8")
	}
	return p.push(string(b))
}

// global pushes the name of what is to be imported: two lines, module and name.
func (p *pickle) global() error {
	var lines [2]string
	for i := range lines {
		from := p.at
		for {
			b, err := p.take(1)
			if err != nil {
				return err
			}
			if b[0] == '\n' {
				break
			}
		}
		lines[i] = string(p.in[from : p.at-1])
	}
	return p.push(pickleGlobal(lines[0] + " " + lines[1]))
}

// index reads where in the memo.
func (p *pickle) index(size int) (uint32, error) {
	b, err := p.take(size)
	if err != nil {
		return 0, err
	}
	if size == 1 {
		return uint32(b[0]), nil
	}
	return binary.LittleEndian.Uint32(b), nil
}

// put keeps the last value in the memo; it stays on the stack.
func (p *pickle) put(size int) error {
	i, err := p.index(size)
	if err != nil {
		return err
	}
	v, err := p.pop(1)
	if err != nil {
		return err
	}
	p.memo[i] = v[0]
	return p.push(v[0])
}

func (p *pickle) get(size int) error {
	i, err := p.index(size)
	if err != nil {
		return err
	}
	v, ok := p.memo[i]
	if !ok {
		return damaged("value %d was never put aside", i)
	}
	return p.push(v)
}

// reduce calls a function with a tuple of arguments.
func (p *pickle) reduce() error {
	v, err := p.pop(2)
	if err != nil {
		return err
	}
	function, isName := v[0].(pickleGlobal)
	args, isTuple := v[1].(pickleTuple)
	if !isName || !isTuple {
		return damaged("a call of what is no function, or without arguments")
	}
	out, err := p.call(function, args)
	if err != nil {
		return err
	}
	return p.push(out)
}
