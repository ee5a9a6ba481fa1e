package tensor

import (
	"fmt"
	"math"
	"reflect"

	"github.com/winnow-llm/winnow/quant"
)

// Roundoff is how far a device may be from a Reference that computes an output from float32 values without a product of matrices, as
// a share of the largest magnitude in the output's row. Integers and bit sets must be equal.
const Roundoff = 4e-6

// Bounded is an op that knows better than Roundoff how far a device may be from its Reference.
type Bounded interface {
	// Bound gives, for one of the op's outputs, the largest difference allowed at each value, counted row after row. The op has
	// been run by Reference, on host memory.
	Bound(out *Mat) func(i int) float64
}

// Mismatch is a value on which a device and a Reference differ by more than the op allows.
type Mismatch struct {
	Op      string  // type of the op
	Operand string  // field of the op that holds the matrix: "Y", "Plan.Offset"
	Index   int     // of the value in the matrix, counted row after row
	Have    float64 // the device's
	Want    float64 // the reference's
	Bound   float64 // the difference allowed
}

func (m Mismatch) String() string {
	return fmt.Sprintf("%s: %s[%d] is %v, want %v within %.3g", m.Op, m.Operand, m.Index, m.Have, m.Want, m.Bound)
}

// Compare looks for the first value of out, an output of an op that has been run by Reference on host memory, from which a device's
// have differs too much. NaN equals NaN.
func Compare(op Op, out *Mat, have []byte) (m Mismatch, differ bool) {
	want, got := values(*out, out.Raw()), values(*out, have)
	var bound func(i int) float64
	for i, w := range want {
		g := got[i]
		if g == w || g != g && w != w {
			continue
		}
		if bound == nil {
			bound = boundOf(op, out, want)
		}
		if b := bound(i); !(math.Abs(g-w) <= b) {
			return Mismatch{opName(op), OperandName(op, out), i, g, w, b}, true
		}
	}
	return Mismatch{}, false
}

func boundOf(op Op, out *Mat, want []float64) func(i int) float64 {
	if b, ok := op.(Bounded); ok {
		if f := b.Bound(out); f != nil {
			return f
		}
	}
	if out.Format == quant.I32 {
		return func(int) float64 { return 0 }
	}
	return func(i int) float64 {
		var top float64
		for _, v := range rowOf(want, i/out.Cols, out.Cols) {
			if !math.IsInf(v, 0) && v == v {
				top = max(top, math.Abs(v))
			}
		}
		return Roundoff * top
	}
}

// values widens the bytes of a matrix.
func values(m Mat, raw []byte) []float64 {
	m = HostMat("", m.Format, m.Rows, m.Cols, raw)
	out := make([]float64, 0, m.Rows*m.Cols)
	if m.Format.Decode == nil {
		for _, v := range m.I32() {
			out = append(out, float64(v))
		}
		return out
	}
	row := make([]float32, m.Cols)
	for i := range m.Rows {
		m.RowF32(row, i)
		for _, v := range row {
			out = append(out, float64(v))
		}
	}
	return out
}

// Bound is a share of the norms of the rows that are multiplied: see Tolerance.
func (o *Linear) Bound(*Mat) func(i int) float64 {
	x, w, tol := RowNorms(o.X), RowNorms(o.W), Tolerance(o.W.Format)
	return func(i int) float64 {
		row, col := i/o.Y.Cols, i%o.Y.Cols
		b := tol * x[row] * w[col]
		if o.B.Present() {
			b += Roundoff * math.Abs(float64(o.B.F32()[col]))
		}
		return b
	}
}

// RowNorms is the Euclidean norm of each row of a host matrix.
func RowNorms(m Mat) []float64 {
	norms, row := make([]float64, m.Rows), make([]float32, m.Cols)
	for i := range norms {
		m.RowF32(row, i)
		var sum float64
		for _, v := range row {
			sum += float64(v) * float64(v)
		}
		norms[i] = math.Sqrt(sum)
	}
	return norms
}

// OperandName is the field of an op that a pointer from its Operands points to; "" when there is none.
func OperandName(op Op, m *Mat) string {
	return fieldOf(reflect.ValueOf(op), reflect.ValueOf(m))
}

var matType = reflect.TypeFor[Mat]()

// fieldOf searches structs, pointers to structs and slices of structs for the matrix at m.
func fieldOf(v, m reflect.Value) string {
	switch {
	case v.Kind() == reflect.Pointer && !v.IsNil():
		return fieldOf(v.Elem(), m)
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			if v.Index(i).Type() == matType && v.Index(i).Addr().Pointer() == m.Pointer() {
				return fmt.Sprintf("[%d]", i)
			}
			if name := fieldOf(v.Index(i), m); name != "" {
				return fmt.Sprintf("[%d].%s", i, name)
			}
		}
	case v.Kind() == reflect.Struct && v.Type() != matType:
		for i := range v.NumField() {
			f, name := v.Field(i), v.Type().Field(i).Name
			if f.Type() == matType && f.Addr().Pointer() == m.Pointer() {
				return name
			}
			if rest := fieldOf(f, m); rest != "" {
				if rest[0] == '[' {
					return name + rest
				}
				return name + "." + rest
			}
		}
	}
	return ""
}
