package main

import (
	"log/slog"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model/demo"
)

func TestMachineMemory(t *testing.T) {
	const meminfo = "MemTotal:       16384 kB\nMemFree:            1 kB\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing":       {nil, 0},
		"machine":       {map[string]string{"proc/meminfo": meminfo}, 16 << 20},
		"strange":       {map[string]string{"proc/meminfo": "MemTotal: many kB", "proc/self/cgroup": "x\n"}, 0},
		"no limit":      {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 16 << 20},
		"container":     {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "5000\n"}, 5000},
		"its parent":    {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "700"}, 700},
		"above":         {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "99999999999"}, 16 << 20},
		"first version": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "3:cpu:/x\n9:hugetlb,memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "800\n"}, 800},
		"outside":       {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/memory.max": "900"}, 900},
	} {
		root := fstest.MapFS{}
		for path, content := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(content)}
		}
		if got := machineMemory(root); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// What a model is expected to take before it is loaded is what it takes then, as nearly as packing in whole tiles allows.
func TestModelsTakeWhatIsExpected(t *testing.T) {
	folder, err := filepath.Abs("../../model/testdata/stories260k")
	if err != nil {
		t.Fatal(err)
	}
	alone(t)
	for _, variant := range []string{"auto", "go"} {
		for _, dtype := range []string{"native", "f32"} {
			cfg := configs.Default()
			cfg.CPU, cfg.DType = variant, dtype
			m, err := openMachine(cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{demo.Name, folder} {
				expected, err := m.memory(path)
				if err != nil {
					t.Fatal(err)
				}
				loaded, err := m.open("x", path)
				if err != nil {
					t.Fatal(err)
				}
				if took := loaded.Memory(); took < 1<<20 || expected < took-took/100 || expected > took+took/50 {
					t.Errorf("%s of %s on %s: %d bytes expected, %d taken", dtype, path, m.device.Name(), expected, took)
				}
				if err := loaded.Close(); err != nil {
					t.Error(err)
				}
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
