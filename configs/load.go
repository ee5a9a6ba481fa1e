package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/providers/structs"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// FileName is looked for in the working folder when neither --config nor WINNOW_CONFIG names another file.
const FileName = "winnow.yaml"

const prefix = "WINNOW_"

// Load reads the configuration of this process; flags are those that Flags added to a verb.
func Load(flags *pflag.FlagSet) (Config, error) { return load(flags, os.Environ()) }

func load(flags *pflag.FlagSet, environ []string) (Config, error) {
	k := koanf.New(".")
	// The first source is a plain struct: it cannot fail, and a failure would show in the test of the defaults.
	if err := k.Load(structs.Provider(Default(), "koanf"), nil); err != nil {
		return Config{}, fmt.Errorf("%w: defaults: %w", ErrConfig, err)
	}
	path, named := filePath(flags, environ)
	if err := merge(k, path, readFile(path, named)); err != nil {
		return Config{}, err
	}
	if err := merge(k, "environment of others", readAliases(environ)); err != nil {
		return Config{}, err
	}
	if err := merge(k, "environment", readEnviron(environ)); err != nil {
		return Config{}, err
	}
	if err := merge(k, "flags", readFlags(flags)); err != nil {
		return Config{}, err
	}
	var c Config
	if err := k.Unmarshal("", &c); err != nil {
		return Config{}, fmt.Errorf("%w: %s", ErrConfig, oneLine(err))
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	var err error
	for key, path := range map[string]*string{"models": &c.Models, "identity": &c.Identity, "prefix_cache": &c.PrefixCache, "packed_cache": &c.PackedCache} {
		if *path, err = expandHome(*path); err != nil {
			return Config{}, fmt.Errorf("%w: %s: %w", ErrConfig, key, err)
		}
	}
	c.HubToken, _ = lookup(environ, "HF_TOKEN")
	c.Key, _ = lookup(environ, prefix+"KEY")
	if c.Telemetry, err = readTelemetry(environ); err != nil {
		return Config{}, err
	}
	return c, nil
}

// source fills an empty koanf with what one layer says.
type source func(*koanf.Koanf) error

// merge lays one source over k. All its keys must be known: a typing mistake never passes as a setting.
func merge(k *koanf.Koanf, name string, read source) error {
	layer := koanf.New(".")
	if err := read(layer); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrConfig, name, err)
	}
	for _, key := range layer.Keys() {
		if !slices.Contains(Keys(), key) {
			return fmt.Errorf("%w: %s: unknown key %q; the nearest known one is %q", ErrConfig, name, key, nearest(key, Keys()))
		}
	}
	return k.Merge(layer)
}

// filePath is the file to read, and whether somebody named it: then it must exist.
func filePath(flags *pflag.FlagSet, environ []string) (path string, named bool) {
	if flags != nil {
		if f := flags.Lookup("config"); f != nil && f.Changed {
			return f.Value.String(), true
		}
	}
	if v, ok := lookup(environ, prefix+"CONFIG"); ok {
		return v, true
	}
	return FileName, false
}

func readFile(path string, named bool) source {
	return func(k *koanf.Koanf) error {
		err := k.Load(file.Provider(path), yaml.Parser())
		if errors.Is(err, fs.ErrNotExist) && !named {
			return nil
		}
		return err
	}
}

// readEnviron takes WINNOW_* variables; an empty one counts as unset. Kubernetes sets some of its own for a service that is called winnow; they are passed over.
func readEnviron(environ []string) source {
	return func(k *koanf.Koanf) error {
		return k.Load(env.Provider(".", env.Opt{
			Prefix:      prefix,
			EnvironFunc: func() []string { return environ },
			TransformFunc: func(name, value string) (string, any) {
				rest := strings.TrimPrefix(name, prefix)
				if value == "" || rest == "CONFIG" || rest == "KEY" || rest == "PORT" || strings.HasPrefix(rest, "PORT_") || strings.HasPrefix(rest, "SERVICE_") {
					return "", nil
				}
				key := strings.ToLower(rest)
				if isList(key) {
					return key, splitList(value)
				}
				return key, value
			},
		}), nil)
	}
}

// aliases are variables of other programs that mean the same as keys of ours, which win.
var aliases = map[string]string{"OLLAMA_MODELS": "models", "HF_ENDPOINT": "huggingface"}

func readAliases(environ []string) source {
	return func(k *koanf.Koanf) error {
		for name, key := range aliases {
			if v, ok := lookup(environ, name); ok {
				if err := k.Set(key, v); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func readFlags(flags *pflag.FlagSet) source {
	return func(k *koanf.Koanf) error {
		if flags == nil {
			return nil
		}
		return k.Load(posflag.ProviderWithFlag(flags, ".", nil, func(f *pflag.Flag) (string, any) {
			key := f.Annotations[annotation]
			if !f.Changed || len(key) == 0 {
				return "", nil
			}
			return key[0], posflag.FlagVal(flags, f)
		}), nil)
	}
}

// lookup finds a variable; one that is empty counts as unset.
func lookup(environ []string, name string) (string, bool) {
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok && v != "" {
			return v, true
		}
	}
	return "", false
}

func splitList(s string) []string {
	out := []string{}
	for _, v := range strings.Split(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

// expandHome puts the home folder in place of a leading ~.
func expandHome(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~")
	if !ok || rest != "" && !os.IsPathSeparator(rest[0]) {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, rest), nil
}

// oneLine drops the headline and the bullets of a decoder's error.
func oneLine(err error) string {
	var parts []string
	for _, line := range strings.Split(err.Error(), "\n") {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "* "))
		if line != "" && !strings.HasSuffix(line, "error(s) decoding:") && !strings.HasSuffix(line, "following error(s):") {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

// nearest is the known word that the fewest edits make of a wrong one.
func nearest(wrong string, known []string) string {
	best, fewest := "", len(wrong)+64
	for _, k := range known {
		if d := edits(wrong, k); d < fewest {
			best, fewest = k, d
		}
	}
	return best
}

// edits counts the insertions, deletions and replacements that make b of a.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := before
			if a[i] != b[j] {
				replace++
			}
			before = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
