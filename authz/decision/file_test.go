package decision

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"doorward/authz/config"
)

func fileSettings(path string, size config.Size, keep int) config.DecisionLog {
	return config.DecisionLog{To: path, MaxSize: size, Keep: keep, SampleAllowed: 1}
}

// texts returns the content of the files in a directory, by name.
func texts(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

func TestRotationLosesNothing(t *testing.T) {
	dir := t.TempDir()
	const size, workers, each = 64 << 10, 4, 1500
	l := newLog(t, Config{Settings: fileSettings(filepath.Join(dir, "log"), size, 1000)})
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := range each {
				l.Add(numbered(w*each + i))
			}
		})
	}
	group.Wait()
	finish(t, l)
	files := texts(t, dir)
	var all strings.Builder
	for name, text := range files {
		if len(text) > size {
			t.Errorf("%s has %d bytes", name, len(text))
		}
		all.WriteString(text)
	}
	records, dropped := read(t, all.String())
	if seen := ids(records); len(seen) != workers*each || len(records) != workers*each || dropped != 0 || len(files) < 5 {
		t.Errorf("%d records of %d, %d told as dropped, in %d files", len(seen), workers*each, dropped, len(files))
	}
}

func TestOldFilesGo(t *testing.T) {
	dir := t.TempDir()
	f, err := openFile(filepath.Join(dir, "log"), 10, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	put := func(line string) {
		t.Helper()
		if n, err := f.Write([]byte(line + "\n")); err != nil || n != len(line)+1 {
			t.Fatal(n, err)
		}
	}
	for i := range 5 {
		put("line " + strconv.Itoa(i)) // of 7 bytes
	}
	want := map[string]string{"log": "line 4\n", "log.1": "line 3\n", "log.2": "line 2\n"}
	if got := texts(t, dir); !equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// An attempt that was cut short left a number free: it is used, and nothing else is moved.
	os.Remove(filepath.Join(dir, "log.1"))
	put("line 5")
	want = map[string]string{"log": "line 5\n", "log.1": "line 4\n", "log.2": "line 2\n"}
	if got := texts(t, dir); !equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	put(strings.Repeat("x", 100)) // longer than a file may be: alone in one
	put("line 6")
	if got := texts(t, dir); len(got["log.1"]) != 101 || got["log"] != "line 6\n" {
		t.Errorf("got %v", got)
	}
	f.keep = 0
	put("line 7")
	if got := texts(t, dir)["log"]; got != "line 7\n" {
		t.Errorf("got %q", got)
	}
}

func equal(a, b map[string]string) bool {
	for name, text := range a {
		if b[name] != text {
			return false
		}
	}
	return len(a) == len(b)
}

func TestAFileMovedAwayIsOpenedAnew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	f, err := openFile(path, 1<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	for _, step := range []func() error{
		func() error { return nil },
		func() error { return os.Rename(path, path+".moved") },
		func() error { return os.Remove(path) },
		func() error { return os.WriteFile(path+".new", []byte("new\n"), 0o600) },
		func() error { return os.Rename(path+".new", path) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"log": "new\nline\n", "log.moved": "line\n"}
	if got := texts(t, dir); !equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAFileThatCannotBeRotatedGrows(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	f, err := openFile(path, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if err := os.MkdirAll(filepath.Join(path+".1", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("line 1\n"))
	n, err := f.Write([]byte("line 2\n"))
	if n != 7 || err == nil {
		t.Errorf("%d bytes written, %v", n, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "line 1\nline 2\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	l := newLog(t, Config{Settings: settings("off")})
	for path, want := range map[string]string{
		dir:                  "decision_log.to: " + dir + " is neither a regular file nor a device; name another path",
		dir + "/none/of/log": "decision_log.to: open " + dir + "/none/of/log: no such file or directory",
	} {
		if _, err := l.Prepare(fileSettings(path, 1<<20, 1)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	target, err := l.Prepare(fileSettings("/dev/null", 1<<20, 1))
	if err != nil {
		t.Fatal(err)
	}
	l.Use(target)
	l.Add(numbered(1))
	finish(t, l)
	if l.Stats().Written != 1 {
		t.Errorf("%+v", l.Stats())
	}
}
