package conformance

import (
	"context"
	"flag"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var slow = flag.Bool("slow", false, "run the clients that take minutes to build, too")

// TestOpenAIGo builds the quick start in go/, which is a module of its own, so that Winnow does not depend on the client.
func TestOpenAIGo(t *testing.T) {
	if !*slow {
		t.Skip("OpenAI's Go package takes minutes to build: make conform does it, by -slow")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	command := func(name string, args ...string) ([]byte, error) {
		c := exec.CommandContext(ctx, name, args...)
		c.Dir = "go"
		return c.CombinedOutput()
	}
	if out, err := command("go", "mod", "download"); err != nil {
		t.Skipf("OpenAI's Go package cannot be fetched, the proxy may be out of reach: %v: %s", err, out)
	}
	program := filepath.Join(t.TempDir(), "quickstart")
	if out, err := command("go", "build", "-o", program, "."); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	if out, err := command(program, serve(t)+"/v1", "demo"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
