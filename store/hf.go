package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// hfMaxFile limits the small files of a directory, index included: the largest tokenizers have 35 MB.
const hfMaxFile = 64 << 20 // bytes

const (
	hfWeights = "model.safetensors"
	hfIndex   = "model.safetensors.index.json"
)

// hfFiles are the small files that are read when they are there. A directory without config.json is no model.
var hfFiles = []string{"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
	"tokenizer.model", "chat_template.jinja", "modules.json", "1_Pooling/config.json"}

// openHF opens a Hugging Face directory: its small files, and one file of weights or the shards that an index names.
func openHF(dir string) (c *Checkpoint, err error) {
	c = newCheckpoint(dir, HF)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
			c = nil
		}
	}()
	for _, name := range hfFiles {
		raw, err := readSmall(filepath.Join(dir, name), hfMaxFile)
		if errors.Is(err, fs.ErrNotExist) && name != "config.json" {
			continue
		}
		if err != nil {
			return c, err
		}
		c.Files[name] = raw
	}
	if err := c.addAllWeights(dir); err != nil {
		return c, err
	}
	return c, c.addPacked()
}

// addAllWeights maps the files of weights.
func (c *Checkpoint) addAllWeights(dir string) error {
	err := c.addWeights(filepath.Join(dir, hfWeights))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	index := filepath.Join(dir, hfIndex)
	raw, err := readSmall(index, hfMaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &FileError{File: dir, Limit: "holds neither " + hfWeights + " nor " + hfIndex, Err: ErrFormat}
	}
	if err != nil {
		return err
	}
	where, err := parseIndex(raw)
	if err != nil {
		return &FileError{File: index, Limit: err.Error(), Err: ErrFormat}
	}
	return c.addShards(dir, where)
}

// addShards opens each file of an index (tensor name to file) and checks that every tensor is in the file it names.
func (c *Checkpoint) addShards(dir string, where map[string]string) error {
	names := map[string][]string{} // tensors by file
	for _, tensor := range slices.Sorted(maps.Keys(where)) {
		names[where[tensor]] = append(names[where[tensor]], tensor)
	}
	for _, shard := range slices.Sorted(maps.Keys(names)) {
		misplaced := func(tensor, limit string) error {
			return &FileError{File: filepath.Join(dir, hfIndex), Part: quoted("tensor", tensor), Limit: limit + shard, Err: ErrFormat}
		}
		if i := slices.IndexFunc(names[shard], c.Has); i >= 0 {
			return misplaced(names[shard][i], "is in another file than ")
		}
		if err := c.addWeights(filepath.Join(dir, shard)); err != nil {
			return err
		}
		for _, tensor := range names[shard] {
			if !c.Has(tensor) {
				return misplaced(tensor, "is not in ")
			}
		}
	}
	return nil
}

// addWeights maps one safetensors file and adds its tensors.
func (c *Checkpoint) addWeights(path string) error {
	m, unmap, err := openMapped(path)
	if err != nil {
		return err
	}
	c.maps(m, unmap)
	return addSafetensors(c, path, m.data)
}

// parseIndex reads the map from tensor name to file name out of model.safetensors.index.json. File names are plain: they
// cannot lead out of the directory.
func parseIndex(raw []byte) (map[string]string, error) {
	where := map[string]string{}
	err := eachField(raw, func(key string, dec *json.Decoder) error {
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil || key != "weight_map" {
			return err
		}
		return eachField(value, func(tensor string, dec *json.Decoder) error {
			var file string
			if err := dec.Decode(&file); err != nil {
				return err
			}
			if !plainFile(file) || !strings.HasSuffix(file, ".safetensors") {
				return fmt.Errorf("%s is not a plain name ending in .safetensors", quoted("file", file))
			}
			where[tensor] = file
			return nil
		})
	})
	if err == nil && len(where) == 0 {
		err = fmt.Errorf("no weight_map")
	}
	return where, err
}

// plainFile says whether a name found in a file stays within its directory, on every system.
func plainFile(name string) bool {
	return name != "" && name[0] != '.' && len(name) <= 255 && !strings.ContainsAny(name, "/\\:\x00") && filepath.IsLocal(name)
}

// readSmall reads a whole regular file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fileError(path, err)
	}
	if int64(len(raw)) > limit {
		return nil, &FileError{File: path, Limit: fmt.Sprintf("%d bytes, at most %d are read", size, limit), Err: ErrFormat}
	}
	return raw, nil
}
