//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// physicalCores counts the cores that the process may run on, hyperthreads of one core once. It gives most where the system does
// not say.
func physicalCores(most int) int {
	var allowed unix.CPUSet
	if unix.SchedGetaffinity(0, &allowed) != nil {
		return most
	}
	cores := map[string]bool{}
	for cpu, left := 0, allowed.Count(); left > 0 && cpu < 1024; cpu++ {
		if !allowed.IsSet(cpu) {
			continue
		}
		left--
		siblings, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu))
		if err != nil {
			return most
		}
		cores[strings.TrimSpace(string(siblings))] = true
	}
	return max(1, min(most, len(cores)))
}

// ownNodes are those that the process may run on; none where the system does not say.
func (d *device) ownNodes() []node {
	var allowed unix.CPUSet
	if unix.SchedGetaffinity(0, &allowed) != nil {
		return nil
	}
	out, err := nodes(os.DirFS("/sys/devices/system/node"), &allowed)
	if err != nil {
		d.once(fmt.Sprintf("cpu: the machine counts as one node: %v", err))
		return nil
	}
	return out
}
