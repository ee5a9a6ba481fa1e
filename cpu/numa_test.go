//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

// tree is a fake /sys/devices/system/node.
func tree(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestNodes(t *testing.T) {
	for _, c := range []struct {
		name    string
		files   map[string]string
		allowed []int
		want    string // node:cpus
		bad     bool
	}{
		{"no nodes", nil, []int{0, 1}, "", false},
		{"one", map[string]string{"online": "0\n", "node0/cpulist": "0-3\n"}, []int{0, 1, 2, 3}, "0:[0 1 2 3]", false},
		{"two", map[string]string{"online": "0-1\n", "node0/cpulist": "0-1,4-5\n", "node1/cpulist": "2-3,6-7\n"}, []int{0, 1, 2, 3, 4, 5, 6, 7}, "0:[0 1 4 5] 1:[2 3 6 7]", false},
		{"cpuset of one", map[string]string{"online": "0-1\n", "node0/cpulist": "0-1\n", "node1/cpulist": "2-3\n"}, []int{2, 3}, "1:[2 3]", false},
		{"part of each", map[string]string{"online": "0,2\n", "node0/cpulist": "0-1\n", "node2/cpulist": "2-3\n"}, []int{1, 2}, "0:[1] 2:[2]", false},
		{"memory alone", map[string]string{"online": "0-1", "node0/cpulist": "0-1", "node1/cpulist": "\n"}, []int{0, 1}, "0:[0 1]", false},
		{"online says nothing", map[string]string{"online": "\n"}, []int{0}, "", false},
		{"missing list", map[string]string{"online": "0-1", "node0/cpulist": "0"}, []int{0}, "", true},
		{"words", map[string]string{"online": "all"}, []int{0}, "", true},
		{"negative", map[string]string{"online": "-1"}, []int{0}, "", true},
		{"endless", map[string]string{"online": "0-99999999999999999999"}, []int{0}, "", true},
		{"too many", map[string]string{"online": "0-1024"}, []int{0}, "", true},
		{"backwards", map[string]string{"online": "0", "node0/cpulist": "3-1"}, []int{0}, "", true},
		{"twice", map[string]string{"online": "0", "node0/cpulist": "1,1"}, []int{0}, "", true},
		{"far CPU", map[string]string{"online": "0", "node0/cpulist": "0-4096"}, []int{0}, "", true},
		{"long", map[string]string{"online": strings.Repeat("0,", 1<<20)}, []int{0}, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var allowed unix.CPUSet
			for _, cpu := range c.allowed {
				allowed.Set(cpu)
			}
			got, err := nodes(tree(c.files), &allowed)
			if s := describe(got); s != c.want || (err != nil) != c.bad {
				t.Errorf("%q, %v; want %q", s, err, c.want)
			}
		})
	}
}

func describe(all []node) string {
	var out []string
	for _, n := range all {
		var cpus []int
		for cpu := range mostNodes {
			if n.cpus.IsSet(cpu) {
				cpus = append(cpus, cpu)
			}
		}
		out = append(out, fmt.Sprintf("%d:%v", n.number, cpus))
	}
	return strings.Join(out, " ")
}

func FuzzNodes(f *testing.F) {
	f.Add("0-1", "0-3,8")
	f.Add("0", "")
	f.Fuzz(func(t *testing.T, online, cpus string) {
		var allowed unix.CPUSet
		allowed.Fill()
		got, _ := nodes(tree(map[string]string{"online": online, "node0/cpulist": cpus, "node1/cpulist": cpus}), &allowed)
		for _, n := range got {
			if n.number > 1 || n.cpus.Count() == 0 {
				t.Errorf("node %d with %d CPUs", n.number, n.cpus.Count())
			}
		}
	})
}

func TestOneNodeChangesNothing(t *testing.T) {
	log := &said{}
	d := opened(t, Options{Threads: 3, Log: log.say})
	if n := d.ownNodes(); len(n) > 1 {
		t.Skipf("this machine has nodes %s", describe(n))
	}
	if d.heap.nodes != nil || log.has("node") {
		t.Error("memory is distributed over one node")
	}
}

// Workers run on the CPUs of nodes that are made up, memory is spread over those of them that there are, and the result is the same.
func TestDistribute(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("one CPU")
	}
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	var own []int
	for cpu := range mostNodes {
		if allowed.IsSet(cpu) {
			own = append(own, cpu)
		}
	}
	files := map[string]string{"online": "0-1", "node0/cpulist": fmt.Sprint(own[0]), "node1/cpulist": fmt.Sprint(own[1])}
	two, err := nodes(tree(files), &allowed)
	if err != nil || len(two) != 2 {
		t.Fatal(two, err)
	}
	before, log := pinned(t, own[:2]), &said{}
	d := opened(t, Options{Threads: 5, OneNode: true, Log: log.say})
	d.distribute(two)
	after := pinned(t, own[:2])
	for i := range before {
		if after[i]-before[i] != 2 {
			t.Errorf("%d workers more are on CPU %d, want 2", after[i]-before[i], own[i])
		}
	}
	if !log.has("distributed over 2 nodes") {
		t.Error("nothing is said")
	}
	plain := opened(t, Options{Threads: 5, OneNode: true})
	for _, f := range allFormats[:3] {
		if !slices.Equal(product(t, d, f), product(t, plain, f)) {
			t.Errorf("%s: other results", f)
		}
	}
	chunk, err := mapChunk(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer chunk.unmap()
	if err := interleave(chunk.mapped, two[:1]); err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}

// pinned counts the threads of this process that may run on one CPU alone, for each of some.
func pinned(t *testing.T, cpus []int) []int {
	t.Helper()
	all, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	out := make([]int, len(cpus))
	for _, name := range all {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has just ended
		}
		for i, cpu := range cpus {
			if strings.Contains(string(text), fmt.Sprintf("Cpus_allowed_list:\t%d\n", cpu)) {
				out[i]++
			}
		}
	}
	return out
}
