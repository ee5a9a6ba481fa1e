package store

import "net/http"

// Remote is how models come from other machines, and go there.
type Remote struct {
	Client      *http.Client // nil = one with proxies by the standard variables, and without a limit of time for a body
	Insecure    bool         // plain HTTP, and certificates of anybody
	Identity    string       // file of the ed25519 key that registries know the user by; made when it is needed and not there
	HuggingFace string       // base address of the hub; "" = https://huggingface.co
	Token       string       // for the hub; "" = none
	Parallel    int          // ranges fetched at once; 0 = 8
}
