package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
)

// mostModelfile is the most bytes of a Modelfile.
const mostModelfile = 4 << 20

func createVerb() *cobra.Command {
	var file, from string
	c := &cobra.Command{
		Use:   "create NAME (-f MODELFILE | --from MODEL)",
		Short: "Make a model of the store",
		Long: `create makes a model of a GGUF file, which is copied into the store, or of another model of the store, whose files the two then share.
A Modelfile says FROM which, and with which TEMPLATE, SYSTEM, PARAMETER, MESSAGE and LICENSE; paths in it are relative to its folder.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			if err := changeable(args[0]); err != nil {
				return err
			}
			s, f, folder := store.Store{Root: cfg.Models}, store.Modelfile{From: from}, "."
			if from == "" {
				if f, err = readModelfile(file); err != nil {
					return err
				}
				folder = filepath.Dir(file)
			}
			if f.From, err = weightsFrom(s, folder, f.From); err != nil {
				return err
			}
			return follow(c, "create", args[0], func(ctx context.Context, see func(store.Progress)) error {
				return s.Create(ctx, args[0], f, nil, see)
			})
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "Modelfile", "what the model is, as ollama's Modelfile")
	c.Flags().StringVar(&from, "from", "", "make it of this alone: a GGUF file, or a model of the store")
	c.MarkFlagsMutuallyExclusive("file", "from")
	configs.Flags(c.Flags(), "models")
	return c
}

// changeable refuses to make, copy or remove what is no model of the store.
func changeable(name string) error {
	if name == demo.Name {
		return fmt.Errorf("%s is the model inside this binary, not one of the store", demo.Name)
	}
	return nil
}

func readModelfile(path string) (store.Modelfile, error) {
	r, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; name another with -f, or a model with --from", err)
	}
	if err != nil {
		return store.Modelfile{}, err
	}
	defer r.Close()
	f, err := store.ParseModelfile(r, mostModelfile)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return f, err
}

// weightsFrom makes an absolute path of a FROM that is one, relative to a folder: that of a file, or of a directory whose name no model has.
// What looks like a path is one, even if nothing is there.
func weightsFrom(s store.Store, folder, from string) (string, error) {
	path := from
	if !filepath.IsAbs(from) {
		path = filepath.Join(folder, from)
	}
	st, err := os.Stat(path)
	is := filepath.IsAbs(from) || strings.HasPrefix(from, ".") || strings.EqualFold(filepath.Ext(from), ".gguf") || err == nil && !st.IsDir()
	if !is && err == nil {
		_, none := s.Find(from)
		is = none != nil
	}
	if !is || from == "" {
		return from, nil
	}
	return filepath.Abs(path)
}
