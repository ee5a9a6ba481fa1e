package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/httpapi"
)

func keyVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "key NAME",
		Short: "Make an API key and let its holder in",
		Long: `key prints a new key, once, and adds NAME with the key's SHA-256 to the file that --keys names, which a server started with the same
--keys reads again by itself. Taking the line out revokes the key. A server with a file of keys answers nobody else but for GET /health and
GET /v1/models.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := settings(c)
			if err != nil {
				return err
			}
			if cfg.Keys == "" {
				return fmt.Errorf("key: no file of keys is set: --keys FILE, or keys in winnow.yaml")
			}
			key, line, err := httpapi.NewKey(args[0])
			if err != nil {
				return err
			}
			if err := appendLine(cfg.Keys, line); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), key)
			return err
		},
	}
	configs.Flags(c.Flags(), "keys")
	return c
}

// appendLine adds a line to a file that only its owner may read. One write, so that two processes do not mix theirs.
func appendLine(path, line string) (err error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if last := make([]byte, 1); st.Size() > 0 {
		if _, err := f.ReadAt(last, st.Size()-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = "\n" + line // what an editor left open
		}
	}
	_, err = f.WriteString(line)
	return err
}
