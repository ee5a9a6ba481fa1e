// Package conformance runs clients that others wrote against the binary that users run.
package conformance

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// openAIPython is the release of OpenAI's Python package that the test runs.
const openAIPython = "openai==3.57.0"

// python makes a virtual environment with a client, once for a machine, and gives its interpreter.
func python(t *testing.T, client string) string {
	t.Helper()
	system, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip(err)
	}
	dir := filepath.Join(cache, "winnow-test", strings.ReplaceAll(client, "==", "-"))
	interpreter, complete := filepath.Join(dir, "bin", "python"), filepath.Join(dir, "complete")
	if _, err := os.Stat(complete); err == nil {
		return interpreter
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, system, "-m", "venv", "--clear", dir).CombinedOutput(); err != nil {
		t.Skipf("no virtual environment: %v: %s", err, out)
	}
	if out, err := exec.CommandContext(ctx, interpreter, "-m", "pip", "install", "--quiet", "--retries", "1", client).CombinedOutput(); err != nil {
		t.Skipf("%s cannot be installed, the registry may be out of reach: %v: %s", client, err, out)
	}
	if err := os.WriteFile(complete, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return interpreter
}

// serve builds winnow, serves the demo, and gives the address. flags are further ones of the verb.
func serve(t *testing.T, flags ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "winnow")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/winnow").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	c := exec.Command(binary, append([]string{"serve", "demo", "--addr", "127.0.0.1:0"}, flags...)...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	c.Stderr = &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v: %s", err, log.String())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	at := strings.Index(line, "http://")
	if err != nil || at < 0 {
		t.Fatalf("the server said %q: %v", line, err)
	}
	return strings.TrimSpace(line[at:])
}

func TestOpenAIPython(t *testing.T) {
	interpreter := python(t, openAIPython)
	url := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, interpreter, "quickstart.py", url+"/v1", "demo").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}
