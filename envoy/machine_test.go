package envoy

import (
	"testing"
	"testing/fstest"
)

func TestMemoryLimit(t *testing.T) {
	const meminfo = "MemTotal:        1048576 kB\nMemFree:          1000 kB\n" // 1 GiB
	rows := []struct {
		name  string
		files map[string]string
		want  uint64
	}{
		{"a bare machine", map[string]string{"proc/meminfo": meminfo}, 1 << 30},
		{"a container", map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": "268435456\n"}, 256 << 20},
		{"a group without a limit", map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": "max\n"}, 1 << 30},
		{"a limit two groups above", map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/system.slice/doorward.service/x\n",
			"sys/fs/cgroup/system.slice/memory.max": "536870912\n", "sys/fs/cgroup/system.slice/doorward.service/memory.max": "max\n"}, 512 << 20},
		{"version 1", map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n"}, 128 << 20},
		{"version 1 without a limit", map[string]string{"proc/meminfo": meminfo,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 1 << 30},
		{"a path outside the namespace", map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/../other\n"}, 1 << 30},
		{"nothing known", nil, 0},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range r.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := memoryLimit(root); got != r.want {
				t.Errorf("memoryLimit = %d, want %d", got, r.want)
			}
		})
	}
}

func TestConnectionLimit(t *testing.T) {
	rows := []struct {
		files uint64
		want  uint32
	}{{0, 50_000}, {1 << 20, 50_000}, {20_000, 10_000}, {1024, 512}}
	for _, r := range rows {
		if got := connectionLimit(r.files); got != r.want {
			t.Errorf("connectionLimit(%d) = %d, want %d", r.files, got, r.want)
		}
	}
}
