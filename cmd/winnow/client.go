package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/ollama/ollama/api"

	"github.com/winnow-llm/winnow/configs"
)

// serverURL is where programs of this machine reach a server that listens at addr.
func serverURL(addr string) (*url.URL, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("addr %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // a server on every address is on this one too
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}, nil
}

// client asks the running server, in ollama's words.
func client(cfg configs.Config) (*api.Client, error) {
	base, err := serverURL(cfg.Addr)
	if err != nil {
		return nil, err
	}
	return api.NewClient(base, &http.Client{Transport: keyed{cfg.Key}}), nil
}

// errKey is in the place of what ollama's client says, which is about an account with ollama.
var errKey = errors.New("the server wants another key; WINNOW_KEY holds the one that is shown")

// keyed shows a key with every request; an empty one is none.
type keyed struct{ key string }

func (k keyed) RoundTrip(r *http.Request) (*http.Response, error) {
	if k.key != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+k.key)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		return nil, errors.Join(errKey, resp.Body.Close())
	}
	return resp, err
}
