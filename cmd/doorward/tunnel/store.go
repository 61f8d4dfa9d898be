package tunnel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Credential is what the edge takes for a person who has signed in.
type Credential struct {
	Secret  string    `json:"credential"`
	Account string    `json:"account"` // who it stands for
	Expires time.Time `json:"expires"` // at the latest
}

// Store keeps the credential of one service in a file that nobody else can read.
type Store struct{ path string }

// NewStore names the file in a directory of the person's for a host at an edge.
func NewStore(dir, host, edge string) *Store {
	name := host
	if edge != host+":443" {
		name += "_" + strings.Map(func(r rune) rune {
			if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.-", r) {
				return r
			}
			return '_'
		}, strings.ToLower(edge))
	}
	return &Store{filepath.Join(dir, "doorward", "tcp", name+".json")}
}

// Read returns the credential, or a zero one when none is kept or it has expired. A file that others can read is an error.
func (s *Store) Read() (Credential, error) {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Credential{}, nil
	}
	if err != nil {
		return Credential{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Credential{}, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return Credential{}, fmt.Errorf("%s has mode %#o, so others could connect as you: remove it, and end the session at the edge if somebody may have read it", s.path, mode)
	}
	var c Credential
	if json.NewDecoder(f).Decode(&c) != nil || !time.Now().Before(c.Expires) {
		return Credential{}, nil // the next sign-in replaces it
	}
	return c, nil
}

// Write keeps a credential in place of the one that was kept.
func (s *Store) Write(c Credential) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), ".new-*") // has mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}
