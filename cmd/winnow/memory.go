package main

import (
	"bytes"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// machineMemory is how many bytes of memory this process can have: the machine's, or its container's where that is less. 0 = not known.
// root is the file system.
func machineMemory(root fs.FS) int64 {
	var least int64
	limit := func(n int64, err error) {
		if err == nil && n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	limit(totalMemory(root))
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(groups)) { // "0::/a/b" or "9:memory:/a/b"
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) < 3 {
			continue
		}
		dir, file := "sys/fs/cgroup", "memory.max"
		switch {
		case strings.Contains(","+part[1]+",", ",memory,"):
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		case part[1] != "":
			continue
		}
		for group := path.Clean("/" + part[2]); ; group = path.Dir(group) { // a group's limit holds for those within
			limit(readNumber(root, path.Join(dir, group, file)))
			if group == "/" {
				break
			}
		}
	}
	return least
}

// totalMemory reads "MemTotal: 16384 kB".
func totalMemory(root fs.FS) (int64, error) {
	raw, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(raw), "MemTotal:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.ParseInt(number, 10, 53)
	return n << 10, err
}

// readNumber reads a file that holds one number; "max" is none.
func readNumber(root fs.FS, name string) (int64, error) {
	raw, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(bytes.TrimSpace(raw)), 10, 64)
}
