package configs

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// annotation marks the flags that are keys; its value is the key.
const annotation = "winnow-key"

// Flags adds --config and a flag for each of the keys: --cache-bytes for cache_bytes. Load takes those that a user has set.
func Flags(fs *pflag.FlagSet, keys ...string) {
	if fs.Lookup("config") == nil {
		fs.String("config", "", "configuration file (default "+FileName+" in the working folder, if it is there)")
	}
	byKey := map[string]reflect.StructField{}
	for _, f := range fields() {
		byKey[f.Tag.Get("koanf")] = f
	}
	defaults := reflect.ValueOf(Default())
	for _, key := range keys {
		f, ok := byKey[key]
		if !ok {
			panic("winnow: bug: configs: a flag for the unknown key " + key)
		}
		name := cmp.Or(f.Tag.Get("flag"), strings.ReplaceAll(key, "_", "-")) // lists are given one by one
		help := f.Tag.Get("help")
		switch v := defaults.FieldByIndex(f.Index).Interface().(type) {
		case string:
			fs.String(name, v, help)
		case int:
			fs.Int(name, v, help)
		case float64:
			fs.Float64(name, v, help)
		case bool:
			fs.Bool(name, v, help)
		case time.Duration:
			fs.Duration(name, v, help)
		case []string:
			fs.StringSlice(name, v, help)
		case fmt.Stringer: // sizes and levels are read from their text
			fs.String(name, strings.ToLower(v.String()), help)
		default:
			panic("winnow: bug: configs: no flag for the type of " + key)
		}
		fs.Lookup(name).Annotations = map[string][]string{annotation: {key}}
	}
}

func isList(key string) bool {
	for _, f := range fields() {
		if f.Tag.Get("koanf") == key {
			return f.Type.Kind() == reflect.Slice
		}
	}
	return false
}
