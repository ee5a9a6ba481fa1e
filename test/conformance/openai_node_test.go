package conformance

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// packages gives a folder with the Node packages that the lock file in a folder pins. They are installed once for a machine and lock.
func packages(t *testing.T, of string) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip(err)
	}
	var all []byte
	for _, file := range []string{"package.json", "package-lock.json"} {
		raw, err := os.ReadFile(filepath.Join(of, file))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, raw...)
	}
	dir := filepath.Join(cache, "winnow-test", fmt.Sprintf("%s-%.8x", of, sha256.Sum256(all)))
	complete := filepath.Join(dir, "complete")
	if _, err := os.Stat(complete); err == nil {
		return dir
	}
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(of))); err != nil { // what an interrupted run left, if any
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Skipf("the packages of %s cannot be installed, the registry may be out of reach: %v: %s", of, err, out)
	}
	if err := os.WriteFile(complete, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOpenAINode(t *testing.T) {
	dir := packages(t, "node")
	url := serve(t)
	script, err := os.Open(filepath.Join("node", "quickstart.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	defer script.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", "--input-type=module", "-", url+"/v1", "demo")
	node.Dir, node.Stdin = dir, script
	if out, err := node.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
