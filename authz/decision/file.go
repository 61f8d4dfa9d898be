package decision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// file is a log file that is rotated by size: PATH becomes PATH.1, PATH.1 becomes PATH.2 and so on. A file that somebody moved away or
// removed, as logrotate does, is opened anew. It is for one goroutine.
type file struct {
	path string
	most int64 // bytes
	keep int   // rotated files
	out  *os.File
}

// openFile opens or creates the file. It may be a device as /dev/null, which is never rotated.
func openFile(path string, most int64, keep int) (*file, error) {
	f := &file{path: path, most: most, keep: keep}
	_, err := f.open()
	return f, err
}

// open opens the file at the path for appending and returns what it is.
func (f *file) open() (os.FileInfo, error) {
	// Opening a pipe would wait for its other end, so it is looked at before.
	if info, err := os.Stat(f.path); err == nil && !info.Mode().IsRegular() && info.Mode()&os.ModeCharDevice == 0 {
		return nil, fmt.Errorf("%s is neither a regular file nor a device; name another path", f.path)
	}
	out, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	info, err := out.Stat()
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	f.out = out
	return info, nil
}

// Write appends lines as one piece. When the file would grow beyond its size it is rotated before; if it cannot be, it grows, and the error
// says so with all the lines written.
func (f *file) Write(lines []byte) (int, error) {
	info, err := f.follow()
	if err != nil {
		return 0, err
	}
	var problem error // that keeps nothing from being written
	if info.Mode().IsRegular() && info.Size() > 0 && info.Size()+int64(len(lines)) > f.most {
		if problem = f.rotate(); f.out == nil {
			if _, err := f.open(); err != nil {
				return 0, errors.Join(problem, err)
			}
		}
	}
	n, err := f.out.Write(lines)
	if err != nil {
		return n, errors.Join(problem, err, f.close()) // opened anew for the next
	}
	return n, problem
}

// follow makes sure that what is open is what the path names.
func (f *file) follow() (os.FileInfo, error) {
	if f.out == nil {
		return f.open()
	}
	at, err := os.Stat(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	mine, statErr := f.out.Stat()
	if statErr != nil {
		return nil, statErr
	}
	if err == nil && os.SameFile(at, mine) {
		return mine, nil
	}
	if err := f.close(); err != nil {
		return nil, err
	}
	return f.open()
}

// rotate gives each file the next number, the oldest one's place to its successor, and leaves the path free.
func (f *file) rotate() error {
	if err := f.close(); err != nil {
		return err
	}
	if f.keep == 0 {
		return os.Remove(f.path)
	}
	last := 1 // up to the first number that is free, so that an attempt that was cut short and made again costs no file
	for last < f.keep && exists(f.numbered(last)) {
		last++
	}
	for i := last; i > 0; i-- {
		if err := os.Rename(f.numbered(i-1), f.numbered(i)); err != nil {
			return err
		}
	}
	return nil
}

// numbered is the path of a rotated file; that of the file itself for 0.
func (f *file) numbered(i int) string {
	if i == 0 {
		return f.path
	}
	return fmt.Sprintf("%s.%d", f.path, i)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (f *file) close() error {
	if f.out == nil {
		return nil
	}
	out := f.out
	f.out = nil
	return out.Close()
}
