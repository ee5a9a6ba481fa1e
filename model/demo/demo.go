// Package demo carries a small mixture of experts inside the binary: the default of make run, of winnow run demo and of the tests.
//
// The model has 7.0 million parameters, 3.4 million of them active for a token: 6 layers of 8 experts, 2 a token, in the shape of
// Qwen3-MoE. It was trained for this project and tells simple stories; it knows nothing else. Weights and tokenizer are under
// Apache-2.0 like the rest; docs/demo.md names the texts that it learned from.
package demo

import _ "embed"

// Name is what command lines and requests call the model.
const Name = "demo"

// GGUF is the model as a GGUF file with Q8_0 weights. It must not be changed; store.OpenBytes opens it.
//
//go:embed demo.gguf
var GGUF []byte
