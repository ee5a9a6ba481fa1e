package configs

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size in memory. It is written as a number with a unit: 512KiB, 2GiB, 1.5GB, or plain bytes.
type Bytes int64

// units by suffix, longer suffixes before those they end with.
var units = []struct {
	suffix string
	factor float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"b", 1}, {"", 1},
}

// UnmarshalText reads a size. Fractions of a byte are cut off.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.ToLower(strings.TrimSpace(string(text)))
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || v < 0 || v*u.factor >= math.MaxInt64 {
			break
		}
		*b = Bytes(v * u.factor)
		return nil
	}
	return fmt.Errorf("%q is no size: write 512MiB, 2GiB or a number of bytes", text)
}

// String is the shortest exact form.
func (b Bytes) String() string {
	for i := 3; i >= 0; i-- {
		if f := Bytes(units[i].factor); b >= f && b%f == 0 {
			return fmt.Sprintf("%d%siB", b/f, strings.ToUpper(units[i].suffix[:1]))
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
