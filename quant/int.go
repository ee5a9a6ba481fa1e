package quant

// I32 holds ids, lengths and tables. Integers are read as they are, so it has no codec.
//
// Layout: one value in 4 bytes, two's complement, little-endian.
var I32 = register(Format{Name: "I32", Block: 1, Bytes: 4})

// I64 holds shapes.
//
// Layout: one value in 8 bytes, two's complement, little-endian.
var I64 = register(Format{Name: "I64", Block: 1, Bytes: 8})
