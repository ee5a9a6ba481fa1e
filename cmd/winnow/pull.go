package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
)

func pullVerb() *cobra.Command {
	var file store.File
	var insecure bool
	c := &cobra.Command{
		Use:   "pull NAME|URL",
		Short: "Bring a model into the store, or go on with one that has begun to come",
		Long: `pull brings a model from where its name says that it is:

  qwen3:30b-a3b                           the registry of ollama
  registry.example:5000/team/model:tag    any registry that speaks its protocol
  hf.co/ORG/REPO:Q4_K_M                   a GGUF file of a repository on Hugging Face, or its safetensors
  https://HOST/PATH/FILE.gguf             a file, with its --sha256

Everything is checked by its SHA-256. A pull that was stopped, in whatever way, goes on where it was with the next one. HF_TOKEN opens
what the hub shows only to those it knows; a registry that asks for a key is shown the one of --identity, which is made when it is not there.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			s, r := store.Store{Root: cfg.Models}, remote(cfg, insecure)
			return follow(c, "pull", args[0], func(ctx context.Context, see func(store.Progress)) error {
				if isFile(args[0]) {
					file.URL = args[0]
					return s.PullFile(ctx, file, r, see)
				}
				if file.SHA256 != "" {
					return errors.New("--sha256 is for the address of a file, https://HOST/PATH/FILE.gguf")
				}
				return s.PullAs(ctx, args[0], file.Name, r, see)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&file.SHA256, "sha256", "", "what the bytes of a file have to be, 64 hex digits")
	f.StringVar(&file.Name, "name", "", "name of the model in the store; empty = its own")
	f.BoolVar(&insecure, "insecure", false, "allow plain HTTP, and certificates of anybody")
	configs.Flags(f, "models", "identity", "huggingface")
	return c
}

// remote is how the configuration says that other machines are reached.
func remote(cfg configs.Config, insecure bool) store.Remote {
	return store.Remote{Insecure: insecure, Identity: cfg.Identity, HuggingFace: cfg.HuggingFace, Token: cfg.HubToken}
}

// isFile says whether an argument is the address of a GGUF file, and not a model's name with https:// before it.
func isFile(arg string) bool {
	u, err := url.Parse(arg)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && strings.EqualFold(path.Ext(u.Path), ".gguf")
}

// follow shows the progress of a pull or a push until it ends or is interrupted, and says what its failure means for the user.
func follow(c *cobra.Command, verb, name string, work func(context.Context, func(store.Progress)) error) error {
	ctx, stop := interruptible(c)
	defer stop()
	p := showProgress(c)
	err := work(ctx, p.see)
	p.close()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && verb == "pull":
		return fmt.Errorf("pull: interrupted; what has come stays, and winnow pull %s goes on from there", name)
	case ctx.Err() != nil:
		return errors.New(verb + ": interrupted")
	case errors.Is(err, store.ErrPlain):
		err = fmt.Errorf("%w; --insecure allows it", err)
	case plainThere(err):
		err = fmt.Errorf("%w; where only plain HTTP is spoken, --insecure allows it", err)
	}
	return fmt.Errorf("%s: %w", verb, err)
}

// fetched sees that a model is there: one that is not, and that a registry could have, is pulled.
func fetched(c *cobra.Command, cfg configs.Config, name string, insecure bool) error {
	if name == demo.Name {
		return nil
	}
	s := store.Store{Root: cfg.Models}
	if _, err := s.Resolve(name); err == nil || !errors.Is(err, store.ErrNoModel) {
		return err
	}
	if _, err := s.Find(name); errors.Is(err, store.ErrName) || strings.HasSuffix(strings.ToLower(name), ".gguf") {
		_, err = s.Resolve(name)
		return err
	}
	return follow(c, "pull", name, func(ctx context.Context, see func(store.Progress)) error {
		return s.Pull(ctx, name, remote(cfg, insecure), see)
	})
}

// plainThere says whether a machine answered https with something else.
func plainThere(err error) bool {
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}
