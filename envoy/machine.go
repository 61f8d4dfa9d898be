package envoy

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// withLocalLimits fills in limits that are 0: half of the memory that this process may use, because Doorward and often the upstreams
// share it, and half of the file descriptors, because a client's connection may need one to an upstream.
func withLocalLimits(c BootstrapConfig) BootstrapConfig {
	if c.MaxHeap == 0 {
		if memory := Memory(); memory > 0 {
			c.MaxHeap = memory / 2
		}
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = connectionLimit(fileLimit())
	}
	return c
}

// connectionLimit is DefaultMaxConnections, or less where descriptors are few.
func connectionLimit(files uint64) uint32 {
	if files == 0 || files/2 >= DefaultMaxConnections {
		return DefaultMaxConnections
	}
	return uint32(files / 2)
}

// fileLimit is the hard limit of descriptors, up to which Envoy raises its own at start. 0 when unknown.
func fileLimit() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return limit.Max
}

// Memory is how many bytes this process may use: the machine's, or its control group's when that is less. 0 when unknown.
func Memory() uint64 { return memoryLimit(os.DirFS("/")) }

// memoryLimit is the least of the machine's memory and the control group's limit (version 2 or 1), in bytes. 0 when unknown.
func memoryLimit(root fs.FS) uint64 {
	least := uint64(math.MaxUint64)
	if meminfo, err := fs.ReadFile(root, "proc/meminfo"); err == nil {
		least = min(least, memTotal(meminfo))
	}
	for _, file := range cgroupFiles(root) {
		text, err := fs.ReadFile(root, file)
		if err != nil {
			continue
		}
		// "max" and version 1's huge number mean that there is none.
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			least = min(least, n)
		}
	}
	if least == math.MaxUint64 {
		return 0
	}
	return least
}

// cgroupFiles are the places where a limit may stand: the root of the file system of groups, which inside a container is its own group, and
// this process's group with all above it.
func cgroupFiles(root fs.FS) []string {
	files := []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"}
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return files
	}
	for _, line := range strings.Split(string(text), "\n") {
		group, isV2 := strings.CutPrefix(line, "0::/")
		for isV2 && group != "" && group != "." {
			files = append(files, filepath.Join("sys/fs/cgroup", group, "memory.max"))
			group = filepath.Dir(group)
		}
	}
	return files
}

// memTotal reads /proc/meminfo, in bytes.
func memTotal(meminfo []byte) uint64 {
	lines := bufio.NewScanner(bytes.NewReader(meminfo))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			if kib, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return math.MaxUint64
}
