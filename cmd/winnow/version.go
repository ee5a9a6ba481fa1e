package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/configs"
)

// linked is what git calls the commit: make build has the linker set it.
var linked string

// version is what this build is called.
var version = cmp.Or(linked, moduleVersion(), "unversioned")

// moduleVersion is what go install knows.
func moduleVersion() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return ""
}

func versionVerb() *cobra.Command {
	var asJSON, server bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version, of this binary or of a running server",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if server {
				return askServer(c)
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(map[string]string{
					"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "winnow %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&server, "server", false, "ask the server at addr, with the key of WINNOW_KEY; fails when none answers, so it serves as a health check")
	configs.Flags(c.Flags(), "addr")
	return c
}

// askServer prints what a running server says of its version.
func askServer(c *cobra.Command) error {
	cfg, _, err := settings(c)
	if err != nil {
		return err
	}
	base, err := serverURL(cfg.Addr)
	if err != nil {
		return err
	}
	url := base.JoinPath("version").String()
	client := http.Client{Timeout: 2 * time.Second, Transport: keyed{cfg.Key}}
	resp, err := client.Get(url)
	if errors.Is(err, errKey) {
		_, err = fmt.Fprintln(c.OutOrStdout(), "a server answers, which tells its version to holders of a key")
		return err
	}
	if err != nil {
		return fmt.Errorf("no server answers: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: status %d", url, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", bytes.TrimSpace(body))
	return err
}
