package text

import (
	bin "encoding/binary"
	"math"
)

// AppendKey appends a form of v that no other value has, for looking up what was made of it. Only values that Go code can make have one.
func (v Value) AppendKey(dst []byte) []byte {
	dst = append(dst, byte(v.kind), origin(v.user))
	switch v.kind {
	case kindBool, kindInt:
		return bin.AppendVarint(dst, v.int())
	case kindFloat:
		return bin.LittleEndian.AppendUint64(dst, math.Float64bits(v.float()))
	case kindString:
		for s, input := range v.text().runs() {
			dst = append(dst, origin(input))
			dst = append(bin.AppendUvarint(dst, uint64(len(s))), s...)
		}
		return append(dst, 0)
	case kindList, kindTuple:
		dst = bin.AppendUvarint(dst, uint64(len(v.items())))
		for _, one := range v.items() {
			dst = one.AppendKey(dst)
		}
	case kindDict:
		d := v.dict()
		dst = bin.AppendUvarint(dst, uint64(len(d.keys)))
		for i := range d.keys {
			dst = d.vals[i].AppendKey(d.keys[i].AppendKey(dst))
		}
	}
	return dst
}

// origin is a byte that says who wrote something; never 0.
func origin(user bool) byte {
	if user {
		return 2
	}
	return 1
}
