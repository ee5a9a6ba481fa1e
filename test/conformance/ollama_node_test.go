package conformance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestOllamaNode(t *testing.T) {
	dir := packages(t, "ollama_node")
	url, registry := serveStore(t)
	script, err := os.Open(filepath.Join("ollama_node", "client.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	defer script.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", "--input-type=module", "-", url, "demo", registry)
	node.Dir, node.Stdin = dir, script
	if out, err := node.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
