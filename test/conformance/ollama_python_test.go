package conformance

import (
	"context"
	"os/exec"
	"testing"
	"time"
)

// ollamaPython is the release of ollama's Python package that the test runs.
const ollamaPython = "ollama==0.6.3"

func TestOllamaPython(t *testing.T) {
	interpreter := python(t, ollamaPython)
	url, registry := serveStore(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, interpreter, "ollama.py", url, "demo", registry).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
