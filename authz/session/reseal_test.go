package session

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRotateResealForget(t *testing.T) {
	f := setUp(t)
	made := f.create(f.alice())
	cookie := f.issue(made.ID, host)
	under := f.sealer.Seal("state", []byte("a sign-in under way"))
	before, err := os.ReadFile(f.sealer.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.sealer.Rotate(); err != nil {
		t.Fatal(err)
	}
	f.finds(cookie, host, made.ID)
	if _, err := f.sealer.Open("state", under); err != nil || !f.sealer.Old() {
		t.Errorf("an old key does not open what it sealed: %v", err)
	}
	done, left, err := f.sealer.Reseal(t.Context(), f.store)
	if err != nil || left != 0 || done != 3 { // session, tokens, cookie
		t.Errorf("%d sealed anew, %d left, %v", done, left, err)
	}
	if done, _, _ := f.sealer.Reseal(t.Context(), f.store); done != 0 {
		t.Errorf("%d sealed anew for a second time", done)
	}
	if err := f.sealer.Forget(); err != nil || f.sealer.Old() {
		t.Fatal(err)
	}
	if _, err := f.sealer.Open("state", under); err == nil {
		t.Error("a key that was forgotten opens")
	}
	f.finds(cookie, host, made.ID)
	if full, err := f.Load(t.Context(), made.ID); err != nil || full.Tokens.Refresh != "refresh-token" {
		t.Errorf("the tokens are lost: %v", err)
	}
	again, err := OpenSealer(f.sealer.file) // as after a restart
	if err != nil {
		t.Fatal(err)
	}
	other := replica(t, f.clock, f.store, again)
	other.finds(cookie, host, made.ID)
	after, err := os.ReadFile(f.sealer.file)
	if err != nil || strings.Contains(string(after), strings.TrimSpace(strings.SplitAfter(string(before), keyPrefix)[1])) {
		t.Errorf("the old key is still in the file, %v", err)
	}
	if info, err := os.Stat(f.sealer.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
}

// A key file that is damaged is not written over.
func TestRotateKeepsADamagedFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	s, err := OpenSealer(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("seal-key-1:xxx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Rotate(); err == nil || !strings.Contains(err.Error(), "restore the file from a backup") {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "seal-key-1:xxx\n" {
		t.Errorf("the file is now %q, %v", text, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := s.Rotate(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
